"""Bootstrap intervals over seeds: for the mean of paired differences, and for any statistic of several groups of runs.

With few seeds the choice of the kind matters more than the number of resamples. A percentile or BCa interval of five
values cannot reach beyond them and takes their spread for the true one, which makes it too short; a studentised one scales
each resample by its own spread, as Student's t does. How many "95 %" intervals contain the truth, in %, each ± 0.9 or less
(`benchmarks/coverage.py`: normal, skewed, heavy-tailed luck):

    seeds    percentile    BCa           studentised    Student's t
    5        84, 82, 83    85, 82, 82    95, 93, 95     95, 92, 96
    10       91, 88, 88    91, 88, 86    96, 93, 93     96, 93, 95

So percentile and BCa intervals of five seeds are to be labelled 80 %, of ten 85 %, and studentised is the default here. It
is no better than Student's t of `paired_difference`, and a third longer at five seeds: a check, not a replacement.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 12 to 14; Davison and Hinkley,
"Bootstrap Methods and their Application", 1997, chapter 5, for the order statistics that are the ends; Agarwal et al.,
"Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021, for aggregates over groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scipy.stats takes three times as long to import
from scipy.special import ndtr, ndtri

from dirtune.results.statistics.paired import CONFIDENCE

Array = NDArray[np.float64]
Kind = Literal["percentile", "bca", "studentised"]

# 0.025 and 0.975 of one more are whole: each end is an order statistic
RESAMPLES = 9_999
TAILS = np.array([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate and the ends of its 95 % interval, in the unit of what was estimated."""

    estimate: float
    low: float
    """NaN where there is too little to estimate a spread."""
    high: float
    kind: str
    """How it was made; to be printed with it."""


def mean_interval(
    values: ArrayLike, *, kind: Kind = "studentised", resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of some values, such as the differences of two arms by seed, with a bootstrap interval.

    percentile: the quantiles 0.025 and 0.975 of the resampled means `m*`. bca: the same at quantiles that are corrected
    for the median bias of `m*` and for the skewness of the values. studentised: `m - q se` with the quantiles `q` of
    `(m* - m) / se*`, where `se = sd / sqrt(n)`; infinite for fewer than four values, where more than one resample in
    forty has no spread on one side.

    Args:
        values: shape `(n,)`, by seed; one NaN makes everything NaN.
        kind: see above.
        resamples: number of resamples; with 9,999 the ends move by one or two hundredths of the interval's width from
            one `seed` to another.
        seed: of the resampling; same seed, same interval.

    Raises:
        ValueError: the values are not one row, or there are no resamples.
    """
    found = _row(values)
    _check_resamples(resamples)
    centre = float(found.mean()) if found.size else math.nan
    if found.size < 2 or math.isnan(centre):
        return Interval(estimate=centre, low=math.nan, high=math.nan, kind=kind)
    if (found == found[0]).all():
        return Interval(estimate=centre, low=centre, high=centre, kind=kind)
    drawn = found[np.random.default_rng(seed).integers(found.size, size=(resamples, found.size))]
    low, high = _ENDS[kind](found, drawn)
    return Interval(estimate=centre, low=float(low), high=float(high), kind=kind)


def stratified_interval(
    strata: Sequence[ArrayLike], statistic: Callable[[Sequence[Array]], float], *, resamples: int = 1_999, seed: int = 0
) -> Interval:
    """Any statistic of several groups of runs with a percentile interval; runs are resampled within their group.

    The interquartile mean over data sets: `stratified_interval(scores, lambda groups: iqm(np.concatenate(groups)))`. Of
    such intervals 88 to 91 % contain the truth with five runs per group and 92 to 95 % with ten, for one group as for three
    (`benchmarks/coverage.py`): label them 90 % below ten runs.

    Args:
        strata: one array per group (a data set, a region), runs along the first axis; further axes stay together, so that
            `(runs, 2)` resamples pairs.
        statistic: of the groups.
        resamples: number of resamples; each calls the statistic once.
        seed: of the resampling.

    Raises:
        ValueError: there is no group, a group is empty, or there are no resamples.
    """
    groups = [np.asarray(stratum, dtype=np.float64) for stratum in strata]
    if not groups or min(group.size for group in groups) == 0:
        raise ValueError(f"every group must have a run, got shapes {[g.shape for g in groups]}")
    _check_resamples(resamples)
    random = np.random.default_rng(seed)
    found = np.array(
        [statistic([group[random.integers(len(group), size=len(group))] for group in groups]) for _ in range(resamples)]
    )
    low, high = quantiles(found, TAILS)
    return Interval(estimate=statistic(groups), low=float(low), high=float(high), kind="stratified percentile")


def quantiles(resampled: Array, levels: ArrayLike) -> Array:
    """Order statistics of `B` resampled values: that of rank `level * (B + 1)`, rounded up, within `1..B`."""
    ranks = np.ceil(np.asarray(levels) * (len(resampled) + 1) - 1e-9).astype(np.int64)
    chosen: Array = np.sort(resampled)[np.clip(ranks, 1, len(resampled)) - 1]
    return chosen


def _percentile(values: Array, drawn: Array) -> Array:
    return quantiles(drawn.mean(axis=1), TAILS)


def _bca(values: Array, drawn: Array) -> Array:
    means, centred = drawn.mean(axis=1), values - values.mean()
    away = means - values.mean()
    # Ties count half: five values give few distinct means, and one of them is often the mean itself, up to rounding.
    away[np.abs(away) < 1e-12 * np.abs(centred).max()] = 0.0
    bias = ndtri(np.mean(away < 0) + np.mean(away == 0) / 2)
    # For a mean the jackknife's acceleration is the skewness of the values over six.
    acceleration = (centred**3).sum() / (6 * (centred**2).sum() ** 1.5)
    shifted = bias + ndtri(TAILS)
    return quantiles(means, ndtr(bias + shifted / (1 - acceleration * shifted)))


def _studentised(values: Array, drawn: Array) -> Array:
    centre, error = values.mean(), _standard_errors(values)
    # A resample of equal values is infinitely many errors away
    with np.errstate(divide="ignore"):
        scores = (drawn.mean(axis=1) - centre) / _standard_errors(drawn)
    high, low = quantiles(scores, TAILS)
    return np.array([centre - low * error, centre - high * error])


_ENDS: dict[Kind, Callable[[Array, Array], Array]] = {
    "percentile": _percentile,
    "bca": _bca,
    "studentised": _studentised,
}


def _standard_errors(rows: Array) -> Array:
    errors: Array = rows.std(axis=-1, ddof=1) / math.sqrt(rows.shape[-1])
    return errors


def _row(values: ArrayLike) -> Array:
    row = np.asarray(values, dtype=np.float64)
    if row.ndim != 1:
        raise ValueError(f"values must have shape (n,), but got {row.shape}")
    return row


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, but got {resamples}")
