"""Joint comparisons against loops over the textbook's sums of squares, and against scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.joint import (
    JointDifference,
    Repeated,
    compare_jointly,
    compute_joint_equivalence_p,
    estimate_sample_variance,
    sum_groups,
)

Parts = list[list[float]]


def draw_parts(seeds: int, samples: int, *, shift: float = 0.0, suits: float = 1.0) -> np.ndarray:
    random = np.random.default_rng([seeds, samples])
    by_sample = suits * random.normal(size=samples)
    return shift + by_sample + 0.5 * random.normal(size=(seeds, 1)) + random.normal(size=(seeds, samples))


def compare(parts: np.ndarray, *, shown: np.ndarray | None = None) -> JointDifference:
    """A comparison with these parts; `shown` has those that are known."""
    arm = dict(enumerate(10 + parts.mean(axis=1)))
    return compare_jointly(arm, dict.fromkeys(arm, 10.0), parts if shown is None else shown)


def get_two_way_by_loops(parts: Parts) -> tuple[float, float, float]:
    """Interval and p from the textbook's sums of squares, term by term."""
    rows, columns = len(parts), len(parts[0])
    grand = sum(map(sum, parts)) / (rows * columns)
    by_row = [sum(row) / columns for row in parts]
    by_column = [sum(row[i] for row in parts) / rows for i in range(columns)]
    a = columns * sum((mean - grand) ** 2 for mean in by_row) / (rows - 1)
    b = rows * sum((mean - grand) ** 2 for mean in by_column) / (columns - 1)
    e = sum((parts[s][i] - by_row[s] - by_column[i] + grand) ** 2 for s in range(rows) for i in range(columns)) / (
        (rows - 1) * (columns - 1)
    )
    numerator = a + max(b - e, 0)
    freedom = numerator**2 / (a**2 / (rows - 1))
    error = math.sqrt(numerator / (rows * columns))
    half = stats.t.ppf(0.975, freedom) * error
    return grand - half, grand + half, 2 * stats.t.sf(abs(grand / error), freedom)


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("suits", [0.0, 1.0])
def test_the_test_over_both_follows_the_sums_of_squares(seeds: int, suits: float) -> None:
    parts = draw_parts(seeds, 20, shift=0.8, suits=suits)

    found = compare(parts).over_both

    assert found is not None
    assert (found.low, found.high, found.p) == pytest.approx(get_two_way_by_loops(parts.tolist()))
    assert found.sd == pytest.approx(parts.mean(axis=1).std(ddof=1))


def test_the_larger_p_and_the_larger_interval_count() -> None:
    for seeds, suits in ((2, 0.3), (3, 0.0), (5, 1.0), (10, 3.0)):
        parts = draw_parts(seeds, 30, shift=1.0, suits=suits)
        found = compare(parts)
        by_seed = stats.ttest_1samp(parts.mean(axis=1), 0.0)
        _, _, p_both = get_two_way_by_loops(parts.tolist())
        low, high, _ = get_two_way_by_loops(parts.tolist())
        ends = by_seed.confidence_interval(0.95)
        assert found.p == pytest.approx(max(by_seed.pvalue, p_both))
        expected = (ends.low, ends.high) if ends.high - ends.low > high - low else (low, high)
        assert (found.low, found.high) == pytest.approx(expected)


def test_what_limits_a_comparison_is_the_larger_part_of_its_variance() -> None:
    assert compare(draw_parts(5, 30, suits=0.0)).limit == "seeds"
    assert compare(draw_parts(5, 30, suits=9.0)).limit == "test samples"
    assert compare_jointly({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0}).limit is None


def test_equivalence_needs_both_tests() -> None:
    for suits in (0.0, 2.0):
        found = compare(draw_parts(5, 30, suits=suits))
        sides = []
        for each in (found.over_seeds, found.over_both):
            t = [(each.mean + sign * 1.5) / each.error for sign in (1, -1)]
            sides.append(max(stats.t.sf(t[0], each.df), stats.t.cdf(t[1], each.df)))
        assert compute_joint_equivalence_p(found, margin=1.5) == pytest.approx(max(sides))


def test_a_sample_that_suits_the_arm_at_every_seed_is_one_sample() -> None:
    random = np.random.default_rng(0)
    suits = random.normal(size=50)
    parts = suits + 0.1 * random.normal(size=(8, 50))

    found = compare(parts)

    assert found.high - found.low == pytest.approx(2 * stats.t.ppf(0.975, 49) * stats.sem(suits), rel=0.1)


def test_some_of_the_seeds_are_enough_for_the_samples() -> None:
    parts = draw_parts(12, 200, suits=2.0)

    whole, some = compare(parts), compare(parts, shown=parts[:4])

    assert some.over_seeds == whole.over_seeds
    own = whole.over_seeds.error**2
    # A variance of 200 samples, estimated from a third of the seeds
    assert some.over_both.error**2 - own == pytest.approx(whole.over_both.error**2 - own, rel=0.2)
    assert some.n == 12


