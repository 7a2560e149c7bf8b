"""Differences over samples, and over seeds and samples, against loops over the textbook's sums of squares."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.metrics import METRICS, sum_errors
from dirtune.results.statistics.two_way import SAMPLE_METRICS, compare_by_sample

ARM = {1: [0.4, -1.0, 2.0], 7: [0.1, -1.7, 2.2], 9: [0.0, -0.8, 2.9]}
REFERENCE = {7: [0.6, -1.5, 2.0], 1: [0.5, -0.9, 3.1], 9: [1.0, -1.8, 3.3]}


def compute_metric(errors: list[float], metric: str) -> float:
    """The project's own metric of predictions that miss labels of zero by the errors."""
    return METRICS[metric](sum_errors(np.zeros(len(errors)), errors))


def compute_difference(arm, reference, metric: str) -> float:
    seeds = sorted(set(arm) & set(reference))
    return sum(compute_metric(arm[seed], metric) - compute_metric(reference[seed], metric) for seed in seeds) / len(
        seeds
    )


def draw_errors(seeds: int, samples: int, *, shift: float = 0.0) -> dict[int, np.ndarray]:
    random = np.random.default_rng([seeds, samples, int(10 * shift)])
    return {seed: shift + random.standard_t(3, size=samples) for seed in range(seeds)}


def get_two_way_by_loops(parts: list[list[float]]) -> tuple[float, float, float]:
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


@pytest.mark.parametrize(("metric", "power"), [("mae", 1), ("mse", 2)])
def test_the_interval_over_both_follows_the_sums_of_squares(metric: str, power: int) -> None:
    parts = [[abs(a) ** power - abs(r) ** power for a, r in zip(ARM[s], REFERENCE[s], strict=True)] for s in (1, 7, 9)]

    found = compare_by_sample(ARM, REFERENCE, over="both", metric=metric)

    assert (found.low, found.high, found.p) == pytest.approx(get_two_way_by_loops(parts))
    assert (found.n, found.over) == (3, "both")
    assert found.sd == pytest.approx(np.mean(parts, axis=1).std(ddof=1))


@pytest.mark.parametrize(("metric", "power"), [("mae", 1), ("mse", 2)])
def test_over_samples_it_is_the_paired_t_test_of_the_samples_averaged_over_seeds(metric: str, power: int) -> None:
    arm, reference = draw_errors(4, 30, shift=0.4), draw_errors(4, 30)
    ours, theirs = (np.mean([np.abs(side[s]) ** power for s in range(4)], axis=0) for side in (arm, reference))
    judge = stats.ttest_rel(ours, theirs)

    found = compare_by_sample(arm, reference, over="samples", metric=metric)

    interval = judge.confidence_interval(0.95)
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, judge.pvalue))
    assert (found.n, found.df) == (4, 29)


