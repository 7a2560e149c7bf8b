"""`pytest tests/results/test_hierarchical.py`: intervals over seeds and samples against loops and plain enumeration."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from dirtune.metrics import METRICS, error_sums
from dirtune.results.statistics import hierarchical
from dirtune.results.statistics.hierarchical import ERROR_METRICS, hierarchical_interval, two_way_interval

ARM = {1: [0.4, -1.0, 2.0], 7: [0.1, -1.7, 2.2], 9: [0.0, -0.8, 2.9]}
REFERENCE = {7: [0.6, -1.5, 2.0], 1: [0.5, -0.9, 3.1], 9: [1.0, -1.8, 3.3]}


def metric_by_definition(errors: list[float], metric: str) -> float:
    """The project's own metric of predictions that miss labels of zero by the errors."""
    return METRICS[metric](error_sums(np.zeros(len(errors)), errors))


def difference_by_definition(arm, reference, metric: str) -> float:
    seeds = sorted(set(arm) & set(reference))
    return sum(
        metric_by_definition(arm[seed], metric) - metric_by_definition(reference[seed], metric) for seed in seeds
    ) / len(seeds)


def random_errors(seeds: int, samples: int, *, shift: float = 0.0) -> dict[int, np.ndarray]:
    random = np.random.default_rng([seeds, samples, int(10 * shift)])
    return {seed: shift + random.standard_t(3, size=samples) for seed in range(seeds)}


def two_way_by_loops(parts: list[list[float]]) -> tuple[float, float]:
    """The interval from the textbook's sums of squares, term by term."""
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
    half = stats.t.ppf(0.975, freedom) * math.sqrt(numerator / (rows * columns))
    return grand - half, grand + half


@pytest.mark.parametrize(("metric", "power"), [("mae", 1), ("mse", 2)])
def test_two_way_interval_follows_the_sums_of_squares(metric: str, power: int) -> None:
    parts = [[abs(a) ** power - abs(r) ** power for a, r in zip(ARM[s], REFERENCE[s], strict=True)] for s in (1, 7, 9)]

    found = two_way_interval(ARM, REFERENCE, metric=metric)

    assert (found.low, found.high) == pytest.approx(two_way_by_loops(parts))


@pytest.mark.parametrize("metric", ["rmse", "gmean"])
def test_a_metric_is_linear_in_small_changes_of_single_errors(metric: str) -> None:
    arm, reference = random_errors(4, 30, shift=0.4), random_errors(4, 30)
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

    found = two_way_interval(arm, reference, metric=metric)

    assert (found.low, found.high) == pytest.approx(two_way_by_loops(parts.tolist()), rel=1e-4)


@pytest.mark.parametrize("metric", sorted(ERROR_METRICS))
def test_estimates_are_the_mean_over_seeds_of_the_projects_own_metrics(metric: str) -> None:
    # One error is exactly zero
    judge = difference_by_definition(ARM, REFERENCE, metric)

    assert two_way_interval(ARM, REFERENCE, metric=metric).estimate == pytest.approx(judge)
    for samples in ("shared", "own"):
        found = hierarchical_interval(ARM, REFERENCE, metric=metric, samples=samples, resamples=9)
        assert found.estimate == pytest.approx(judge)


def all_resamples(arm, reference, metric: str, *, shared: bool) -> list[float]:
    """The difference in every resample there is of two seeds with two or three samples."""
    seeds, samples = sorted(arm), range(len(arm[min(arm)]))
    draws = list(product(samples, repeat=len(samples)))
    choices = [(draw, draw) for draw in draws] if shared else list(product(draws, repeat=2))
    return [
        np.mean(
            [
                metric_by_definition([arm[s][i] for i in draw], metric)
                - metric_by_definition([reference[s][i] for i in draw], metric)
                for s, draw in zip(chosen, choice, strict=True)
            ]
        )
        for chosen in product(seeds, repeat=2)
        for choice in choices
    ]


@pytest.mark.parametrize("metric", ["mae", "rmse"])
@pytest.mark.parametrize("samples", ["shared", "own"])
def test_ends_are_quantiles_of_all_resamples_there_are(metric: str, samples: str) -> None:
    arm = {s: ARM[s] for s in (1, 9)}
    reference = {s: REFERENCE[s] for s in (1, 9)}
    values = np.sort(all_resamples(arm, reference, metric, shared=samples == "shared"))

    found = hierarchical_interval(arm, reference, metric=metric, samples=samples, resamples=19_999)

    for end, level in ((found.low, 0.025), (found.high, 0.975)):
        # The drawn share at or below an end is within five standard errors of its level.
        below, reached = np.mean(values < end - 1e-9), np.mean(values <= end + 1e-9)
        assert below - 0.0055 <= level <= reached + 0.0055
        assert np.abs(values - end).min() < 1e-9


