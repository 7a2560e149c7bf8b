"""Run with `pytest tests/results/figures/test_representations.py`: the figures tsne, similarity and anchors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures._representations import read_study_vectors
from dirtune.results.figures.anchors import build_anchors, draw_anchors, select_anchor_labels
from dirtune.results.figures.similarity import CELLS, build_similarity, draw_similarity
from dirtune.results.figures.tsne import build_tsne, draw_tsne
from dirtune.results.records.parquetfile import encode_table
from tests.results.figures.stores import (
    make_predictions,
    make_request,
    place_on_circle,
    write_predictions,
    write_representations,
)


def test_the_vectors_are_those_of_the_first_seed_with_their_labels(tmp_path: Path) -> None:
    found = read_study_vectors(make_request(write_representations(tmp_path)), most=8)
    assert [arm.arm for arm in found.arms] == ["vanilla", "conr"]
    labels = make_predictions("conr", 1).labels[::2]
    assert found.arms[1].labels.tolist() == labels.tolist()
    assert np.array_equal(found.arms[1].vectors, place_on_circle(labels).astype(np.float64))
    assert "Without representations: lds." in found.caption
    assert "40 test samples" in found.caption


def test_only_requested_arms_are_shown(tmp_path: Path) -> None:
    found = read_study_vectors(make_request(write_representations(tmp_path), arms=("c*",)), most=8)
    assert [arm.arm for arm in found.arms] == ["conr"]
    with pytest.raises(InputError, match="unknown arm, got 'x'"):
        read_study_vectors(make_request(tmp_path, arms=("x",)), most=8)


@pytest.mark.parametrize("data", [build_tsne, build_similarity, build_anchors])
def test_a_study_without_representations_is_an_error_with_the_setting(tmp_path: Path, data) -> None:
    with pytest.raises(InputError, match=r"has no recorded representations.*`representations: 500`"):
        data(make_request(write_predictions(tmp_path)))


@pytest.mark.parametrize("options", [{"split": "val"}, {"selection": "last"}])
def test_other_splits_and_epochs_are_errors(tmp_path: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match="representations are recorded of these alone"):
        build_tsne(make_request(write_representations(tmp_path), **options))


def test_tsne_keeps_neighbors_on_a_circle_together_and_random_ones_not(tmp_path: Path) -> None:
    data = build_tsne(make_request(write_representations(tmp_path)))
    apart = {}
    for one in data.embeddings:
        away = np.linalg.norm(one.positions[:, None] - one.positions[None], axis=2)
        np.fill_diagonal(away, np.inf)
        apart[one.arm] = np.abs(one.labels - one.labels[away.argmin(axis=1)]).mean()
    assert apart["conr"] < 3.0
    assert apart["vanilla"] > 8.0


def test_embeddings_are_drawn_with_one_scale_of_labels(tmp_path: Path) -> None:
    data = build_tsne(make_request(write_representations(tmp_path)))
    figure = draw_tsne(data)
    *panels, bar = figure.axes
    assert [panel.get_title() for panel in panels] == ["vanilla", "conr"]
    assert bar.get_ylabel() == "angle [degrees]"
    limits = {panel.collections[0].get_clim() for panel in panels}
    everything = np.concatenate([one.labels for one in data.embeddings])
    assert limits == {(everything.min(), everything.max())}
    for panel, one in zip(panels, data.embeddings, strict=True):
        assert np.array_equal(panel.collections[0].get_array(), one.labels)


def test_too_few_samples_are_an_error(tmp_path: Path) -> None:
    root = write_representations(tmp_path)
    for path in sorted((root / "study/results/representations").iterdir()):
        _keep_first(path, 7)
    with pytest.raises(InputError, match="has 7 representations, too few for t-SNE"):
        build_tsne(make_request(root))


def test_the_density_counts_every_pair_once_and_correlates_them(tmp_path: Path) -> None:
    data = build_similarity(make_request(write_representations(tmp_path)))
    for one in data.densities:
        found = make_predictions(one.arm, 1).labels[::2]
        assert one.pairs.shape == (CELLS, CELLS)
        assert one.pairs.sum() == len(found) * (len(found) - 1) // 2
    circle = make_predictions("conr", 1).labels[::2]
    distances, cosines = [], []
    for i in range(len(circle)):
        for j in range(i + 1, len(circle)):
            distances.append(abs(circle[i] - circle[j]))
            cosines.append(math.cos(math.pi * abs(circle[i] - circle[j]) / 60))
    expected = np.corrcoef(distances, cosines)[0, 1]
    assert data.densities[1].correlation == pytest.approx(expected, abs=1e-5)
    assert data.densities[1].correlation < -0.95 < data.densities[0].correlation


def test_a_density_is_drawn_with_its_correlation(tmp_path: Path) -> None:
    data = build_similarity(make_request(write_representations(tmp_path)))
    first, second = draw_similarity(data).axes
    assert first.get_title() == f"vanilla, r = {data.densities[0].correlation:.2f}"
    assert second.get_title().startswith("conr, r = -0.9")
    assert first.get_xlabel() == "angle distance [degrees]"
    assert first.get_ylabel() == "cosine similarity"


def test_equal_representations_have_no_correlation(tmp_path: Path) -> None:
    from dirtune.results.figures.similarity import compute_correlation

    assert math.isnan(compute_correlation(np.array([1.0, 2.0]), np.array([0.5, 0.5])))
    assert math.isnan(compute_correlation(np.array([1.0]), np.array([0.5])))


def test_the_curves_of_the_ideal_are_the_target(tmp_path: Path) -> None:
    data = build_anchors(make_request(write_representations(tmp_path)))
    labels = make_predictions("vanilla", 1).labels[::2]
    assert [anchor.label for anchor in data.anchors] == list(select_anchor_labels(labels))
    for anchor in data.anchors:
        (ideal,) = [band for band in anchor.bands if band.label == "conr"]
        for x, mean in zip(ideal.x, ideal.means, strict=True):
            # Steps of 2 degrees
            assert mean == pytest.approx(math.cos(math.pi * x / 60), abs=0.11)
    distances, cosines = data.target
    assert cosines[0] == 1.0
    assert cosines[-1] == pytest.approx(math.cos(math.pi * distances[-1] / 60))


def test_every_anchor_has_a_panel_with_a_line_per_arm_and_the_target(tmp_path: Path) -> None:
    data = build_anchors(make_request(write_representations(tmp_path)))
    panels = draw_anchors(data).axes
    assert len(panels) == 3
    for panel, anchor in zip(panels, data.anchors, strict=True):
        assert panel.get_title() == f"angle {anchor.label:.3g}"
        *lines, target = panel.lines
        assert [line.get_label() for line in lines] == ["vanilla", "conr"]
        assert target.get_linestyle() == ":"


def test_anchors_are_distinct_labels_of_the_data() -> None:
    assert select_anchor_labels([3.0, 3.0, 3.0]) == (3.0,)
    assert select_anchor_labels(np.arange(0.0, 101.0)) == (10.0, 50.0, 90.0)
    assert select_anchor_labels([0.0, 0.0, 7.0]) == (0.0, 7.0)


def _keep_first(path: Path, rows: int) -> None:
    import pyarrow.parquet as pq

    path.write_bytes(encode_table(pq.read_table(path).slice(0, rows)))
