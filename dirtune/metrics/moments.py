"""`Moments`: count, mean, scatter and extremes of pairs of numbers, in parts that add up.

The second moments are centered and merged as such (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for
computing sample variances", COMPSTAT 1982), so that numbers far from zero lose no digits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What a set of pairs `(x, y)` contributes; `a + b` is the contribution of both sets together."""

    n: int
    mean: Array
    """Of (x, y), shape (2,)."""
    scatter: Array
    """Sum of outer products of (x, y) - mean, shape (2, 2)."""
    low: Array
    """Smallest (x, y), shape (2,); infinity of no pair."""
    high: Array
    """Largest (x, y), shape (2,)."""

    def __add__(self, other: Moments) -> Moments:
        n = self.n + other.n
        share = other.n / max(n, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            delta = other.mean - self.mean
            return Moments(
                n=n,
                mean=self.mean + delta * share,
                scatter=self.scatter + other.scatter + np.outer(delta, delta) * self.n * share,
                low=np.minimum(self.low, other.low),
                high=np.maximum(self.high, other.high),
            )

    @property
    def correlation(self) -> float:
        """Pearson's correlation, in -1..1; NaN of fewer than two pairs or constant numbers."""
        # Equality of the extremes, because the rounded mean of equal numbers may leave a tiny scatter.
        if self.n < 2 or (self.low == self.high).any():
            return math.nan
        spread = math.sqrt(self.scatter[0, 0]) * math.sqrt(self.scatter[1, 1])
        return float(np.clip(float(self.scatter[0, 1]) / spread, -1.0, 1.0)) if spread else math.nan


def moments(pairs: Array) -> Moments:
    """The moments of the columns of `pairs`, shape `(2, n)`; `n` may be zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        mean = pairs.sum(axis=1) / max(pairs.shape[1], 1)
        centered = pairs - mean[:, None]
        return Moments(
            n=pairs.shape[1],
            mean=mean,
            scatter=centered @ centered.T,
            low=pairs.min(axis=1, initial=np.inf),
            high=pairs.max(axis=1, initial=-np.inf),
        )
