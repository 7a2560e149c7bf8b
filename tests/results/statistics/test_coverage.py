"""A few hundred seeded repetitions of `benchmarks/coverage.py`.

The bounds are three or more standard errors (1.1 % at 400 repetitions of a 95 % interval) from what 2,000 repetitions gave.
"""

from __future__ import annotations

import pytest

from benchmarks.coverage import LUCKS, measure_by_metric, measure_over_samples, measure_over_seeds

REPETITIONS = 400


@pytest.mark.parametrize("luck", LUCKS)
def test_over_five_seeds_students_t_covers_and_the_bootstraps_do_not(luck: str) -> None:
    found = measure_over_seeds(luck, 5, repetitions=REPETITIONS, resamples=399)

    assert 0.89 < found["Student's t"].share < 0.985
    assert 0.75 < found["percentile"].share < 0.89
    assert 0.75 < found["BCa"].share < 0.89


@pytest.mark.parametrize("suits", [0.0, 0.3])
def test_the_interval_over_seeds_and_samples_covers_new_seeds_on_new_samples(suits: float) -> None:
    found = measure_over_samples("normal", suits, 5, repetitions=REPETITIONS)

    assert 0.91 < found["both"].share < 0.99


@pytest.mark.parametrize("suits", [0.0, 0.3])
def test_the_interval_over_samples_covers_these_models_on_new_samples(suits: float) -> None:
    found = measure_over_samples("normal", suits, 5, repetitions=REPETITIONS)

    assert 0.91 < found["samples"].share < 0.985


def test_seeds_alone_do_not_cover_new_samples_where_samples_suit_an_arm() -> None:
    found = measure_over_samples("normal", 0.3, 10, repetitions=REPETITIONS)

    assert found["seeds, these samples"].share > 0.91
    assert found["seeds, new samples"].share < 0.8


def test_the_interval_over_seeds_and_samples_covers_for_every_metric() -> None:
    found = measure_by_metric("normal", 0.3, 5, repetitions=REPETITIONS)

    assert {metric: 0.9 < coverage.share < 0.99 for metric, coverage in found.items()} == dict.fromkeys(found, True)
    assert set(found) == {"mae", "mse", "rmse", "gmean"}
