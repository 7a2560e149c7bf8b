"""Pareto front of two losses."""

from collections.abc import Sequence

import numpy as np


def find_pareto_front(x: Sequence[float], y: Sequence[float]) -> list[bool]:
    """Return True for each point on the front: no other is smaller or equal in both losses and smaller in one.

    Equal points are on it together. NaN compares with nothing, so leave such points out before.

    Args:
        x: losses, smaller being better.
        y: other losses, in the same order.
    """
    xs, ys = np.asarray(x), np.asarray(y)
    # Rows are compared with columns.
    as_good = (xs[:, None] <= xs) & (ys[:, None] <= ys)
    better = (xs[:, None] < xs) | (ys[:, None] < ys)
    return [not beating.any() for beating in (as_good & better).T]
