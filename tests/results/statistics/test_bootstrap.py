"""`pytest tests/results/test_bootstrap.py`: bootstrap intervals against loops, plain enumeration and scipy."""

from __future__ import annotations

import math
from itertools import product
from typing import get_args

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.bootstrap import Kind, mean_interval, quantiles, stratified_interval
from dirtune.results.statistics.paired import iqm

VALUES = [0.3, -1.2, 0.9, 2.4, 0.1, -0.4, 1.7]
KINDS = get_args(Kind)


def order_statistic(values: list[float], level: float) -> float:
    """The smallest value at which the cumulative share of `B + 1` reaches the level, by counting."""
    rank = 1
    while rank / (len(values) + 1) < level - 1e-12 and rank < len(values):
        rank += 1
    return sorted(values)[rank - 1]


def resamples_of(values: list[float], resamples: int, seed: int) -> list[list[float]]:
    chosen = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    return [[values[index] for index in row] for row in chosen.tolist()]


def percentile_by_loops(values: list[float], drawn: list[list[float]]) -> tuple[float, float]:
    means = [sum(row) / len(row) for row in drawn]
    return order_statistic(means, 0.025), order_statistic(means, 0.975)


def bca_by_loops(values: list[float], drawn: list[list[float]]) -> tuple[float, float]:
    n, centre = len(values), np.mean(values)
    means = [np.mean(row) for row in drawn]
    ties = [math.isclose(m, centre, rel_tol=0, abs_tol=1e-12) for m in means]
    below = sum(m < centre for m, tie in zip(means, ties, strict=True) if not tie) + sum(ties) / 2
    bias = stats.norm.ppf(below / len(means))
    left_out = [np.mean(values[:i] + values[i + 1 :]) for i in range(n)]
    leads = [np.mean(left_out) - value for value in left_out]
    acceleration = sum(d**3 for d in leads) / (6 * sum(d**2 for d in leads) ** 1.5)
    levels = []
    for level in (0.025, 0.975):
        z = bias + stats.norm.ppf(level)
        levels.append(stats.norm.cdf(bias + z / (1 - acceleration * z)))
    return order_statistic(means, levels[0]), order_statistic(means, levels[1])


def studentised_by_loops(values: list[float], drawn: list[list[float]]) -> tuple[float, float]:
    centre, error = np.mean(values), stats.sem(values)
    scores = []
    for row in drawn:
        away = np.mean(row) - centre
        same = len(set(row)) == 1
        scores.append(math.copysign(math.inf, away) if same else away / stats.sem(row))
    high, low = order_statistic(scores, 0.025), order_statistic(scores, 0.975)
    return centre - low * error, centre - high * error


LOOPS = {"percentile": percentile_by_loops, "bca": bca_by_loops, "studentised": studentised_by_loops}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_follows_its_formula(kind: Kind) -> None:
    found = mean_interval(VALUES, kind=kind, resamples=399, seed=3)

    judge = LOOPS[kind](VALUES, resamples_of(VALUES, 399, 3))
    assert (found.low, found.high) == pytest.approx(judge)
    assert (found.estimate, found.kind) == (pytest.approx(np.mean(VALUES)), kind)


@pytest.mark.parametrize("kind", ["percentile", "bca"])
def test_percentile_and_bca_agree_with_scipy(kind: Kind) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=25)
    judge = stats.bootstrap(
        (values,), np.mean, method=kind, n_resamples=9_999, rng=np.random.default_rng(1)
    ).confidence_interval

    found = mean_interval(values, kind=kind)

    width = judge.high - judge.low
    assert (found.low, found.high) == pytest.approx((judge.low, judge.high), abs=0.03 * width)


def test_percentile_ends_are_quantiles_of_all_resamples_there_are() -> None:
    # 256 resamples; every mean of a multiset is distinct
    values = [1.0, 2.5, 4.25, 9.0]

    found = mean_interval(values, kind="percentile", resamples=39_999)

    means = sorted(float(np.mean(row)) for row in product(values, repeat=4))
    # 6.4 and 249.6 of 256
    assert (found.low, found.high) == pytest.approx((means[6], means[249]))


def test_same_seed_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=9)

    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_interval_moves_and_scales_with_the_values(kind: Kind) -> None:
    plain = mean_interval(VALUES, kind=kind, resamples=999)
    moved = mean_interval(3 * np.array(VALUES) - 7, kind=kind, resamples=999)

    assert (moved.low, moved.high) == pytest.approx((3 * plain.low - 7, 3 * plain.high - 7))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_values_have_a_point_and_too_few_values_no_interval(kind: Kind) -> None:
    point = mean_interval([2.0, 2.0, 2.0], kind=kind)

    assert (point.estimate, point.low, point.high) == (2.0, 2.0, 2.0)
    assert math.isnan(mean_interval([2.0], kind=kind).low)
    assert math.isnan(mean_interval([], kind=kind).estimate)
    assert math.isnan(mean_interval([1.0, math.nan, 2.0], kind=kind).high)


def test_a_studentised_interval_of_three_values_says_that_it_knows_nothing() -> None:
    found = mean_interval([1.0, 2.0, 4.0])

    assert (found.low, found.high) == (-math.inf, math.inf)


def test_what_is_no_row_of_values_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(n,\), but got \(2, 1\)"):
        mean_interval([[1.0], [2.0]])
    with pytest.raises(ValueError, match="at least 1, but got 0"):
        mean_interval(VALUES, resamples=0)


@pytest.mark.parametrize("size", [1, 7, 39, 999])
def test_quantiles_are_order_statistics_within_the_values(size: int) -> None:
    values = np.random.default_rng(size).normal(size=size)

    for level in (0.0, 0.025, 0.5, 0.975, 1.0):
        assert quantiles(values, level) == order_statistic(values.tolist(), level)


def test_strata_are_resampled_each_for_itself() -> None:
    strata = [[1.0, 2.0, 3.0, 9.0], [10.0, 30.0]]
    seen = []

    def pooled(groups: list[np.ndarray]) -> float:
        seen.append([group.tolist() for group in groups])
        return iqm(np.concatenate(groups))

    found = stratified_interval(strata, pooled, resamples=199, seed=5)

    resampled = seen[:-1]
    assert seen[-1] == strata
    assert all(
        len(group) == len(stratum) and set(group) <= set(stratum)
        for groups in resampled
        for group, stratum in zip(groups, strata, strict=True)
    )
    values = [iqm([value for group in groups for value in group]) for groups in resampled]
    assert found.estimate == iqm([1.0, 2.0, 3.0, 9.0, 10.0, 30.0])
    assert (found.low, found.high) == (order_statistic(values, 0.025), order_statistic(values, 0.975))


def test_what_lies_along_further_axes_of_a_stratum_stays_together() -> None:
    pairs = [[1.0, 0.5], [2.0, 1.5], [7.0, 6.5]]

    found = stratified_interval([pairs], lambda groups: float(np.diff(groups[0]).mean()))

    assert (found.low, found.high) == (-0.5, -0.5)


@pytest.mark.parametrize("strata", [[], [[1.0], []]])
def test_an_empty_stratum_is_refused(strata: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="every group must have a run"):
        stratified_interval(strata, lambda groups: 0.0)
