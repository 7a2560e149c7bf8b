"""Metrics of predictions of maps: sums per label bin that add up over batches and ranks, and the metrics from them.

There are too many pixels to keep: what is kept is a row of sums for every label bin. A shot region is a set of bins, so its
sums are those of its bins, and the metrics are those of `dirtune.metrics.formulas`, over pixels. Correlations and r2, which
need more than sums of errors, are not computed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dirtune.metrics.depth import PIXEL_VALUES
from dirtune.metrics.formulas import METRICS
from dirtune.metrics.moments import Array, Moments
from dirtune.metrics.regions import REGIONS, RegionMetric
from dirtune.metrics.sums import ErrorSums

DENSE_METRICS = ("mae", "mse", "rmse", "gmean", "zero_errors", "balanced_mae")
"""Those of `METRICS` that maps have."""
_OF_ERRORS = ("n", "absolute", "squared", "logs", "zeros")


@dataclass(frozen=True)
class PixelSums:
    """What pixels contribute to the metrics, by label bin; `a + b` is the contribution of both sets together."""

    names: tuple[str, ...]
    """Of the rows of the table."""
    table: Array
    """(names, bins)."""

    def __add__(self, other: PixelSums) -> PixelSums:
        return PixelSums(self.names, self.table + other.table)

    def of_bins(self, bins: NDArray[np.bool_]) -> dict[str, float]:
        """The sums of the chosen bins together."""
        totals = self.table[:, bins].sum(axis=1)
        return dict(zip(self.names, totals.tolist(), strict=True))


def no_pixels(num_bins: int, own: Sequence[str] = ()) -> PixelSums:
    """The sums of no pixel."""
    names = (*_OF_ERRORS, *own)
    return PixelSums(names, np.zeros((len(names), num_bins)))


def pixel_sums(
    labels: Array, predictions: Array, bins: NDArray[np.int64], num_bins: int, own: Sequence[str] = ()
) -> PixelSums:
    """The sums of some pixels, all of which have a label; all arrays have shape `(n,)`.

    Args:
        labels: in the label's unit, as the predictions.
        bins: the label bin of each pixel.
        own: further metrics, of `dirtune.metrics.depth.PIXEL_VALUES`.
    """
    truth, said = (np.asarray(each, dtype=np.float64) for each in (labels, predictions))
    errors = np.abs(said - truth)
    is_zero = errors == 0
    values: list[Array] = [
        np.ones_like(errors),
        errors,
        errors**2,
        np.log(np.where(is_zero, 1.0, errors)),
        is_zero.astype(np.float64),
        *(PIXEL_VALUES[name](truth, said) for name in own),
    ]
    table = [np.bincount(bins, each, minlength=num_bins) for each in values]
    return PixelSums((*_OF_ERRORS, *own), np.stack(table).astype(np.float64))


def pixel_metrics(sums: PixelSums, regions: NDArray[np.str_]) -> list[RegionMetric]:
    """Every metric of all pixels and of each shot region; `n` counts pixels.

    Args:
        regions: shot region of each label bin, from `dirtune.reweighting.density.shot_regions`.
    """
    rows: list[RegionMetric] = []
    for region in REGIONS:
        chosen = np.full(regions.shape, True) if region == "all" else regions == region
        values, n = _values(sums, chosen)
        rows += [RegionMetric(region=region, metric=name, value=value, n=n) for name, value in values.items()]
    return rows


def _values(sums: PixelSums, chosen: NDArray[np.bool_]) -> tuple[dict[str, float], int]:
    totals = sums.of_bins(chosen)
    errors = _error_sums(sums, chosen, totals)
    values = {name: metric(errors) for name in DENSE_METRICS if (metric := METRICS[name])}
    for name in sums.names[len(_OF_ERRORS) :]:
        values[name] = totals[name] / errors.n if errors.n else math.nan
    return values, errors.n


def _error_sums(sums: PixelSums, chosen: NDArray[np.bool_], totals: dict[str, float]) -> ErrorSums:
    """The same sums as those of labels of samples; moments and extremes, which `DENSE_METRICS` do not need, are unknown."""
    rows = dict(zip(sums.names, sums.table, strict=True))
    occupied = chosen & (rows["n"] > 0)
    unknown = np.full(2, math.nan)
    moments = Moments(n=round(totals["n"]), mean=unknown, scatter=np.full((2, 2), math.nan), low=unknown, high=unknown)
    return ErrorSums(
        absolute=totals["absolute"],
        squared=totals["squared"],
        logs=totals["logs"],
        zeros=round(totals["zeros"]),
        moments=moments,
        bins=np.flatnonzero(occupied).astype(np.float64),
        bin_counts=rows["n"][occupied].astype(np.int64),
        bin_absolute=rows["absolute"][occupied],
    )
