from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.paired import (
    PairedDifference,
    apply_holm,
    compare_by_seed,
    compute_equivalence_p,
    compute_interaction,
    compute_sd,
    compute_standard_error,
    mean,
)

VALUES = [5.1, 4.7, 6.3, 5.5]
ARM = {0: 4.1, 1: 3.9, 2: 4.8, 3: 4.0, 4: 4.4}
REFERENCE = {0: 5.0, 1: 4.1, 2: 4.9, 3: 4.7, 4: 5.2}


def test_mean_and_spread_follow_their_formulas() -> None:
    center = (5.1 + 4.7 + 6.3 + 5.5) / 4
    spread = math.sqrt(sum((value - center) ** 2 for value in VALUES) / 3)

    assert mean(VALUES) == pytest.approx(center)
    assert compute_sd(VALUES) == pytest.approx(spread)
    assert compute_standard_error(VALUES) == pytest.approx(stats.sem(VALUES))


def test_sums_and_squares_neither_overflow_nor_vanish() -> None:
    for unit in (1e308, -1e308, 1e-320):
        assert mean([1.5 * unit, 1.5 * unit]) == 1.5 * unit
        assert compute_sd([1.5 * unit, 1.25 * unit]) == pytest.approx(0.25 * abs(unit) / math.sqrt(2), rel=1e-3)
    # Longer than the range of numbers
    assert compute_sd([1.7e308, -1.7e308]) == math.inf
    assert math.isnan(mean([math.inf, -math.inf]))
    assert mean([1.0, -math.inf]) == -math.inf


def test_what_cannot_be_estimated_is_nan() -> None:
    assert math.isnan(mean([]))
    assert math.isnan(compute_sd([1.0]))
    assert math.isnan(compute_standard_error([1.0]))


