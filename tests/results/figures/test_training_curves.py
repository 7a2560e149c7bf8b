from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.errors import InputError
from dirtune.results.figures.training_curves import build_training_curves, draw_training_curves
from tests.results.figures.stores import KEYS, VALUES, add_epochs, make_request, write_compared_arms, write_many_arms
from tests.results.record_factory import record, write_study


@pytest.mark.parametrize(("name", "factor"), [(None, 1), ("train/loss", 2)])
def test_every_epoch_is_the_mean_over_the_seeds(tmp_path: Path, name: str | None, factor: int) -> None:
    data = build_training_curves(make_request(write_compared_arms(tmp_path), y=name))

    assert [band.label for band in data.bands] == list(VALUES)
    for band in data.bands:
        seeds = factor * np.array([[v + 4, v + 1, v] for v in VALUES[band.label].values()])
        assert band.x == (1, 2, 3)
        assert band.means == pytest.approx(seeds.mean(axis=0))
        if len(seeds) > 1:
            assert band.sds == pytest.approx(seeds.std(axis=0, ddof=1))
    assert data.label == (name or "validation MAE [degrees], all")


def test_lines_and_bands_are_drawn_and_a_single_seed_has_none(tmp_path: Path) -> None:
    (axes,) = draw_training_curves(build_training_curves(make_request(write_compared_arms(tmp_path)))).axes

    assert [line.get_label() for line in axes.lines] == list(VALUES)
    assert [any(len(path) for path in part.get_paths()) for part in axes.collections] == [True, True, True, False]
    assert axes.get_xlabel() == "epoch"


def test_trials_of_unequal_length_and_arms_without_the_value_are_noted(tmp_path: Path) -> None:
    records = [
        add_epochs(record("vanilla", 0), [3.0, 2.0]),
        add_epochs(record("vanilla", 1), [5.0]),
        record("conr", 0),
    ]
    write_study(tmp_path, records, **(KEYS | {"arms": ["vanilla", "conr"]}))

    data = build_training_curves(make_request(tmp_path))

    (band,) = data.bands
    assert (band.means, band.n) == ((4.0, 2.0), (2, 1))
    assert "Without this value or a complete trial: 1 of 2 arms." in data.caption
    assert "Some trials of an arm end earlier than others; later means are over those that go on." in data.caption
    equal = build_training_curves(make_request(write_compared_arms(tmp_path / "equal")))
    assert "earlier" not in equal.caption


def test_arms_beyond_the_maximum_are_dropped_by_a_stated_rule(tmp_path: Path) -> None:
    data = build_training_curves(make_request(write_many_arms(tmp_path, 36)))

    assert [int(band.label[-2:]) for band in data.bands] == [0, *range(31, 36)]
    assert "6 of 36 arms are shown: the reference and those with the best" in data.caption


def test_unknown_values_and_empty_studies_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got 'train/los'; known: train/loss, val/all/mae"):
        build_training_curves(make_request(write_compared_arms(tmp_path / "a"), y="train/los"))
    write_study(tmp_path / "b", [record("vanilla", 0)], **KEYS)
    with pytest.raises(InputError, match="has no recorded epochs yet"):
        build_training_curves(make_request(tmp_path / "b"))
