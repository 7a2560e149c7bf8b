from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.manifest import LabelSpec
from dirtune.results.figures.error_by_label import build_error_by_label, choose_bin_width, draw_error_by_label
from tests.results.figures.stores import (
    make_manifest,
    make_predictions,
    make_request,
    write_compared_arms,
    write_predictions,
)


def test_errors_and_densities_are_those_of_loops_over_the_samples(tmp_path: Path) -> None:
    data = build_error_by_label(make_request(write_predictions(tmp_path)))

    assert set(data.widths) == {2.0}
    counts = make_manifest().train_counts
    assert data.train == tuple(counts[i] + counts[i + 1] for i in range(0, 60, 2))
    assert [band.label for band in data.bands] == ["vanilla", "conr"]
    for band in data.bands:
        errors: dict[float, list[float]] = {}
        for seed in range(3):
            found = make_predictions(band.label, seed)
            sizes: dict[float, list[float]] = {}
            for label, prediction in zip(found.labels, found.predictions, strict=True):
                sizes.setdefault(2 * (label // 2) + 1, []).append(abs(prediction - label))
            for center, own in sizes.items():
                errors.setdefault(center, []).append(float(np.mean(own)))
        assert band.x == pytest.approx(sorted(errors))
        assert band.means == pytest.approx([np.mean(errors[x]) for x in sorted(errors)])
        spreads = [np.std(errors[x], ddof=1) if len(errors[x]) > 1 else np.nan for x in band.x]
        assert band.sds == pytest.approx(spreads, nan_ok=True)
        # No test labels beyond
        assert max(band.x) < 50
    assert "Without predictions: lds." in data.caption


def test_lines_are_drawn_in_front_of_the_histogram(tmp_path: Path) -> None:
    data = build_error_by_label(make_request(write_predictions(tmp_path)))

    behind, front = draw_error_by_label(data).axes

    assert [bar.get_height() for bar in behind.patches] == list(data.train)
    assert [line.get_label() for line in front.lines] == ["vanilla", "conr"]
    assert (behind.get_xlabel(), front.get_ylabel()) == ("angle [degrees]", "absolute error [degrees]")
    assert behind.yaxis.get_ticks_position() == "right"
    assert front.yaxis.get_ticks_position() == "left"
    assert front.get_ylim()[0] == 0


@pytest.mark.parametrize(("bins", "factor"), [(1, 1), (30, 1), (31, 2), (120, 5), (121, 5), (400, 20)])
def test_bins_are_merged_to_at_most_thirty(bins: int, factor: int) -> None:
    label = LabelSpec(name="x", unit="", low=0.0, high=0.1 * bins, bin_width=0.1, num_bins=bins)

    assert choose_bin_width(label) == pytest.approx(0.1 * factor)


def test_a_figure_that_cannot_be_drawn_is_one_error(tmp_path: Path) -> None:
    root = write_predictions(tmp_path / "a")
    with pytest.raises(InputError, match="must be best_val: predictions are recorded at the best"):
        build_error_by_label(make_request(root, selection="last"))
    with pytest.raises(InputError, match="has no predictions of the val split yet"):
        build_error_by_label(make_request(write_predictions(tmp_path / "c", splits=["test"]), split="val"))
    with pytest.raises(InputError, match=r"manifest.json: is not there"):
        build_error_by_label(make_request(write_compared_arms(tmp_path / "b")))