def test_without_predictions_the_seeds_alone_are_compared() -> None:
    arm = {0: 1.0, 1: 2.0, 2: 4.0}
    found = compare_jointly(arm, {0: 0.5, 1: 0.5, 2: 0.5, 9: 0.0})

    judge = stats.ttest_1samp([0.5, 1.5, 3.5], 0.0)
    assert (found.over_both, found.p, found.units) == (None, pytest.approx(judge.pvalue), 0)
    assert found.unpaired_seeds == (9,)


@pytest.mark.parametrize("shape", [(1, 9), (3, 1), (0, 0), (3, 0)])
def test_too_few_seeds_or_samples_have_no_variance(shape: tuple[int, int]) -> None:
    assert math.isnan(estimate_sample_variance(np.ones(shape)))


def test_an_undefined_part_leaves_the_seeds_alone() -> None:
    parts = draw_parts(3, 9)
    assert compare(parts, shown=np.where(parts == parts[1, 3], math.nan, parts)).over_both is None


def test_seeds_that_agree_exactly_leave_the_interval_of_the_samples_and_no_test() -> None:
    parts = np.tile([-1.0, 0.0, 1.0, 3.0], (3, 1))

    found = compare_jointly(dict.fromkeys(range(3), 0.75), dict.fromkeys(range(3), 0.0), parts)

    half = stats.norm.ppf(0.975) * parts[0].std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half))
    assert math.isnan(found.p)


def test_arms_that_are_the_same_have_a_point() -> None:
    found = compare(np.zeros((3, 4)))

    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
    assert found.is_exactly_zero
    assert not compare(draw_parts(3, 4)).is_exactly_zero


def test_another_confidence_has_the_ends_of_scipy() -> None:
    parts = draw_parts(4, 20, suits=0.0)
    ends = stats.ttest_1samp(parts.mean(axis=1), 0.0).confidence_interval(0.99)

    found = compare(parts).with_confidence(0.99)

    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx((ends.low, ends.high))
    assert found.p == compare(parts).p


def test_groups_of_equal_size_are_the_means_of_their_samples() -> None:
    parts = draw_parts(3, 12)
    groups = np.repeat(np.arange(4), 3)

    found = sum_groups(parts, groups)

    assert found == pytest.approx(parts.reshape(3, 4, 3).mean(axis=2))


def test_groups_of_any_size_leave_the_mean_and_have_the_variance_of_a_ratio() -> None:
    parts = draw_parts(2, 10)
    groups = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 3])

    found = sum_groups(parts, groups)

    assert found.mean(axis=1) == pytest.approx(parts.mean(axis=1))
    for seed in (0, 1):
        mean = parts[seed].mean()
        by_loop = [mean + sum(value - mean for value in parts[seed][groups == g]) * 4 / 10 for g in range(4)]
        assert found[seed] == pytest.approx(by_loop)


def test_copies_of_a_sample_in_one_group_are_one_sample() -> None:
    parts = draw_parts(4, 15, suits=2.0)
    copied = np.repeat(parts, 7, axis=1)

    grouped = sum_groups(copied, np.repeat(np.arange(15), 7))

    assert estimate_sample_variance(grouped) == pytest.approx(estimate_sample_variance(parts))
    assert estimate_sample_variance(copied) < estimate_sample_variance(parts) / 3


def test_the_test_over_splits_counts_common_samples() -> None:
    arm = {0: 1.0, 1: 1.2, 1000: 1.5, 1001: 1.3, 2000: 0.9, 2001: 1.1, 7: 9.0}
    reference = {seed: 1.0 for seed in arm if seed != 7}
    found = compare_jointly(arm, reference, repeated=Repeated(unit="splits", overlap=0.2))

    by_split = np.array([0.1, 0.4, 0.0])
    error = math.sqrt((1 / 3 + 0.2 / 0.8) * by_split.var(ddof=1))
    p = 2 * stats.t.sf(by_split.mean() / error, 2)
    assert (found.mean, found.p, found.n) == (pytest.approx(by_split.mean()), pytest.approx(p), 3)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 2) * error)
    assert (found.unit, found.limit, found.unpaired_seeds) == ("splits", "splits", (7,))
    assert found.is_about_new_samples
    # Splits of the same test samples say nothing on new ones
    same = compare_jointly(arm, reference, repeated=Repeated(unit="splits", overlap=1.0))
    assert math.isnan(same.p)
    assert math.isnan(same.high)


def test_searches_are_compared_by_the_means_of_their_seeds() -> None:
    random = np.random.default_rng(0)
    parts = random.normal(size=(3, 40))
    arm = {
        1000 * search + seed: 1 + own + sign
        for search, own in enumerate(parts.mean(axis=1))
        for seed, sign in ((0, 0.3), (1, -0.3))
    }
    reference = dict.fromkeys(arm, 1.0)
    found = compare_jointly(arm, reference, parts, Repeated(unit="searches"))
    plain = compare_jointly(dict(enumerate(1 + parts.mean(axis=1))), dict.fromkeys(range(3), 1.0), parts)

    assert (found.mean, found.p, found.low) == pytest.approx((plain.mean, plain.p, plain.low))
    assert (found.n, found.unit) == (3, "searches")
