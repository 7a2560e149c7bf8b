from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.effects import cohens_dz, hedges_gz, probability_of_improvement

DIFFERENCES = [-0.9, -0.2, -0.1, -0.7, -0.8]


def test_cohens_dz_is_the_t_statistic_over_the_root_of_n() -> None:
    judge = stats.ttest_1samp(DIFFERENCES, 0.0).statistic / math.sqrt(5)

    assert cohens_dz(DIFFERENCES) == pytest.approx(judge)


@pytest.mark.parametrize(("n", "factor"), [(3, 0.5642), (5, 0.7979), (10, 0.9139)])
def test_hedges_factor_has_its_tabulated_values(n: int, factor: float) -> None:
    values = np.random.default_rng(n).normal(size=n).tolist()

    assert hedges_gz(values) / cohens_dz(values) == pytest.approx(factor, abs=1e-4)


def test_hedges_correction_takes_the_bias_away() -> None:
    samples = np.random.default_rng(0).normal(0.8, 1.0, size=(4_000, 5)).tolist()

    plain = np.mean([cohens_dz(sample) for sample in samples])
    corrected = np.mean([hedges_gz(sample) for sample in samples])

    assert plain > 0.95
    assert corrected == pytest.approx(0.8, abs=0.05)


def test_no_spread_has_no_effect_size() -> None:
    assert math.isnan(cohens_dz([0.5, 0.5]))
    assert math.isnan(cohens_dz([0.5]))
    assert math.isnan(hedges_gz([0.5, 0.7]))


def test_probability_of_improvement_is_mann_whitneys_u_over_all_pairs() -> None:
    arm, reference = [4.0, 5.0, 5.5, 7.0], [5.0, 6.0, 5.0]

    judge = stats.mannwhitneyu(reference, arm).statistic / 12
    assert probability_of_improvement(arm, reference) == pytest.approx(judge)
    assert probability_of_improvement(arm, reference, higher_is_better=True) == pytest.approx(1 - judge)


def test_probability_of_improvement_of_equal_runs_is_one_half() -> None:
    assert probability_of_improvement([1.0, 1.0], [1.0]) == 0.5


@pytest.mark.parametrize(("arm", "reference"), [([], [1.0]), ([1.0], []), ([math.nan], [1.0])])
def test_without_runs_there_is_no_probability(arm: list[float], reference: list[float]) -> None:
    assert math.isnan(probability_of_improvement(arm, reference))
