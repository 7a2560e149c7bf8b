from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.interactions import compute_interaction


def make_runs(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


def test_it_is_scipys_t_test_of_the_contrast_by_seed() -> None:
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


def test_it_is_the_coefficient_of_the_product_in_a_least_squares_fit() -> None:
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


def test_effects_that_add_up_have_none_and_the_parts_may_change_places() -> None:
    neither, first, second = make_runs(9.0, 8.0, 7.5), make_runs(8.0, 7.2, 6.0), make_runs(9.5, 8.1, 7.0)
    added = {seed: first[seed] + second[seed] - neither[seed] for seed in neither}

    assert compute_interaction(both=added, first=first, second=second, neither=neither).mean == pytest.approx(0.0)
    better = {seed: value - 1 for seed, value in added.items()}
    one = compute_interaction(both=better, first=first, second=second, neither=neither)
    other = compute_interaction(both=better, first=second, second=first, neither=neither)
    assert one.mean == pytest.approx(-1.0)
    assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_only_seeds_that_all_four_have_count() -> None:
    whole = make_runs(1.0, 2.0, 3.0)

    found = compute_interaction(both=whole, first=whole, second=whole, neither={1: 2.0, 2: 3.5, 7: 0.0})

    assert found.n == 2
    assert found.mean == pytest.approx(0.25)
