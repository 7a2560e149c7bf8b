"""Metrics of predictions by shot region, computed from sums that add up.

A metric of a label dimension is a function of `ErrorSums`, and the sums of two shards add up to the sums of their union, so
that a metric can be computed from parts of the samples on several workers.

    sums.py      sums of one label dimension                extra.py     metrics of some data sets
    formulas.py  metrics of every data set                  regions.py   all metrics, by shot region
    depth.py     extra metrics of depth                     pixels.py    metrics of per-pixel labels, by shot region
    intervals.py metrics of predicted deviations
"""

from dirtune.metrics.extra import EXTRA_METRICS, angular_error, compute_angular_errors
from dirtune.metrics.formulas import HIGHER_IS_BETTER, METRICS, spearman
from dirtune.metrics.intervals import DEVIATION_METRICS, UNDIRECTED_METRICS, check_directed
from dirtune.metrics.pixels import DENSE_METRICS, ERROR_SUMS, PixelSums, compute_pixel_metrics
from dirtune.metrics.regions import REGIONS, SHOT_REGIONS, RegionMetric, compute_metrics, compute_region_metrics
from dirtune.metrics.sums import sum_errors

__all__ = [
    "DENSE_METRICS",
    "DEVIATION_METRICS",
    "ERROR_SUMS",
    "EXTRA_METRICS",
    "HIGHER_IS_BETTER",
    "METRICS",
    "REGIONS",
    "SHOT_REGIONS",
    "UNDIRECTED_METRICS",
    "PixelSums",
    "RegionMetric",
    "angular_error",
    "check_directed",
    "compute_angular_errors",
    "compute_metrics",
    "compute_pixel_metrics",
    "compute_region_metrics",
    "spearman",
    "sum_errors",
]
