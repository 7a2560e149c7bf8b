"""Metrics of dense predictions, from sums per label bin that add up over batches and ranks.

A split has too many pixels to keep, so the sums of every label bin are kept instead. A shot region is a set of bins, so its
sums are those of its bins, and the metrics are those of `dirtune.metrics.formulas`, over pixels. Correlations and r2, which
need more than sums of errors, are not computed.
"""

import math
from dataclasses import dataclass

import numpy as np

from dirtune.metrics import formulas
from dirtune.metrics.regions import REGIONS, RegionMetric
from dirtune.metrics.sums import Array, ErrorSums, Moments

DENSE_METRICS = ("mae", "mse", "rmse", "gmean", "zero_errors", "balanced_mae")
"""Metrics of `METRICS` that are computed for per-pixel labels."""
ERROR_SUMS = ("n", "absolute", "squared", "logs", "zeros")
"""Sums of every data set: of 1, |error|, error ** 2, log |error| of the errors that are not zero, and number of zeros."""


@dataclass(frozen=True)
class PixelSums:
    """Sums of the errors of pixels by label bin."""

    names: tuple[str, ...]
    """Names of the rows of the table: `ERROR_SUMS`, then extra metrics, of `dirtune.metrics.depth.PIXEL_VALUES`."""
    table: Array
    """Shape (names, bins)."""

    def sum_bins(self, bins: np.typing.NDArray[np.bool_]) -> dict[str, float]:
        """Return the sums of the chosen bins together, by name."""
        totals = self.table[:, bins].sum(axis=1)
        return dict(zip(self.names, totals.tolist(), strict=True))


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
        for name in sums.names[len(ERROR_SUMS) :]:
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
