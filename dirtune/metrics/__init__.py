"""Metrics of predictions, per shot region: sums that add up, and the metrics computed from them.

A metric of a label dimension is a function of `ErrorSums`, and the sums of two shards add up to the sums of their union, so
a metric is distributable because its parts are.

    sums.py      the parts, of one label dimension          own.py       metrics that only some data sets have
    formulas.py  the metrics of every data set              regions.py   all metrics, by shot region
    depth.py     those of depth maps                        pixels.py    all metrics of maps, by shot region
"""

from __future__ import annotations

from dirtune.metrics.formulas import (
    HIGHER_IS_BETTER,
    METRICS,
    balanced_mae,
    gmean,
    mae,
    mse,
    pearson,
    r2,
    rmse,
    spearman,
    zero_errors,
)
from dirtune.metrics.own import OWN_METRICS, angular_error, angular_errors
from dirtune.metrics.pixels import DENSE_METRICS, PixelSums, no_pixels, pixel_metrics, pixel_sums
from dirtune.metrics.regions import REGIONS, SHOT_REGIONS, RegionMetric, metric_values, region_metrics
from dirtune.metrics.sums import ErrorSums, error_sums

__all__ = [
    "HIGHER_IS_BETTER",
    "DENSE_METRICS",
    "METRICS",
    "OWN_METRICS",
    "REGIONS",
    "SHOT_REGIONS",
    "ErrorSums",
    "PixelSums",
    "RegionMetric",
    "angular_error",
    "angular_errors",
    "balanced_mae",
    "error_sums",
    "gmean",
    "mae",
    "metric_values",
    "mse",
    "no_pixels",
    "pearson",
    "pixel_metrics",
    "pixel_sums",
    "r2",
    "region_metrics",
    "rmse",
    "spearman",
    "zero_errors",
]
