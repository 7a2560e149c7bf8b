from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.paired import holm, iqm, mean, paired_difference, paired_values, sd, standard_error

VALUES = [5.1, 4.7, 6.3, 5.5]
ARM = {0: 4.1, 1: 3.9, 2: 4.8, 3: 4.0, 4: 4.4}
REFERENCE = {0: 5.0, 1: 4.1, 2: 4.9, 3: 4.7, 4: 5.2}


def test_mean_and_spread_follow_their_formulas() -> None:
    centre = (5.1 + 4.7 + 6.3 + 5.5) / 4
    spread = math.sqrt(sum((value - centre) ** 2 for value in VALUES) / 3)

    assert mean(VALUES) == pytest.approx(centre)
    assert sd(VALUES) == pytest.approx(spread)
    assert standard_error(VALUES) == pytest.approx(stats.sem(VALUES))


def test_what_cannot_be_estimated_is_nan() -> None:
    assert math.isnan(mean([]))
    assert math.isnan(sd([1.0]))
    assert math.isnan(standard_error([1.0]))


@pytest.mark.parametrize("n", range(1, 14))
def test_interquartile_mean_is_the_mean_trimmed_by_a_quarter_at_each_end(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)

    assert iqm(values) == pytest.approx(stats.trim_mean(values, 0.25))


def test_one_diverged_run_in_four_does_not_move_the_interquartile_mean() -> None:
    assert iqm([5.0, 1e9, 4.0, 6.0]) == 5.5


def test_interquartile_mean_of_nothing_or_with_a_nan_is_nan() -> None:
    assert math.isnan(iqm([]))
    assert math.isnan(iqm([1.0, 2.0, 3.0, math.nan]))


def test_paired_values_are_in_the_order_of_the_seeds_that_both_have() -> None:
    found = paired_values({9: 3.0, 2: 1.0, 4: 7.0}, {2: 0.5, 9: 1.0, 5: 0.0})

    assert found.tolist() == [0.5, 2.0]


def test_paired_difference_agrees_with_scipys_paired_t_test() -> None:
    found = paired_difference(ARM, REFERENCE)

    differences = [ARM[seed] - REFERENCE[seed] for seed in range(5)]
    judge = stats.ttest_rel(list(ARM.values()), list(REFERENCE.values()))
    interval = judge.confidence_interval(0.95)
    assert (found.mean, found.sd) == pytest.approx((np.mean(differences), np.std(differences, ddof=1)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(judge.pvalue)
    assert (found.n, found.holes) == (5, ())


def test_pairing_is_by_seed_and_not_by_position() -> None:
    shuffled = dict(reversed(REFERENCE.items()))

    assert paired_difference(ARM, shuffled) == paired_difference(ARM, REFERENCE)


def test_seeds_of_one_side_only_are_holes_and_change_nothing() -> None:
    found = paired_difference({**ARM, 7: 1000.0}, {**REFERENCE, 8: -1000.0})

    assert found.holes == (7, 8)
    assert (found.mean, found.low, found.n) == pytest.approx(
        (paired_difference(ARM, REFERENCE).mean, paired_difference(ARM, REFERENCE).low, 5)
    )


def test_one_pair_has_a_difference_and_no_interval() -> None:
    found = paired_difference({0: 4.0}, {0: 5.0})

    assert (found.mean, found.n) == (-1.0, 1)
    assert all(math.isnan(value) for value in (found.sd, found.low, found.high, found.p))


def test_no_pair_has_nothing() -> None:
    found = paired_difference({0: 4.0}, {1: 5.0})

    assert (found.n, found.holes) == (0, (0, 1))
    assert math.isnan(found.mean)


def test_equal_differences_have_a_point_for_an_interval_and_no_test() -> None:
    found = paired_difference({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0})

    assert (found.low, found.high) == (-1.0, -1.0)
    assert math.isnan(found.p)


def test_holm_multiplies_by_the_number_of_tests_left_and_never_decreases() -> None:
    # 0.01 * 3, then 0.04 * 2, then 0.05 * 1 which must not fall below the one before
    assert holm({"a": 0.04, "b": 0.01, "c": 0.05}) == pytest.approx({"a": 0.08, "b": 0.03, "c": 0.08})


def test_holm_stays_below_one_and_does_not_count_what_was_not_tested() -> None:
    corrected = holm({"a": 0.9, "b": math.nan, "c": 0.8})

    assert (corrected["a"], corrected["c"]) == (1.0, 1.0)
    assert math.isnan(corrected["b"])


def test_the_statistics_are_loaded_without_scipys_slow_half() -> None:
    names = ("bootstrap", "effects", "hierarchical", "paired", "paired_tests", "power", "verdict")
    loaded = "; ".join(f"import dirtune.results.statistics.{name}" for name in names)
    done = subprocess.run(
        [sys.executable, "-c", f"{loaded}; import sys; print('scipy.stats' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "False"
