"""Numbers of a search space as places in [0, 1], logarithms where the setting is; whole numbers have equal parts of it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from optuna.distributions import FloatDistribution, IntDistribution

Numeric = FloatDistribution | IntDistribution


def value_at(distribution: Numeric, share: float) -> float | int:
    """The value of a setting at a place in [0, 1] of its range; whole numbers have equal parts of it."""
    low, high = _ends(distribution)
    scaled = low + (high - low) * share
    value = math.exp(scaled) if distribution.log else scaled
    if isinstance(distribution, IntDistribution):
        return int(min(max(round(value), distribution.low), distribution.high))
    return min(max(value, distribution.low), distribution.high)


def place_of(distribution: Numeric, value: float) -> float:
    """The inverse of `value_at`; of a whole number, the place where it lies exactly."""
    low, high = _ends(distribution)
    return ((math.log(value) if distribution.log else value) - low) / (high - low)


def _ends(distribution: Numeric) -> Sequence[float]:
    half = 0.5 if isinstance(distribution, IntDistribution) else 0.0
    ends = distribution.low - half, distribution.high + half
    return [math.log(end) for end in ends] if distribution.log else ends
