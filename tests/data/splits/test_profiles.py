"""`pytest tests/data/splits/test_profiles.py`: densities, the number of rows they keep, and nested subsets."""

from __future__ import annotations

import math

import numpy as np
import pytest

from dirtune.data.splits import Splitting
from dirtune.data.splits.grouped import total_variation
from dirtune.data.splits.profiles import profile_quotas, profiled, random_subset, stratified_subset, wanted_density
from dirtune.errors import InputError
from dirtune.manifest import LabelSpec

LABEL = LabelSpec(name="x", unit="m", low=0, high=20, bin_width=0.5, num_bins=40)
DENSITY = np.random.default_rng(1).integers(0, 60, size=40)
IDS = np.array([f"row-{row:04d}" for row in range(DENSITY.sum())], dtype=object)
BINS = np.repeat(np.arange(40), DENSITY)


@pytest.mark.parametrize("profile", ["exponential", "normal", "bimodal"])
def test_densities_follow_their_formula_at_the_bin_centers(profile):
    request = Splitting(profile=profile, peaks=(4.0, 15.0), spread=3.0)
    expected = []
    for index, count in enumerate(DENSITY):
        distances = [abs(0.25 + 0.5 * index - peak) for peak in (4.0, 15.0)]
        power = {"exponential": lambda d: d / 3}.get(profile, lambda d: d * d / 18)
        expected.append(sum(math.exp(-power(d)) for d in distances) if count else 0.0)
    np.testing.assert_allclose(wanted_density(DENSITY, LABEL, request), expected)


def test_the_inverse_density_is_the_inverse_of_the_counts():
    expected = [1 / count if count else 0.0 for count in DENSITY]
    found = wanted_density(DENSITY, LABEL, Splitting(profile="inverse"))
    np.testing.assert_allclose(found, expected)


def test_default_peaks_stand_on_the_bulk_of_the_rows():
    # 5 % and 95 %: bins 1 and 37
    density = np.full(40, 100)
    low, high = 0.75, 18.75
    at = {"exponential": [low], "normal": [(low + high) / 2], "bimodal": [5.25, 14.25]}
    for profile, peaks in at.items():
        found = wanted_density(density, LABEL, Splitting(profile=profile))
        spread = (high - low) / (8 if profile == "bimodal" else 4)
        given = Splitting(profile=profile, peaks=tuple(peaks), spread=spread)
        np.testing.assert_allclose(found, wanted_density(density, LABEL, given))


@pytest.mark.parametrize("tolerance", [0.0, 0.05, 0.3])
def test_as_many_rows_are_kept_as_the_tolerance_allows(tolerance):
    wanted = wanted_density(DENSITY, LABEL, Splitting(profile="normal"))
    quota = profile_quotas(DENSITY, wanted, tolerance=tolerance)
    best = 0.0
    # Every scale, slowly
    for scale in np.linspace(0.01, 400, 40_000):
        kept = np.minimum(DENSITY, scale * wanted)
        if total_variation(kept, wanted) <= tolerance + 1e-12:
            best = max(best, kept.sum())
    assert (quota <= DENSITY).all()
    assert quota.sum() == pytest.approx(best, abs=1.5)
    assert total_variation(quota, wanted) <= tolerance + 40 / quota.sum()


def test_a_number_of_rows_is_met_exactly():
    wanted = wanted_density(DENSITY, LABEL, Splitting(profile="bimodal"))
    for rows in (1, 17, 300, int(DENSITY.sum())):
        quota = profile_quotas(DENSITY, wanted, rows=rows)
        assert quota.sum() == rows
        assert ((quota >= 0) & (quota <= DENSITY)).all()
    with pytest.raises(InputError, match=f"at most {DENSITY.sum()} training rows"):
        profile_quotas(DENSITY, wanted, rows=int(DENSITY.sum()) + 1)


def test_a_profile_that_the_rows_already_have_keeps_them_all():
    quota = profile_quotas(DENSITY, DENSITY / DENSITY.sum(), tolerance=0.0)
    assert quota.tolist() == DENSITY.tolist()


def test_profiled_rows_fill_the_quota_of_every_bin():
    small = profile_quotas(DENSITY, np.where(DENSITY > 0, 1.0, 0.0), rows=100)
    kept = profiled(IDS, BINS, small, seed=0)
    assert np.bincount(BINS[kept], minlength=40).tolist() == small.tolist()
    larger = profiled(IDS, BINS, np.minimum(DENSITY, 2 * small), seed=0)
    # A larger quota holds the smaller
    assert (larger | ~kept).all()


def test_random_subsets_have_their_size_and_are_nested():
    before = np.zeros(len(IDS), dtype=bool)
    for size in (1, 10, 100, len(IDS)):
        kept = random_subset(IDS, size, seed=0)
        assert kept.sum() == size
        assert (kept | ~before).all()
        before = kept


def test_stratified_subsets_are_nested_and_give_every_bin_its_share():
    before = np.zeros(len(IDS), dtype=bool)
    for percent in range(1, 101, 3):
        size = round(len(IDS) * percent / 100)
        kept = stratified_subset(IDS, BINS, size, seed=0)
        counts = np.bincount(BINS[kept], minlength=40)
        assert kept.sum() == size
        assert (kept | ~before).all()
        assert np.abs(counts - DENSITY * size / len(IDS)).max() < 2
        before = kept


def test_subsets_belong_to_the_ids_and_the_seed():
    turned = np.random.default_rng(0).permutation(len(IDS))
    kept = stratified_subset(IDS, BINS, 100, seed=0)
    assert stratified_subset(IDS[turned], BINS[turned], 100, seed=0).tolist() == kept[turned].tolist()
    assert (stratified_subset(IDS, BINS, 100, seed=1) != kept).any()
    assert (random_subset(IDS, 100, seed=1) != random_subset(IDS, 100, seed=0)).any()