def test_paired_difference_agrees_with_scipys_paired_t_test() -> None:
    found = compare_by_seed(ARM, REFERENCE)

    differences = [ARM[seed] - REFERENCE[seed] for seed in range(5)]
    judge = stats.ttest_rel(list(ARM.values()), list(REFERENCE.values()))
    interval = judge.confidence_interval(0.95)
    assert (found.mean, found.sd) == pytest.approx((np.mean(differences), np.std(differences, ddof=1)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(judge.pvalue)
    assert (found.n, found.unpaired_seeds) == (5, ())


def test_pairing_is_by_seed_and_not_by_position() -> None:
    shuffled = dict(reversed(REFERENCE.items()))

    assert compare_by_seed(ARM, shuffled) == compare_by_seed(ARM, REFERENCE)


def test_seeds_of_one_side_only_are_not_paired_and_change_nothing() -> None:
    found = compare_by_seed({**ARM, 7: 1000.0}, {**REFERENCE, 8: -1000.0})

    assert found.unpaired_seeds == (7, 8)
    assert (found.mean, found.low, found.n) == pytest.approx(
        (compare_by_seed(ARM, REFERENCE).mean, compare_by_seed(ARM, REFERENCE).low, 5)
    )


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = compare_by_seed({0: 4.0}, {0: 5.0})

    assert (found.mean, found.n) == (-1.0, 1)
    assert all(math.isnan(value) for value in (found.sd, found.low, found.high, found.p))


def test_no_pair_has_nothing() -> None:
    found = compare_by_seed({0: 4.0}, {1: 5.0})

    assert (found.n, found.unpaired_seeds) == (0, (0, 1))
    assert math.isnan(found.mean)


def test_equal_differences_have_a_point_for_an_interval_and_no_test() -> None:
    found = compare_by_seed({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})

    assert (found.low, found.high) == (-1.0, -1.0)
    assert math.isnan(found.p)


@pytest.mark.parametrize(("value", "seeds"), [(0.1, 3), (0.7, 7), (0.3, 10)])
def test_the_rounding_of_equal_differences_is_no_spread(value: float, seeds: int) -> None:
    # NumPy's mean of these equal numbers is off by a rounding step.
    found = compare_by_seed(dict.fromkeys(range(seeds), value), dict.fromkeys(range(seeds), 0.0))

    assert found.sd == found.error == 0.0
    assert math.isnan(found.p)
    assert math.isnan(compute_equivalence_p(found, margin=1.0))


def test_holm_multiplies_by_the_number_of_tests_left_and_never_decreases() -> None:
    # 0.01 * 3, then 0.04 * 2, then 0.05 * 1 which must not fall below the one before
    assert apply_holm({"a": 0.04, "b": 0.01, "c": 0.05}) == pytest.approx({"a": 0.08, "b": 0.03, "c": 0.08})


def test_holm_stays_below_one_and_does_not_count_what_was_not_tested() -> None:
    corrected = apply_holm({"a": 0.9, "b": math.nan, "c": 0.8})

    assert (corrected["a"], corrected["c"]) == (1.0, 1.0)
    assert math.isnan(corrected["b"])


def draw_differences(n: int) -> list[float]:
    return np.random.default_rng(n).normal(0.4, 1.0, size=n).tolist()


def compare_with_zero(values: list[float]) -> PairedDifference:
    return compare_by_seed(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))


@pytest.mark.parametrize("margin", [0.2, 0.7, 1.5])
def test_equivalence_is_the_larger_of_two_one_sided_t_tests(margin: float) -> None:
    values = draw_differences(6)

    too_low = stats.ttest_1samp(values, -margin, alternative="greater").pvalue
    too_high = stats.ttest_1samp(values, margin, alternative="less").pvalue
    assert compute_equivalence_p(compare_with_zero(values), margin=margin) == pytest.approx(max(too_low, too_high))


def test_equivalence_at_five_percent_is_the_ninety_percent_interval_within_the_margin() -> None:
    values = draw_differences(6)
    ends = stats.ttest_1samp(values, 0.0).confidence_interval(0.90)
    farthest = max(abs(ends.low), abs(ends.high))

    assert compute_equivalence_p(compare_with_zero(values), margin=farthest * 1.001) < 0.05
    assert compute_equivalence_p(compare_with_zero(values), margin=farthest * 0.999) > 0.05


@pytest.mark.parametrize("values", [[], [0.1], [0.1, 0.1]])
def test_without_a_spread_equivalence_is_not_tested(values: list[float]) -> None:
    assert math.isnan(compute_equivalence_p(compare_with_zero(values), margin=1.0))


def make_runs(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_an_interaction_is_scipys_t_test_of_the_contrast_by_seed() -> None:
    random = np.random.default_rng(0)
    both, first, second, neither = random.normal(5, 1, (4, 6))
    found = compute_interaction(
        both=make_runs(*both), first=make_runs(*first), second=make_runs(*second), neither=make_runs(*neither)
    )

    contrast = (both - neither) - (first - neither) - (second - neither)
    test = stats.ttest_1samp(contrast, 0.0)
    ends = test.confidence_interval()
    assert (found.mean, found.n, found.p) == pytest.approx((contrast.mean(), 6, test.pvalue))
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_an_interaction_is_the_coefficient_of_the_product_in_a_least_squares_fit() -> None:
    values = {
        (1, 1): make_runs(4.0, 4.5),
        (1, 0): make_runs(6.0, 6.2),
        (0, 1): make_runs(5.5, 5.1),
        (0, 0): make_runs(7.0, 7.9),
    }
    rows = [(1, a, b, a * b, seed) for (a, b), by_seed in values.items() for seed in by_seed]
    design = np.array([[one, a, b, ab, float(seed)] for one, a, b, ab, seed in rows])
    seen = np.array([values[a, b][seed] for _, a, b, _, seed in rows])
    fitted = np.linalg.lstsq(design, seen, rcond=None)[0]

    found = compute_interaction(both=values[1, 1], first=values[1, 0], second=values[0, 1], neither=values[0, 0])

    assert found.mean == pytest.approx(fitted[3])


def test_effects_that_add_up_have_no_interaction_and_the_parts_may_change_places() -> None:
    neither, first, second = make_runs(9.0, 8.0, 7.5), make_runs(8.0, 7.2, 6.0), make_runs(9.5, 8.1, 7.0)
    added = {seed: first[seed] + second[seed] - neither[seed] for seed in neither}

    assert compute_interaction(both=added, first=first, second=second, neither=neither).mean == pytest.approx(0.0)
    better = {seed: value - 1 for seed, value in added.items()}
    one = compute_interaction(both=better, first=first, second=second, neither=neither)
    other = compute_interaction(both=better, first=second, second=first, neither=neither)
    assert one.mean == pytest.approx(-1.0)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_an_interaction_is_over_the_seeds_that_all_four_arms_have() -> None:
    whole = make_runs(1.0, 2.0, 3.0)

    found = compute_interaction(both=whole, first=whole, second=whole, neither={1: 2.0, 2: 3.5, 7: 0.0})

    assert found.n == 2
    assert found.mean == pytest.approx(0.25)
