"""`pytest tests/results/test_coverage.py`: a few hundred repetitions of `benchmarks/coverage.py`, all seeded.

The bounds lie three or more standard errors (1.1 % at 400 repetitions of a 95 % interval) from what 2,000 repetitions gave.
"""

from __future__ import annotations

import pytest

from benchmarks.coverage import LUCKS, over_samples, over_seeds

REPETITIONS = 400


@pytest.mark.parametrize("luck", LUCKS)
def test_over_five_seeds_students_t_and_the_studentised_bootstrap_cover(luck: str) -> None:
    found = over_seeds(luck, 5, repetitions=REPETITIONS, resamples=399)

    assert 0.89 < found["Student's t"].share < 0.985
    assert 0.89 < found["studentised"].share < 0.985


@pytest.mark.parametrize("luck", LUCKS)
def test_over_five_seeds_percentile_and_bca_do_not_cover(luck: str) -> None:
    found = over_seeds(luck, 5, repetitions=REPETITIONS, resamples=399)

    assert 0.75 < found["percentile"].share < 0.89
    assert 0.75 < found["bca"].share < 0.89


@pytest.mark.parametrize("suits", [0.0, 0.3])
def test_over_new_samples_too_the_two_way_interval_covers(suits: float) -> None:
    found = over_samples("normal", suits, 5, repetitions=REPETITIONS, resamples=99)

    assert 0.91 < found["two-way t"].share < 0.99
    assert found["bootstrap, shared"].share > 0.91


def test_seeds_alone_say_little_about_new_samples_where_samples_suit_an_arm() -> None:
    found = over_samples("normal", 0.3, 10, repetitions=REPETITIONS, resamples=99)

    assert found["t, these samples"].share > 0.91
    assert found["t, new samples"].share < 0.8
    assert found["bootstrap, own"].share < 0.85