@pytest.mark.parametrize("samples", ["shared", "own"])
def test_blocks_of_resamples_change_no_distribution(monkeypatch, samples: str) -> None:
    arm, reference = random_errors(5, 40, shift=0.3), random_errors(5, 40)
    whole = hierarchical_interval(arm, reference, samples=samples, resamples=3_999)

    monkeypatch.setattr(hierarchical, "BLOCK", 300)
    parts = hierarchical_interval(arm, reference, samples=samples, resamples=3_999)

    width = whole.high - whole.low
    assert (parts.low, parts.high) == pytest.approx((whole.low, whole.high), abs=0.06 * width)


def test_a_sample_that_suits_the_arm_at_every_seed_is_one_sample() -> None:
    random = np.random.default_rng(0)
    suits = random.normal(size=50)
    arm = {seed: 10 + suits + 0.1 * random.normal(size=50) for seed in range(8)}
    reference = {seed: 10 + 0.1 * random.normal(size=50) for seed in range(8)}

    def width(found) -> float:
        return found.high - found.low

    judge = 2 * stats.t.ppf(0.975, 49) * stats.sem(suits)
    shared = hierarchical_interval(arm, reference)
    own = hierarchical_interval(arm, reference, samples="own")
    assert width(two_way_interval(arm, reference)) == pytest.approx(judge, rel=0.1)
    assert width(shared) == pytest.approx(judge, rel=0.15)
    assert width(own) < 0.6 * width(shared)


def test_seeds_that_agree_exactly_leave_the_interval_of_the_samples() -> None:
    arm = {seed: [1.0, 2.0, 4.0, 8.0] for seed in range(3)}
    reference = {seed: [2.0, 2.0, 3.0, 5.0] for seed in range(3)}
    parts = np.tile([-1.0, 0.0, 1.0, 3.0], (3, 1))

    found = two_way_interval(arm, reference)

    half = stats.norm.ppf(0.975) * parts[0].std(ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((0.75 - half, 0.75 + half))


def test_only_seeds_that_both_have_count_and_their_order_does_not() -> None:
    more, turned = {**ARM, 11: [9.0, 9.0, 9.0]}, dict(sorted(REFERENCE.items(), reverse=True))

    assert two_way_interval(more, turned) == two_way_interval(ARM, REFERENCE)
    assert hierarchical_interval(more, turned) == hierarchical_interval(ARM, REFERENCE)


def test_one_seed_has_an_estimate_and_no_interval_and_no_seed_nothing() -> None:
    for interval in (two_way_interval, hierarchical_interval):
        one, none = interval({1: ARM[1]}, REFERENCE), interval({}, REFERENCE)
        assert one.estimate == pytest.approx((3.4 - 4.5) / 3)
        assert math.isnan(one.low)
        assert math.isnan(none.estimate)


@pytest.mark.parametrize("metric", sorted(ERROR_METRICS))
def test_arms_that_are_the_same_or_perfect_have_a_point(metric: str) -> None:
    perfect = {1: [0.0, 0.0], 2: [0.0, 0.0]}
    for errors in (ARM, perfect):
        for interval in (two_way_interval, hierarchical_interval):
            found = interval(errors, errors, metric=metric)
            assert (found.estimate, found.low, found.high) == (0.0, 0.0, 0.0)


def test_test_splits_of_their_own_may_differ_in_size() -> None:
    arm = {1: ARM[1], 7: [0.5, 0.5]}
    reference = {1: REFERENCE[1], 7: [1.0, 1.0]}

    found = hierarchical_interval(arm, reference, samples="own")

    assert found.estimate == pytest.approx(((3.4 - 4.5) / 3 - 0.5) / 2)
    with pytest.raises(ValueError, match=r"same samples, got \[2, 3\]"):
        hierarchical_interval(arm, reference)


def test_what_cannot_be_paired_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(2,\) \(seed=1\)"):
        two_way_interval(ARM, {1: [1.0, 2.0]})
    with pytest.raises(ValueError, match="unknown metric 'mea'; known: gmean, mae, mse, rmse"):
        hierarchical_interval(ARM, REFERENCE, metric="mea")
