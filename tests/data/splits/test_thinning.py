"""Run with `pytest tests/data/splits/test_thinning.py`: held-out labels, training densities, and nested subsets."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from dirtune.data.splits import Splitting, make_held_out_rule
from dirtune.data.splits.partition import compute_total_variation
from dirtune.data.splits.thinning import (
    compute_profile,
    compute_profile_quotas,
    find_held_out_bins,
    remove_held_out,
    select_at_random,
    select_by_quota,
    select_stratified,
)
from dirtune.errors import InputError
from dirtune.manifest import LabelSpec
from dirtune.reweighting.density import shot_regions

AGE = LabelSpec(name="age", unit="years", low=0, high=20, bin_width=1, num_bins=20)
# Edges that six digits do not represent
FINE = LabelSpec(name="t", unit="s", low=1e6, high=1e6 + 4, bin_width=0.2, num_bins=20)
PRICE = LabelSpec(name="p", unit="$", low=1, high=math.exp(20), bin_width=1, num_bins=20, transform="log")
EVEN = np.full(20, 10)
POSITION = LabelSpec(name="x", unit="m", low=0, high=20, bin_width=0.5, num_bins=40)
DENSITY = np.random.default_rng(1).integers(0, 60, size=40)
IDS = np.array([f"row-{row:04d}" for row in range(DENSITY.sum())], dtype=object)
BINS = np.repeat(np.arange(40), DENSITY)


def _held(density, **settings) -> list[int]:
    return list(find_held_out_bins(density, AGE, Splitting(**settings)))


def test_nothing_is_held_out_by_default():
    assert _held(EVEN) == []


def test_held_out_shares_of_an_even_density_are_exact():
    assert _held(EVEN, hold_out="extrapolation", held_share=0.2) == [0, 1, 18, 19]
    assert _held(EVEN, hold_out="interpolation", held_share=0.2) == [8, 9, 10, 11]
    assert _held(EVEN, hold_out="blind_spots", held_share=0.2, spots=2) == [4, 5, 14, 15]


@pytest.mark.parametrize("kind", ["extrapolation", "interpolation", "blind_spots"])
def test_the_held_out_bins_contain_about_the_share(kind):
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


def test_bands_hold_out_the_bins_with_their_center_inside():
    held = _held(EVEN, hold_out="blind_spots", bands=((3.0, 5.0), (9.6, 11.5)))
    assert held == [3, 4, 10]


@pytest.mark.parametrize("bands", [((30.0, 40.0),), ((0.0, 20.0),)])
def test_bands_without_rows_or_with_all_of_them_are_an_error(bands):
    with pytest.raises(InputError, match="some of the rows and not all"):
        _held(EVEN, hold_out="blind_spots", bands=bands)


@pytest.mark.parametrize("hold_out", ["extrapolation", "interpolation", "blind_spots"])
@pytest.mark.parametrize("label", [AGE, FINE, PRICE], ids=["plain", "fine", "log"])
@pytest.mark.parametrize(
    "rows", [{0: 90, 5: 4, 9: 6}, {19: 90, 5: 4, 9: 6}, {0: 8, 4: 80, 19: 12}, {2: 50, 9: 50}, {0: 1, 1: 1}]
)
def test_the_bands_that_a_refusal_suggests_hold_out_some_rows_and_not_the_most_frequent_labels(hold_out, label, rows):
    density = np.bincount([*rows], weights=[*rows.values()], minlength=20).astype(np.int64)
    try:
        held = find_held_out_bins(density, label, Splitting(hold_out=hold_out))
    except InputError as error:
        bands = tuple(map(tuple, json.loads(str(error).rpartition("bands=")[2])))
        held = find_held_out_bins(density, label, Splitting(hold_out=hold_out, bands=bands))
        assert density.argmax() not in held
    assert 0 < density[list(held)].sum() < density.sum()


def test_all_labels_in_one_bin_cannot_be_held_out():
    density = np.bincount([3], weights=[50], minlength=20).astype(np.int64)
    with pytest.raises(InputError, match="in one bin cannot be divided: set a smaller bin_width"):
        _held(density, hold_out="blind_spots")


def test_bands_and_peaks_of_logarithmic_bins_are_in_the_unit_of_the_label():
    # Bins from 1 to e, from e to e^2, and so on
    request = Splitting(hold_out="extrapolation", bands=((math.exp(15), math.exp(20)),))
    assert find_held_out_bins(EVEN, PRICE, request) == (15, 16, 17, 18, 19)
    request = Splitting(profile="normal", peaks=(math.exp(6.5),), spread=1.0)
    assert compute_profile(EVEN, PRICE, request)[6] == pytest.approx(1.0)


def test_held_out_bins_are_removed_from_training_and_kept_in_test():
    splits = np.array(["train", "val", "test", "train", "val", "test"])
    bins = np.array([1, 1, 1, 2, 2, 2])
    whole = remove_held_out(splits, bins, (1,), from_validation=False)
    assert whole.tolist() == ["left_out", "val", "test", "train", "val", "test"]
    seen = remove_held_out(splits, bins, (1,), from_validation=True)
    assert seen.tolist() == ["left_out", "left_out", "test", "train", "val", "test"]
    assert splits.tolist() == ["train", "val", "test"] * 2


def test_the_region_few_of_the_shot_rule_is_the_held_out_bins():
    regions = shot_regions(np.zeros(5), make_held_out_rule((1, 3), 5))
    assert regions.tolist() == ["many", "few", "many", "few", "many"]


def test_the_blind_spot_of_the_review_is_found_on_agedb(agedb):
    request = Splitting(hold_out="blind_spots", bands=((47.0, 54.0),))
    density = np.bincount(agedb.bins, minlength=121)
    assert find_held_out_bins(density, agedb.label, request) == tuple(range(47, 54))


# --- Densities and subsets


@pytest.mark.parametrize("profile", ["exponential", "normal", "bimodal"])
def test_densities_follow_their_formula_at_the_bin_centers(profile):
    request = Splitting(profile=profile, peaks=(4.0, 15.0), spread=3.0)
    expected = []
    for index, count in enumerate(DENSITY):
        distances = [abs(0.25 + 0.5 * index - peak) for peak in (4.0, 15.0)]
        power = {"exponential": lambda d: d / 3}.get(profile, lambda d: d * d / 18)
        expected.append(sum(math.exp(-power(d)) for d in distances) if count else 0.0)
    np.testing.assert_allclose(compute_profile(DENSITY, POSITION, request), expected)


def test_the_inverse_density_is_the_inverse_of_the_counts():
    expected = [1 / count if count else 0.0 for count in DENSITY]
    found = compute_profile(DENSITY, POSITION, Splitting(profile="inverse"))
    np.testing.assert_allclose(found, expected)


def test_default_peaks_depend_on_the_bulk_of_the_rows():
    # 5 % and 95 %: bins 1 and 37
    density = np.full(40, 100)
    low, high = 0.75, 18.75
    at = {"exponential": [low], "normal": [(low + high) / 2], "bimodal": [5.25, 14.25]}
    for profile, peaks in at.items():
        found = compute_profile(density, POSITION, Splitting(profile=profile))
        spread = (high - low) / (8 if profile == "bimodal" else 4)
        given = Splitting(profile=profile, peaks=tuple(peaks), spread=spread)
        np.testing.assert_allclose(found, compute_profile(density, POSITION, given))


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.3])
def test_as_many_rows_are_kept_as_the_tolerance_allows(tolerance):
    wanted = compute_profile(DENSITY, POSITION, Splitting(profile="normal"))
    quota = compute_profile_quotas(DENSITY, wanted, tolerance=tolerance)
    # By a search over all scales.
    kept = np.minimum(DENSITY, np.linspace(0.01, 400, 40_000)[:, None] * wanted)
    distances = np.abs(kept / kept.sum(axis=1, keepdims=True) - wanted / wanted.sum()).sum(axis=1) / 2
    best = kept.sum(axis=1)[distances <= tolerance + 1e-12].max(initial=0.0)
    assert (quota <= DENSITY).all()
    assert quota.sum() == pytest.approx(best, abs=1.5)
    assert compute_total_variation(quota, wanted) <= tolerance + 40 / quota.sum()


def test_a_requested_number_of_rows_is_exact():
    wanted = compute_profile(DENSITY, POSITION, Splitting(profile="bimodal"))
    for rows in (1, 17, 300, int(DENSITY.sum())):
        quota = compute_profile_quotas(DENSITY, wanted, rows=rows)
        assert quota.sum() == rows
        assert ((quota >= 0) & (quota <= DENSITY)).all()
    with pytest.raises(InputError, match=f"at most {DENSITY.sum()} training rows"):
        compute_profile_quotas(DENSITY, wanted, rows=int(DENSITY.sum()) + 1)


def test_a_profile_equal_to_the_density_keeps_all_rows():
    quota = compute_profile_quotas(DENSITY, DENSITY / DENSITY.sum(), tolerance=0.0)
    assert quota.tolist() == DENSITY.tolist()


def test_profiled_rows_fill_the_quota_of_every_bin():
    small = compute_profile_quotas(DENSITY, np.where(DENSITY > 0, 1.0, 0.0), rows=100)
    kept = select_by_quota(IDS, BINS, small, seed=0)
    assert np.bincount(BINS[kept], minlength=40).tolist() == small.tolist()
    larger = select_by_quota(IDS, BINS, np.minimum(DENSITY, 2 * small), seed=0)
    # A larger quota holds the smaller
    assert (larger | ~kept).all()


def test_random_subsets_have_their_size_and_are_nested():
    before = np.zeros(len(IDS), dtype=bool)
    for size in (1, 10, 100, len(IDS)):
        kept = select_at_random(IDS, size, seed=0)
        assert kept.sum() == size
        assert (kept | ~before).all()
        before = kept


def test_stratified_subsets_are_nested_and_give_every_bin_its_share():
    before = np.zeros(len(IDS), dtype=bool)
    for percent in range(1, 101, 3):
        size = round(len(IDS) * percent / 100)
        kept = select_stratified(IDS, BINS, size, seed=0)
        counts = np.bincount(BINS[kept], minlength=40)
        assert kept.sum() == size
        assert (kept | ~before).all()
        assert np.abs(counts - DENSITY * size / len(IDS)).max() < 2
        before = kept


def test_subsets_depend_on_the_ids_and_the_seed():
    turned = np.random.default_rng(0).permutation(len(IDS))
    kept = select_stratified(IDS, BINS, 100, seed=0)
    assert select_stratified(IDS[turned], BINS[turned], 100, seed=0).tolist() == kept[turned].tolist()
    assert (select_stratified(IDS, BINS, 100, seed=1) != kept).any()
    assert (select_at_random(IDS, 100, seed=1) != select_at_random(IDS, 100, seed=0)).any()


@pytest.mark.parametrize("kind", ["extrapolation", "interpolation", "blind_spots"])
def test_a_bin_with_most_of_the_rows_is_not_held_out_without_a_word(kind):
    """As rain has it: 85 of 100 rows are zero."""
    density = np.array([850, *[8] * 18, 6])
    with pytest.raises(
        InputError, match=r"the label bin \[0, 1\) has 85% of all rows, .* such as bands=\[\[10, 20\]\]"
    ):
        _held(density, hold_out=kind)
    assert _held(density, hold_out=kind, bands=((15, 20),)) == [15, 16, 17, 18, 19]
