"""`pytest tests/results/test_paired_tests.py`: tests of paired differences against scipy and plain enumeration."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.paired import PairedDifference, paired_difference
from dirtune.results.statistics.paired_tests import equivalence, sign_flip, wilcoxon

TIED = [0.5, -0.5, 1.0, 2.0, 2.0, -1.0, 0.0, 3.0]


def differences(n: int) -> list[float]:
    return np.random.default_rng(n).normal(0.4, 1.0, size=n).tolist()


def share_of_signs(values: list[float], statistic, observed: float) -> float:
    """Share of all sign vectors whose statistic is at least as large as the observed one."""
    signed = [
        statistic([sign * value for sign, value in zip(signs, values, strict=True)])
        for signs in product([1, -1], repeat=len(values))
    ]
    return sum(value >= observed - 1e-9 for value in signed) / len(signed)


def rank_sum(values: list[float]) -> float:
    ranks = stats.rankdata(np.abs(values))
    return sum(rank for rank, value in zip(ranks, values, strict=True) if value > 0)


def from_the_middle(values: list[float]) -> float:
    n = len(values)
    return abs(rank_sum(values) - n * (n + 1) / 4)


@pytest.mark.parametrize("n", [1, 2, 5, 6, 10, 30])
def test_wilcoxon_agrees_with_scipys_exact_test(n: int) -> None:
    judge = stats.wilcoxon(differences(n), method="exact").pvalue

    assert wilcoxon(differences(n)) == pytest.approx(judge)


def test_wilcoxon_counts_all_signs_also_with_ties_and_leaves_zeros_out() -> None:
    without_zero = [value for value in TIED if value]

    judge = share_of_signs(without_zero, from_the_middle, from_the_middle(without_zero))
    assert wilcoxon(TIED) == pytest.approx(judge)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_sign_flip_counts_all_signs(n: int) -> None:
    values = differences(n)

    judge = share_of_signs(values, lambda found: abs(sum(found)), abs(sum(values)))
    assert sign_flip(values) == pytest.approx(judge)


def test_sign_flip_agrees_with_scipys_permutation_test() -> None:
    values = differences(8)
    judge = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)

    assert sign_flip(values) == pytest.approx(judge.pvalue)


def test_drawn_signs_come_close_to_all_signs() -> None:
    values = differences(13)
    exact = share_of_signs(values, lambda found: abs(sum(found)), abs(sum(values)))

    found = [sign_flip(values, resamples=4_999, seed=seed) for seed in range(3)]

    assert found == pytest.approx([exact] * 3, abs=4 * math.sqrt(exact / 5_000))
    # Drawn, not counted
    assert len(set(found)) > 1


def test_drawn_signs_never_give_zero() -> None:
    assert sign_flip([1.0] * 40, resamples=99) == pytest.approx(0.01)


def test_equal_differences_count_as_reached_whatever_the_order_of_their_sum() -> None:
    assert sign_flip([0.1, 0.2, 0.3, 0.4]) == 2 / 16


@pytest.mark.parametrize("test", [wilcoxon, sign_flip])
@pytest.mark.parametrize("n", [5, 7])
def test_the_smallest_p_of_n_seeds_is_two_in_all_signs(test, n: int) -> None:
    assert test(np.arange(1.0, n + 1)) == pytest.approx(2 ** (1 - n))


@pytest.mark.parametrize("test", [wilcoxon, sign_flip])
@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.0, math.nan]])
def test_nothing_to_compare_has_no_p(test, values: list[float]) -> None:
    assert math.isnan(test(values))


def shown(values: list[float]) -> PairedDifference:
    return paired_difference(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))


@pytest.mark.parametrize("margin", [0.2, 0.7, 1.5])
def test_equivalence_is_the_larger_of_two_one_sided_t_tests(margin: float) -> None:
    values = differences(6)

    too_low = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    too_high = stats.ttest_1samp(values, margin, alternative="less").pvalue
    assert equivalence(shown(values), margin=margin) == pytest.approx(max(too_low, too_high))


def test_equivalence_at_five_percent_is_the_ninety_percent_interval_within_the_margin() -> None:
    values = differences(6)
    ends = stats.ttest_1samp(values, 0.0).confidence_interval(0.90)
    farthest = max(abs(ends.low), abs(ends.high))

    assert equivalence(shown(values), margin=farthest * 1.001) < 0.05
    assert equivalence(shown(values), margin=farthest * 0.999) > 0.05


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1]])
def test_without_a_spread_equivalence_is_not_tested(values: list[float]) -> None:
    assert math.isnan(equivalence(shown(values), margin=1.0))
