"""Mean ranks of several arms over blocks, and Nemenyi's critical difference between two of them.

In every block (a data set, or one seed of a study) the arms are ranked; ranks need no common scale and no normal errors.
Friedman's test asks whether the arms differ at all, Nemenyi's which ones: two arms differ at the level 0.05 if their mean
ranks are further apart than `CD = q * sqrt(k (k + 1) / (6 N))`, for k arms and N blocks, with `q` the 0.95 quantile of the
studentized range of k groups and infinitely many degrees of freedom, over `sqrt(2)`.

Trade-off: the blocks must be independent. Seeds of one data set are, given the data, but are about that data set only; the
shot regions of one seed are not. With three seeds the difference is so large that hardly anything is significantly different:
this is the price of comparing all pairs.

Source: Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 2006; Friedman, JASA 1937.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """Ranks of k arms over N blocks."""

    mean_ranks: Mapping[str, float]
    """1 is best; from the best to the worst."""
    blocks: int
    """Blocks in which every arm has a value."""
    left_out: int
    """The other blocks."""
    critical_difference: float
    """Between two mean ranks."""
    p_friedman: float
    """Of "all arms are alike"; NaN for fewer than two blocks or where all are tied."""
    cliques: tuple[tuple[str, ...], ...]
    """The largest groups of two arms or more that are not significantly different."""


def rank_arms(losses: Mapping[str, Mapping[object, float]]) -> Ranking:
    """Rank arms in every block, equal values sharing the mean of their ranks.

    Args:
        losses: by arm and block; smaller is better. Blocks in which an arm has none, or NaN, are left out.

    Raises:
        ValueError: fewer than two arms, or no block that all have.
    """
    arms = list(losses)
    every = {block for own in losses.values() for block in own}
    common = [b for b in every if all(not math.isnan(own.get(b, math.nan)) for own in losses.values())]
    if len(arms) < 2 or not common:
        raise ValueError(f"needs two arms and a block that all have, got {len(arms)} arms")
    values = np.array([[losses[arm][block] for arm in arms] for block in common])
    # `scipy.stats.rankdata` returns the same ranks, but scipy.stats is slow to import.
    smaller = (values[:, None, :] < values[:, :, None]).sum(axis=2)
    equal = (values[:, None, :] == values[:, :, None]).sum(axis=2)
    ranks: NDArray[np.float64] = smaller + (equal + 1) / 2
    # Friedman's statistic with the variance of the ranks at hand, which corrects for ties (else it is Demsar's formula).
    centered = ranks - (len(arms) + 1) / 2
    within = float((centered**2).sum()) / (len(arms) - 1)
    has_test = len(common) > 1 and within > 0
    statistic = float((centered.sum(axis=0) ** 2).sum()) / within if has_test else math.nan
    means = dict(sorted(zip(arms, ranks.mean(axis=0).tolist(), strict=True), key=lambda kv: kv[1]))
    difference = compute_critical_difference(len(arms), len(common))
    return Ranking(
        mean_ranks=means,
        blocks=len(common),
        left_out=len(every) - len(common),
        critical_difference=difference,
        p_friedman=float(scipy.special.chdtrc(len(arms) - 1, statistic)),
        cliques=find_cliques(means, difference),
    )


def compute_critical_difference(arms: int, blocks: int) -> float:
    """Return Nemenyi's `q * sqrt(k (k + 1) / (6 N))` at the level 0.05."""
    # scipy.stats is slow to import, and only this function needs it.
    from scipy.stats import studentized_range

    quantile = float(studentized_range.ppf(1 - LEVEL, arms, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(arms * (arms + 1) / (6 * blocks))


def find_cliques(mean_ranks: Mapping[str, float], difference: float) -> tuple[tuple[str, ...], ...]:
    """Return the largest groups of neighbors whose mean ranks are at most `difference` apart, without groups of one.

    Args:
        mean_ranks: by arm, from the best to the worst.
        difference: the critical one.
    """
    arms, values = list(mean_ranks), list(mean_ranks.values())
    found: list[tuple[int, int]] = []
    for first, low in enumerate(values):
        last = max(i for i, value in enumerate(values) if value - low <= difference)
        # A group inside of the previous one would be a second bar below the first, with no information of its own.
        is_within = bool(found) and last <= found[-1][1]
        if last > first and not is_within:
            found.append((first, last))
    return tuple(tuple(arms[first : last + 1]) for first, last in found)
