"""Labels that training lacks: which bins are held out for extrapolation, interpolation and blind spots.

The question of these protocols is what a model says of labels it has never seen: beyond the ends, between two regions, or
in narrow holes. Bands are given in the label's unit, or found from the label density: the held-out bins hold a chosen
share of all rows, so that a protocol carries over from one data set to another and the bands are the same for all seeds.

Source of the idea: Puetz et al., "Deconstructing deep imbalanced regression: a comprehensive review and experimental
evaluation", Artificial Intelligence Review 59, 2026 (noah-puetz/deconstructing_deep_imbalanced_regression,
`data/create_protocols.py`), on AgeDB. There the training rows are drawn with weights `exp(-(age - 50)^2 / 100)`
(Balanced Extrapolation: a density that fades out around 22 and 78), with two such peaks at 25 and 80 (Bimodal
Interpolation), or evenly from the ages 20..73 without 47..53 (Blind-Spot Isolation). Departures: 1. rows are taken
without replacement, there with it, so that up to a third of the training rows are copies; 2. validation and test are those of
any split (published, made, grouped), there test is what training did not draw, at most 50 rows of an age, and validation
a tenth of training: `validation="seen"` comes nearest; 3. bands end sharply; a density that fades out is a profile
(`profile=normal, peaks=[50], spread=7.07`, and `bimodal` with `[25, 80]`), which combines with them; 4. any number of
blind spots, there one: `bands=[[47, 54]]` with the bands `[0, 20]` and `[74, 121]` added for the limits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dirtune.data.splits.rows import LEFT_OUT, TRAIN, VAL, SplitNames
from dirtune.data.splits.settings import HoldOut, Splitting
from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec, ShotRule

SHARES: dict[HoldOut, float] = {"extrapolation": 0.2, "interpolation": 0.2, "blind_spots": 0.15}
"""Share of all rows that is held out if nothing is said."""


def held_out_bins(density: NDArray[np.int64], label: LabelSpec, settings: Splitting) -> tuple[int, ...]:
    """The label bins that training lacks, ascending.

    With bands, the bins whose center is in one. Without, those whose middle quantile `(rows below + half the bin) / rows`
    is in `[0, s/2)` or `[1 - s/2, 1]` (extrapolation), within `s/2` of the median (interpolation), or within
    `s / (2 spots)` of one of the quantiles `(i + 1/2) / spots` (blind_spots); each interval takes at least one bin.

    Args:
        density: rows of all splits in each label bin, shape `(num_bins,)`.

    Raises:
        InputError: nothing, or everything, would be held out.
    """
    if settings.hold_out == "none":
        return ()
    if settings.bands is None:
        held = _by_share(density, _quantile_intervals(settings))
    else:
        held = _by_bands(label, settings.bands)
    if not density[held].any() or not density[~held].any():
        rule = "the held-out bands must contain some of the rows and not all; bins held out"
        raise InputError(Fault(where="split", key="bands", rule=rule, got=int(held.sum())))
    return tuple(np.flatnonzero(held).tolist())


def _quantile_intervals(settings: Splitting) -> list[tuple[float, float]]:
    share = settings.held_share or SHARES[settings.hold_out]
    if settings.hold_out == "extrapolation":
        return [(0.0, share / 2), (1 - share / 2, np.inf)]
    spots = settings.spots if settings.hold_out == "blind_spots" else 1
    half = share / (2 * spots)
    centers = [(spot + 0.5) / spots for spot in range(spots)]
    return [(center - half, center + half) for center in centers]


def _by_share(density: NDArray[np.int64], intervals: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    ends = np.cumsum(density) / density.sum()
    middles = ends - density / (2 * density.sum())
    held = np.zeros(len(density), dtype=np.bool_)
    for low, high in intervals:
        inside = (middles >= low) & (middles < high)
        # One bin holds more than the whole interval
        if not density[inside].any():
            inside[np.argmin(np.where(density > 0, np.abs(middles - _center(low, high)), np.inf))] = True
        held |= inside
    return held


def _center(low: float, high: float) -> float:
    return (low + min(high, 1.0)) / 2


def _by_bands(label: LabelSpec, bands: Sequence[tuple[float, float]]) -> NDArray[np.bool_]:
    centers = label.low + (np.arange(label.num_bins) + 0.5) * label.bin_width
    held = np.zeros(label.num_bins, dtype=np.bool_)
    for low, high in bands:
        held |= (centers >= low) & (centers < high)
    return held


def hold_out(splits: SplitNames, bins: NDArray[np.int64], held: Sequence[int], *, from_validation: bool) -> SplitNames:
    """The splits without the training rows of the held-out bins, and without the validation rows if asked; test stays."""
    losing = [TRAIN, VAL] if from_validation else [TRAIN]
    lost = np.isin(bins, list(held)) & np.isin(splits, losing)
    return np.where(lost, LEFT_OUT, splits)


def held_out_rule(held: Sequence[int], num_bins: int) -> ShotRule:
    """A shot rule whose region `few` is the held-out bins and `many` all others; `medium` is empty."""
    seen = tuple(index for index in range(num_bins) if index not in set(held))
    return ShotRule(many_bins=seen, medium_bins=())
