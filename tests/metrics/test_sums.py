"""`pytest tests/metrics/test_sums.py`: moments against numpy, and that parts add up to the whole."""

from __future__ import annotations

import math
from functools import reduce
from operator import add

import numpy as np
import pytest

from dirtune.metrics.sums import Moments, compute_moments

PAIRS = np.random.default_rng(3).normal([[1e6], [-2.0]], [[1.0], [3.0]], (2, 50))


def test_the_moments_are_those_of_numpy() -> None:
    found = compute_moments(PAIRS)
    assert found.n == 50
    np.testing.assert_allclose(found.mean, PAIRS.mean(axis=1), rtol=1e-14)
    np.testing.assert_allclose(found.scatter / 50, np.cov(PAIRS, bias=True), rtol=1e-9)
    assert (found.low == PAIRS.min(axis=1)).all()
    assert (found.high == PAIRS.max(axis=1)).all()
    assert found.correlation == pytest.approx(np.corrcoef(PAIRS)[0, 1], rel=1e-9)


@pytest.mark.parametrize("cuts", [[], [1], [0, 17], [10, 10, 49]])
def test_parts_add_up_to_the_whole_also_empty_ones(cuts: list[int]) -> None:
    whole = compute_moments(PAIRS)
    merged: Moments = reduce(add, map(compute_moments, np.split(PAIRS, cuts, axis=1)))
    assert merged.n == whole.n
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9)
    assert (merged.low == whole.low).all()
    assert (merged.high == whole.high).all()


@pytest.mark.parametrize(
    "pairs", [np.zeros((2, 0)), np.ones((2, 1)), np.array([[0.1] * 3, [1.0, 2.0, 3.0]]), PAIRS * math.nan]
)
def test_the_correlation_of_constant_numbers_is_undefined(pairs: np.ndarray) -> None:
    assert math.isnan(compute_moments(pairs).correlation)
