"""Run with `pytest tests/results/figures/test_representations.py`: the figures tsne, similarity and anchors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures._representations import study_vectors
from dirtune.results.figures.anchors import anchor_labels, anchors_data, draw_anchors
from dirtune.results.figures.similarity import CELLS, draw_similarity, similarity_data
from dirtune.results.figures.tsne import draw_tsne, tsne_data
from tests.results.figures.stores import on_a_circle, predicted, represented, request, stored_predictions


def test_the_vectors_are_those_of_the_first_seed_with_their_labels(tmp_path: Path) -> None:
    found = study_vectors(request(represented(tmp_path)), most=8)
    assert [arm.arm for arm in found.arms] == ["vanilla", "conr"]
    labels = stored_predictions("conr", 1).labels[::2]
    assert found.arms[1].labels.tolist() == labels.tolist()
    assert np.array_equal(found.arms[1].vectors, on_a_circle(labels).astype(np.float64))
    assert "Without representations: lds." in found.caption
    assert "40 test samples" in found.caption


def test_only_the_arms_that_are_asked_for_are_shown(tmp_path: Path) -> None:
    found = study_vectors(request(represented(tmp_path), arms=("c*",)), most=8)
    assert [arm.arm for arm in found.arms] == ["conr"]
    with pytest.raises(InputError, match="unknown arm, got 'x'"):
        study_vectors(request(tmp_path, arms=("x",)), most=8)


@pytest.mark.parametrize("data", [tsne_data, similarity_data, anchors_data])
def test_a_study_that_kept_none_says_how_to_keep_them(tmp_path: Path, data) -> None:
    with pytest.raises(InputError, match=r"keeps no representations.*`representations: 500`"):
        data(request(predicted(tmp_path)))


@pytest.mark.parametrize("options", [{"split": "val"}, {"selection": "last"}])
def test_other_splits_and_epochs_are_refused(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="representations are kept of these alone"):
        tsne_data(request(represented(tmp_path), **options))


def test_a_map_keeps_neighbours_on_a_circle_together_and_random_ones_not(tmp_path: Path) -> None:
    data = tsne_data(request(represented(tmp_path)))
    apart = {}
    for one in data.maps:
        away = np.linalg.norm(one.places[:, None] - one.places[None], axis=2)
        np.fill_diagonal(away, np.inf)
        apart[one.arm] = np.abs(one.labels - one.labels[away.argmin(axis=1)]).mean()
    assert apart["conr"] < 3.0
    assert apart["vanilla"] > 8.0


def test_maps_are_drawn_with_one_scale_of_labels(tmp_path: Path) -> None:
    data = tsne_data(request(represented(tmp_path)))
    figure = draw_tsne(data)
    *panels, bar = figure.axes
    assert [panel.get_title() for panel in panels] == ["vanilla", "conr"]
    assert bar.get_ylabel() == "angle [degrees]"
    limits = {panel.collections[0].get_clim() for panel in panels}
    everything = np.concatenate([one.labels for one in data.maps])
    assert limits == {(everything.min(), everything.max())}
    for panel, one in zip(panels, data.maps, strict=True):
        assert np.array_equal(panel.collections[0].get_array(), one.labels)


def test_a_handful_of_samples_makes_no_map(tmp_path: Path) -> None:
    root = represented(tmp_path)
    for path in sorted((root / "study/results/representations").iterdir()):
        _keep_first(path, 7)
    with pytest.raises(InputError, match="keeps 7 representations, too few for a map"):
        tsne_data(request(root))


def test_the_density_counts_every_pair_once_and_correlates_them(tmp_path: Path) -> None:
    data = similarity_data(request(represented(tmp_path)))
    for one in data.densities:
        found = stored_predictions(one.arm, 1).labels[::2]
        assert one.pairs.shape == (CELLS, CELLS)
        assert one.pairs.sum() == len(found) * (len(found) - 1) // 2
    circle = stored_predictions("conr", 1).labels[::2]
    distances, cosines = [], []
    for i in range(len(circle)):
        for j in range(i + 1, len(circle)):
            distances.append(abs(circle[i] - circle[j]))
            cosines.append(math.cos(math.pi * abs(circle[i] - circle[j]) / 60))
    expected = np.corrcoef(distances, cosines)[0, 1]
    assert data.densities[1].correlation == pytest.approx(expected, abs=1e-5)
    assert data.densities[1].correlation < -0.95 < data.densities[0].correlation


def test_a_density_is_drawn_with_its_correlation(tmp_path: Path) -> None:
    data = similarity_data(request(represented(tmp_path)))
    first, second = draw_similarity(data).axes
    assert first.get_title() == f"vanilla, r = {data.densities[0].correlation:.2f}"
    assert second.get_title().startswith("conr, r = -0.9")
    assert first.get_xlabel() == "angle distance [degrees]"
    assert first.get_ylabel() == "cosine similarity"


def test_equal_representations_have_no_correlation(tmp_path: Path) -> None:
    from dirtune.results.figures.similarity import _correlation

    assert math.isnan(_correlation(np.array([1.0, 2.0]), np.array([0.5, 0.5])))
    assert math.isnan(_correlation(np.array([1.0]), np.array([0.5])))


def test_the_curves_of_the_ideal_are_the_target(tmp_path: Path) -> None:
    data = anchors_data(request(represented(tmp_path)))
    labels = stored_predictions("vanilla", 1).labels[::2]
    assert [anchor.label for anchor in data.anchors] == list(anchor_labels(labels))
    for anchor in data.anchors:
        (ideal,) = [band for band in anchor.bands if band.label == "conr"]
        for x, mean in zip(ideal.x, ideal.means, strict=True):
            # Steps of 2 degrees
            assert mean == pytest.approx(math.cos(math.pi * x / 60), abs=0.11)
    distances, cosines = data.target
    assert cosines[0] == 1.0
    assert cosines[-1] == pytest.approx(math.cos(math.pi * distances[-1] / 60))


def test_every_anchor_has_a_panel_with_a_line_per_arm_and_the_target(tmp_path: Path) -> None:
    data = anchors_data(request(represented(tmp_path)))
    panels = draw_anchors(data).axes
    assert len(panels) == 3
    for panel, anchor in zip(panels, data.anchors, strict=True):
        assert panel.get_title() == f"angle {anchor.label:.3g}"
        *lines, target = panel.lines
        assert [line.get_label() for line in lines] == ["vanilla", "conr"]
        assert target.get_linestyle() == ":"


def test_anchors_are_labels_that_occur_each_once() -> None:
    assert anchor_labels([3.0, 3.0, 3.0]) == (3.0,)
    assert anchor_labels(np.arange(0.0, 101.0)) == (10.0, 50.0, 90.0)
    assert anchor_labels([0.0, 0.0, 7.0]) == (0.0, 7.0)


def _keep_first(path: Path, rows: int) -> None:
    import pyarrow.parquet as pq

    pq.write_table(pq.read_table(path).slice(0, rows), path)