@pytest.mark.parametrize("over", ["samples", "both"])
@pytest.mark.parametrize("metric", ["rmse", "gmean"])
def test_a_metric_is_linear_in_small_changes_of_single_errors(metric: str, over: str) -> None:
    arm, reference = draw_errors(4, 30, shift=0.4), draw_errors(4, 30)
    step, parts = 1e-6, np.zeros((4, 30))
    for sign, errors in ((1, arm), (-1, reference)):
        for seed, row in errors.items():
            values = np.log(np.abs(row)) if metric == "gmean" else row**2
            final = np.exp if metric == "gmean" else np.sqrt
            # Move one sample towards or away from the others' mean
            for i in range(30):
                weights = np.full(30, (1 - step) / 30)
                weights[i] += step
                moved = (final(weights @ values) - final(values.mean())) / step
                parts[seed, i] += sign * (final(values.mean()) + moved)

    found = compare_by_sample(arm, reference, over=over, metric=metric)

    if over == "both":
        low, high, _ = get_two_way_by_loops(parts.tolist())
    else:
        low, high = stats.ttest_1samp(parts.mean(axis=0), 0.0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("over", ["samples", "both"])
@pytest.mark.parametrize("metric", sorted(SAMPLE_METRICS))
def test_estimates_are_the_mean_over_seeds_of_the_projects_own_metrics(metric: str, over: str) -> None:
    # One error is exactly zero
    judge = compute_difference(ARM, REFERENCE, metric)

    assert compare_by_sample(ARM, REFERENCE, over=over, metric=metric).mean == pytest.approx(judge)


def test_a_sample_that_suits_the_arm_at_every_seed_is_one_sample() -> None:
    random = np.random.default_rng(0)
    suits = random.normal(size=50)
    arm = {seed: 10 + suits + 0.1 * random.normal(size=50) for seed in range(8)}
    reference = {seed: 10 + 0.1 * random.normal(size=50) for seed in range(8)}

    judge = 2 * stats.t.ppf(0.975, 49) * stats.sem(suits)
    for over in ("samples", "both"):
        found = compare_by_sample(arm, reference, over=over)
        assert found.high - found.low == pytest.approx(judge, rel=0.1)


def test_seeds_that_agree_exactly_leave_the_interval_of_the_samples() -> None:
    arm = {seed: [1.0, 2.0, 4.0, 8.0] for seed in range(3)}
    reference = {seed: [2.0, 2.0, 3.0, 5.0] for seed in range(3)}
    parts = np.tile([-1.0, 0.0, 1.0, 3.0], (3, 1))

    found = compare_by_sample(arm, reference, over="both")

    half = stats.norm.ppf(0.975) * parts[0].std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half))


@pytest.mark.parametrize("over", ["samples", "both"])
def test_only_seeds_that_both_have_count_and_their_order_does_not(over: str) -> None:
    more, turned = {**ARM, 11: [9.0, 9.0, 9.0]}, dict(sorted(REFERENCE.items(), reverse=True))
    found, same = (compare_by_sample(arm, turned, over=over) for arm in (more, ARM))

    assert (found.mean, found.low, found.high, found.p, found.n) == (same.mean, same.low, same.high, same.p, 3)
    assert (found.unpaired_seeds, same.unpaired_seeds) == ((11,), ())


def test_one_seed_has_an_interval_over_samples_alone_and_no_seed_nothing() -> None:
    both, samples = (compare_by_sample({1: ARM[1]}, REFERENCE, over=over) for over in ("both", "samples"))

    assert both.mean == samples.mean == pytest.approx((3.4 - 4.5) / 3)
    assert math.isnan(both.low)
    assert math.isnan(both.p)
    judge = stats.ttest_rel(np.abs(ARM[1]), np.abs(REFERENCE[1]))
    assert samples.p == pytest.approx(judge.pvalue)
    for over in ("both", "samples"):
        nothing = compare_by_sample({}, REFERENCE, over=over)
        assert (nothing.n, nothing.unpaired_seeds) == (0, (1, 7, 9))
        assert math.isnan(nothing.mean)
        assert math.isnan(nothing.low)


@pytest.mark.parametrize("over", ["samples", "both"])
@pytest.mark.parametrize("metric", sorted(SAMPLE_METRICS))
def test_arms_that_are_the_same_or_perfect_have_a_point(metric: str, over: str) -> None:
    perfect = {1: [0.0, 0.0], 2: [0.0, 0.0]}
    for errors in (ARM, perfect):
        found = compare_by_sample(errors, errors, over=over, metric=metric)
        assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)
        assert math.isnan(found.p)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\) \(seed=1\)"):
        compare_by_sample(ARM, {1: [1.0, 2.0]}, over="both")
    with pytest.raises(ValueError, match=r"same samples, got \[2, 3\]"):
        compare_by_sample({1: ARM[1], 7: [0.5, 0.5]}, {1: REFERENCE[1], 7: [1.0, 1.0]}, over="both")
    with pytest.raises(ValueError, match="unknown metric 'mea'; known: gmean, mae, mse, rmse"):
        compare_by_sample(ARM, REFERENCE, over="samples", metric="mea")
