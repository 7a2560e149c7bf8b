"""Thinning the training split: to a density of choice, or to a nested share, always without replacement.

A profile asks how a method behaves under another imbalance of the same data. Few data sets have the rows to follow a
density exactly: one bin with a single row would scale all the others down with it. So bins may fall short of the
profile, as far as a total variation distance allows, and as many rows are kept as that gives.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.grouped import total_variation
from dirtune.data.splits.rows import Ids, places_in_bins, seeded_ranks
from dirtune.data.splits.settings import Profile, Splitting
from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec
from dirtune.randomness import derive_seed

# Quantiles of the rows
_BULK = (0.05, 0.95)
# Peaks and spread, in parts of the bulk.
_DEFAULTS: dict[Profile, tuple[tuple[float, ...], float]] = {
    "exponential": ((0.0,), 1 / 4),
    "normal": ((0.5,), 1 / 4),
    "bimodal": ((0.25, 0.75), 1 / 8),
}
# Of the interval that the scale is searched in: to the last digit of a float
_HALVINGS = 60


def wanted_density(density: NDArray[np.int64], label: LabelSpec, settings: Splitting) -> NDArray[np.float64]:
    """The profile's relative density in each label bin, 0 where there are no rows; shape `(num_bins,)`.

    With the bin's center `c` and `d = c - peak`, summed over the peaks: exponential `exp(-|d| / spread)`; normal and
    bimodal `exp(-d^2 / (2 spread^2))`. inverse is `1 / n_b`, which on a long tail keeps a handful of rows unless a number
    is asked for. Peaks that are not given stand at the low end of the bulk (exponential), in its middle (normal), or at its
    quarter points (bimodal); the bulk goes from the 5 % to the 95 % quantile of the rows, so that a few stray labels do
    not stretch it.
    """
    occupied = density > 0
    if settings.profile == "inverse":
        return occupied / np.maximum(density, 1)
    centers = label.low + (np.arange(label.num_bins) + 0.5) * label.bin_width
    at, part = _DEFAULTS[settings.profile]
    low, high = centers[np.searchsorted(np.cumsum(density), np.array(_BULK) * density.sum())]
    length = float(max(high - low, label.bin_width))
    peaks = np.array(settings.peaks or [low + length * each for each in at])
    steps = np.abs(centers[:, None] - peaks) / (settings.spread or length * part)
    shape = np.exp(-steps if settings.profile == "exponential" else -(steps**2) / 2)
    return np.where(occupied, shape.sum(axis=1), 0.0)


def profile_quotas(
    density: NDArray[np.int64], wanted: NDArray[np.float64], *, tolerance: float = 0.0, rows: int | None = None
) -> NDArray[np.int64]:
    """Rows to keep of each bin: `min(n_b, scale * wanted_b)`, rounded to whole rows of the same sum.

    The scale is the one that gives `rows` rows, or else the largest whose total variation distance from the profile is
    within the tolerance (before rounding).

    Args:
        density: training rows in each bin, shape `(num_bins,)`.
        wanted: relative density, shape `(num_bins,)`, positive only where there are rows.

    Raises:
        InputError: the bins that the profile reaches have fewer than `rows` rows, or none at all.
    """
    reached = wanted > 0
    if not reached.any() or (rows is not None and rows > density[reached].sum()):
        rule = f"the profile can keep at most {density[reached].sum()} training rows"
        raise InputError(Fault(where="split", key="profile_rows", rule=rule, got=rows))

    def kept(scale: float) -> NDArray[np.float64]:
        return np.minimum(density, scale * wanted)

    ratios = density[reached] / wanted[reached]
    if rows is not None:
        scale = _largest(lambda each: kept(each).sum() <= rows, high=float(ratios.max()))
    else:
        scale = _largest(
            lambda each: total_variation(kept(each), wanted) <= tolerance,
            low=float(ratios.min()),
            high=float(ratios.max()),
        )
    return _whole(kept(scale))


def _largest(holds: Callable[[float], bool], *, low: float = 0.0, high: float) -> float:
    """The largest value in `low..high` for which a condition holds that holds at `low` and, once lost, stays lost."""
    if holds(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """Whole numbers of the same sum: rounded down, then one more for the largest remainders."""
    # The search ends a rounding error below a whole number
    values = np.round(values, 9)
    whole = np.floor(values).astype(np.int64)
    missing = round(float(values.sum())) - int(whole.sum())
    whole[np.argsort(whole - values, kind="stable")[:missing]] += 1
    return whole


def profiled(ids: Ids, bins: NDArray[np.int64], quota: NDArray[np.int64], *, seed: int) -> NDArray[np.bool_]:
    """Which rows are kept: `quota[b]` of each bin, at random; shape `(rows,)`. A smaller quota keeps a subset."""
    return places_in_bins(bins, seeded_ranks(ids, seed, "profile")) < quota[bins]


def random_subset(ids: Ids, size: int, *, seed: int) -> NDArray[np.bool_]:
    """Which rows are kept of a random subset; shape `(rows,)`. With one seed, a smaller one is part of a larger."""
    return seeded_ranks(ids, seed, "subset") < size


def stratified_subset(ids: Ids, bins: NDArray[np.int64], size: int, *, seed: int) -> NDArray[np.bool_]:
    """As `random_subset`, but every bin gives its share, give or take one row; nested as well.

    The rows are taken in the order of `(place in the bin + u) / rows of the bin`, with the place of a random order and
    one random `0 <= u < 1` per bin, so that the few rows of rare bins do not all come late, nor all at once.
    """
    ranks = seeded_ranks(ids, seed, "subset")
    counts = np.bincount(bins)
    offsets = np.random.default_rng(derive_seed(seed, "split", "offsets")).random(len(counts))
    positions = (places_in_bins(bins, ranks) + offsets[bins]) / counts[bins]
    kept = np.zeros(len(ids), dtype=np.bool_)
    kept[np.lexsort((ranks, positions))[:size]] = True
    return kept
