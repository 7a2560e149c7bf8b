"""`pytest tests/data/splits/test_holdout.py`: which labels training lacks."""

from __future__ import annotations

import numpy as np
import pytest

from dirtune.data.splits import Splitting, held_out_rule
from dirtune.data.splits.holdout import held_out_bins, hold_out
from dirtune.errors import InputError
from dirtune.manifest import LabelSpec
from dirtune.reweighting.density import shot_regions

LABEL = LabelSpec(name="age", unit="years", low=0, high=20, bin_width=1, num_bins=20)
EVEN = np.full(20, 10)


def _held(density, **settings) -> list[int]:
    return list(held_out_bins(density, LABEL, Splitting(**settings)))


def test_nothing_is_held_out_unless_asked():
    assert _held(EVEN) == []


def test_even_densities_are_cut_where_the_shares_say():
    assert _held(EVEN, hold_out="extrapolation", held_share=0.2) == [0, 1, 18, 19]
    assert _held(EVEN, hold_out="interpolation", held_share=0.2) == [8, 9, 10, 11]
    assert _held(EVEN, hold_out="blind_spots", held_share=0.2, spots=2) == [4, 5, 14, 15]


@pytest.mark.parametrize("kind", ["extrapolation", "interpolation", "blind_spots"])
def test_the_held_out_bins_hold_about_the_share(kind):
    density = np.random.default_rng(3).integers(1, 20, size=20)
    held = _held(density, hold_out=kind, held_share=0.3)
    ends = np.cumsum(density) / density.sum()
    expected = []
    for index in range(20):
        middle = ends[index] - density[index] / density.sum() / 2
        inside = {
            "extrapolation": middle < 0.15 or middle >= 0.85,
            "interpolation": 0.35 <= middle < 0.65,
            "blind_spots": any(abs(middle - center) < 0.05 for center in (1 / 6, 1 / 2, 5 / 6)),
        }[kind]
        expected += [index] if inside else []
    assert held == expected
    assert 0 < density[held].sum() / density.sum() < 0.6


def test_a_bin_larger_than_a_whole_band_is_still_held_out():
    density = np.zeros(20, dtype=np.int64)
    density[[0, 10, 19]] = 100
    assert _held(density, hold_out="interpolation", held_share=0.01) == [10]
    assert {0, 19} <= set(_held(density, hold_out="extrapolation", held_share=0.01))


def test_bands_take_the_bins_whose_center_is_inside():
    held = _held(EVEN, hold_out="blind_spots", bands=((3.0, 5.0), (9.6, 11.5)))
    assert held == [3, 4, 10]


@pytest.mark.parametrize("bands", [((30.0, 40.0),), ((0.0, 20.0),)])
def test_bands_without_rows_or_with_all_of_them_are_refused(bands):
    with pytest.raises(InputError, match="some of the rows and not all"):
        _held(EVEN, hold_out="blind_spots", bands=bands)


def test_training_loses_the_bins_and_test_keeps_them():
    splits = np.array(["train", "val", "test", "train", "val", "test"])
    bins = np.array([1, 1, 1, 2, 2, 2])
    whole = hold_out(splits, bins, (1,), from_validation=False)
    assert whole.tolist() == ["left_out", "val", "test", "train", "val", "test"]
    seen = hold_out(splits, bins, (1,), from_validation=True)
    assert seen.tolist() == ["left_out", "left_out", "test", "train", "val", "test"]
    assert splits.tolist() == ["train", "val", "test"] * 2


def test_the_shot_rule_calls_the_held_out_bins_few():
    regions = shot_regions(np.zeros(5), held_out_rule((1, 3), 5))
    assert regions.tolist() == ["many", "few", "many", "few", "many"]


def test_agedb_gets_the_blind_spot_of_the_review(agedb):
    request = Splitting(hold_out="blind_spots", bands=((47.0, 54.0),))
    density = np.bincount(agedb.bins, minlength=121)
    assert held_out_bins(density, agedb.label, request) == tuple(range(47, 54))
