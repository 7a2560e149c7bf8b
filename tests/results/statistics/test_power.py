"""Power against scipy's noncentral t, simulation and published sample sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.power import (
    compute_detection_power,
    compute_equivalence_power,
    count_seeds_for_equivalence,
    count_seeds_to_detect,
)


@pytest.mark.parametrize("n", [2, 5, 11, 60])
@pytest.mark.parametrize("effect", [0.0, 0.4, -1.5])
def test_power_is_the_noncentral_t_beyond_both_critical_values(n: int, effect: float) -> None:
    critical = stats.t.ppf(0.975, n - 1)
    judge = stats.nct(n - 1, effect * math.sqrt(n) / 2.0)

    found = compute_detection_power(n, sd=2.0, effect=effect)

    assert found == pytest.approx(judge.sf(critical) + judge.cdf(-critical), abs=1e-8)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_for_cohens_small_medium_and_large_effects_are_the_known_ones(effect: float, n: int) -> None:
    assert count_seeds_to_detect(sd=1.0, effect=effect) == n


def test_power_to_show_equivalence_is_the_share_of_simulated_studies_that_show_it() -> None:
    margin, n, repetitions = 1.1, 6, 20_000
    found = np.random.default_rng(0).normal(size=(repetitions, n))
    half = stats.t.ppf(0.95, n - 1) * found.std(axis=1, ddof=1) / math.sqrt(n)
    share = np.mean(np.abs(found.mean(axis=1)) + half < margin)

    power = compute_equivalence_power(n, sd=1.0, margin=margin)

    assert 0.2 < share < 0.9
    assert power == pytest.approx(share, abs=4 * math.sqrt(share * (1 - share) / repetitions))


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("sd", [0.05, 0.5, 1.0, 3.0])
def test_the_number_of_seeds_is_the_smallest_that_is_enough(sd: float, alpha: float) -> None:
    detect = count_seeds_to_detect(sd=sd, effect=1.0, alpha=alpha)
    equate = count_seeds_for_equivalence(sd=sd, margin=1.0, alpha=alpha)

    assert detect == next(n for n in range(2, 500) if compute_detection_power(n, sd=sd, effect=1.0, alpha=alpha) >= 0.8)
    assert equate == next(
        n for n in range(2, 500) if compute_equivalence_power(n, sd=sd, margin=1.0, alpha=alpha) >= 0.8
    )


def test_the_unit_cancels() -> None:
    assert count_seeds_to_detect(sd=3.0, effect=-2.0) == count_seeds_to_detect(sd=0.03, effect=0.02)


@pytest.mark.parametrize(("sd", "effect"), [(0.0, 1.0), (1.0, 0.0), (math.nan, 1.0), (1.0, math.nan), (1e6, 1.0)])
def test_no_number_of_seeds_where_there_is_nothing_to_plan(sd: float, effect: float) -> None:
    assert count_seeds_to_detect(sd=sd, effect=effect) is None
    assert count_seeds_for_equivalence(sd=sd, margin=effect) is None
