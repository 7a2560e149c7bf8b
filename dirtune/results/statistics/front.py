"""The Pareto front of two losses: what no other beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def pareto_front(x: Sequence[float], y: Sequence[float]) -> list[bool]:
    """Which points are on the front: no other is smaller or equal in both losses and smaller in one.

    Equal points are on it together. What is NaN is compared with nothing, so that it must be left out before.

    Args:
        x: losses, smaller being better.
        y: other losses, in the same order.
    """
    xs, ys = np.asarray(x), np.asarray(y)
    # The row's point against the column's
    as_good = (xs[:, None] <= xs) & (ys[:, None] <= ys)
    better = (xs[:, None] < xs) | (ys[:, None] < ys)
    return [not beating.any() for beating in (as_good & better).T]
