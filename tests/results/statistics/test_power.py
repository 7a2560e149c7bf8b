"""Power against scipy's noncentral t, simulation and published sample sizes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.power import (
    SEED_STEPS,
    Needs,
    Spread,
    bound_sd,
    compute_joint_equivalence_power,
    compute_joint_power,
    find_needs,
)


def seeds_only(sd: float) -> Spread:
    return Spread(sd=sd, sample_variance=0.0)


@pytest.mark.parametrize("n", [2, 5, 11, 60])
@pytest.mark.parametrize("effect", [0.0, 0.4, -1.5])
def test_power_is_the_noncentral_t_beyond_both_critical_values(n: int, effect: float) -> None:
    critical = stats.t.ppf(0.975, n - 1)
    judge = stats.nct(n - 1, effect * math.sqrt(n) / 2.0)

    found = compute_joint_power(n, spread=seeds_only(2.0), effect=effect)

    assert found == pytest.approx(judge.sf(critical) + judge.cdf(-critical), abs=1e-8)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_for_cohens_small_medium_and_large_effects_are_the_known_ones(effect: float, n: int) -> None:
    fewer, enough = (compute_joint_power(each, spread=seeds_only(1.0), effect=effect) for each in (n - 1, n))
    assert fewer < 0.8 <= enough


def test_power_to_show_equivalence_is_the_share_of_simulated_studies_that_show_it() -> None:
    margin, n, repetitions = 1.1, 6, 20_000
    found = np.random.default_rng(0).normal(size=(repetitions, n))
    half = stats.t.ppf(0.95, n - 1) * found.std(axis=1, ddof=1) / math.sqrt(n)
    share = np.mean(np.abs(found.mean(axis=1)) + half < margin)

    power = compute_joint_equivalence_power(n, spread=seeds_only(1.0), margin=margin)

    assert 0.2 < share < 0.9
    assert power == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / repetitions))


def test_test_samples_take_power_that_seeds_do_not_give_back() -> None:
    spread = Spread(sd=1.0, sample_variance=0.25)
    # With many seeds the samples alone are left, whose standard error is 0.5
    expected = stats.norm.sf(1.96 - 1.0 / 0.5) + stats.norm.cdf(-1.96 - 1.0 / 0.5)

    powers = [compute_joint_power(n, spread=spread, effect=1.0) for n in (10, 50, 5_000)]

    assert powers == sorted(powers)
    assert powers[-1] == pytest.approx(expected, abs=1e-3)
    assert compute_joint_power(50, spread=seeds_only(1.0), effect=1.0) > 0.99
    assert compute_joint_equivalence_power(50, spread=spread, margin=1.0) < 0.5
    assert compute_joint_equivalence_power(50, spread=seeds_only(1.0), margin=1.0) > 0.99


def find(sd: float, variance: float, effect: float = 1.0) -> Needs:
    has_power = partial(_has_power, effect=effect)
    return find_needs(has_power, Spread(sd=sd, sample_variance=variance))


def _has_power(seeds: int, spread: Spread, *, effect: float) -> bool:
    return compute_joint_power(seeds, spread=spread, effect=effect) >= 0.8


def test_needs_are_the_first_step_that_is_enough() -> None:
    found = find(1.5, 0.0)
    assert found.samples == 1
    powers = [compute_joint_power(n, spread=seeds_only(1.5), effect=1.0) >= 0.8 for n in SEED_STEPS]
    assert found.seeds == SEED_STEPS[powers.index(True)] == 20


def test_more_samples_are_planned_only_where_more_seeds_do_not_help() -> None:
    few_samples, few_seeds, hopeless = find(0.5, 0.5), find(40.0, 0.0), find(0.5, 1e6)

    assert few_samples.samples == 5
    assert few_samples.seeds is not None
    assert few_seeds == Needs(seeds=None, samples=1)
    assert hopeless == Needs(seeds=100, samples=None)


def test_the_range_of_a_standard_deviation_has_the_true_one_in_four_of_five_studies() -> None:
    observed = np.random.default_rng(1).normal(size=(4_000, 5)).std(axis=1, ddof=1)

    inside = [low <= 1.0 <= high for low, high in (bound_sd(sd, 5) for sd in observed)]

    assert np.mean(inside) == pytest.approx(0.8, abs=0.025)
