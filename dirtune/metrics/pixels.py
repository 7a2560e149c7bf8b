"""Metrics of dense predictions: sums per label bin that add up over batches and ranks, and the metrics from them.

A split has too many pixels to keep, so the sums of every label bin are kept instead. A shot region is a set of bins, so its
sums are those of its bins, and the metrics are those of `dirtune.metrics.formulas`, over pixels. Correlations and r2, which
need more than sums of errors, are not computed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dirtune.metrics import depth, formulas
from dirtune.metrics.regions import REGIONS, RegionMetric
from dirtune.metrics.sums import Array, ErrorSums, Moments

DENSE_METRICS = ("mae", "mse", "rmse", "gmean", "zero_errors", "balanced_mae")
"""Metrics of `METRICS` that are computed for per-pixel labels."""
_ERROR_SUMS = ("n", "absolute", "squared", "logs", "zeros")


@dataclass(frozen=True)
class PixelSums:
    """Sums of the errors of pixels by label bin; `a + b` holds those of both sets together."""

    names: tuple[str, ...]
    """Names of the rows of the table."""
    table: Array
    """Shape (names, bins)."""

    def __add__(self, other: "PixelSums") -> "PixelSums":
        return PixelSums(self.names, self.table + other.table)

    def sum_bins(self, bins: np.typing.NDArray[np.bool_]) -> dict[str, float]:
        """Return the sums of the chosen bins together, by name."""
        totals = self.table[:, bins].sum(axis=1)
        return dict(zip(self.names, totals.tolist(), strict=True))


def make_empty_pixel_sums(num_bins: int, extra: Sequence[str] = ()) -> PixelSums:
    """Return the sums of an empty set of pixels."""
    names = (*_ERROR_SUMS, *extra)
    return PixelSums(names, np.zeros((len(names), num_bins)))


def sum_pixels(
    labels: Array, predictions: Array, bins: np.typing.NDArray[np.int64], num_bins: int, extra: Sequence[str] = ()
) -> PixelSums:
    """Sum the errors of pixels, all of which have a label; all arrays have shape `(n,)`.

    Args:
        labels: in the label's unit, as the predictions.
        bins: the label bin of each pixel.
        extra: further metrics, of `dirtune.metrics.depth.PIXEL_VALUES`.
    """
    truth, predicted = (np.asarray(each, dtype=np.float64) for each in (labels, predictions))
    errors = np.abs(predicted - truth)
    is_zero = errors == 0
    values: list[Array] = [
        np.ones_like(errors),
        errors,
        errors**2,
        # Exact hits add log 1 = 0 and are counted apart.
        np.log(np.where(is_zero, 1.0, errors)),
        is_zero.astype(np.float64),
        *(depth.PIXEL_VALUES[name](truth, predicted) for name in extra),
    ]
    # By bin, not by region: `balanced_mae` needs the bins, and regions are unions of them.
    table = [np.bincount(bins, each, minlength=num_bins) for each in values]
    return PixelSums((*_ERROR_SUMS, *extra), np.stack(table).astype(np.float64))


def compute_pixel_metrics(sums: PixelSums, regions: np.typing.NDArray[np.str_]) -> list[RegionMetric]:
    """Compute every metric for all pixels and for each shot region; `n` counts pixels.

    Args:
        regions: shot region of each label bin, from `dirtune.reweighting.density.shot_regions`.
    """
    rows: list[RegionMetric] = []
    for region in REGIONS:
        chosen = np.full(regions.shape, True) if region == "all" else regions == region
        totals = sums.sum_bins(chosen)
        errors = _to_error_sums(sums, chosen, totals)
        values = {name: metric(errors) for name in DENSE_METRICS if (metric := formulas.METRICS[name])}
        for name in sums.names[len(_ERROR_SUMS) :]:
            values[name] = totals[name] / errors.n if errors.n else math.nan
        rows += [RegionMetric(region=region, metric=name, value=value, n=errors.n) for name, value in values.items()]
    return rows


def _to_error_sums(sums: PixelSums, chosen: np.typing.NDArray[np.bool_], totals: dict[str, float]) -> ErrorSums:
    """Return sums of pixels as sums of samples; moments and extremes, which `DENSE_METRICS` do not need, are NaN."""
    rows = dict(zip(sums.names, sums.table, strict=True))
    occupied = chosen & (rows["n"] > 0)
    # NaN, so that a metric that needs them cannot return a wrong number.
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
