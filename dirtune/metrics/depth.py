"""Metrics of depth: relative and logarithmic errors, and shares of pixels within a factor of the label.

All are means over pixels of a value of each pixel (`PIXEL_VALUES`), so that they add up like the other metrics.

Source: Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", NeurIPS 2014; Yang et al.,
ICML 2021 (YyzHarry/imbalanced-regression, `nyud2-dir/util.py`). Departure: in `log10` and the shares a prediction below one
millimeter, also a negative one, counts as one millimeter; officially its logarithm is not a number, and a negative one counts
as a hit, because both of its ratios are negative.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

SMALLEST = 1e-3
"""Lower bound of predictions in ratios and logarithms, in meters."""


def abs_rel(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute the mean of `|prediction - label| / label`; both of shape `(n,)`, labels above zero."""
    return _mean("abs_rel", labels, predictions)


def log10(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute the mean of `|log10 prediction - log10 label|`, with predictions of at least one millimeter."""
    return _mean("log10", labels, predictions)


def delta1(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute the share of predictions within a factor of 1.25 of their label."""
    return _mean("delta1", labels, predictions)


def delta2(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute the share of predictions within a factor of 1.25^2 of their label."""
    return _mean("delta2", labels, predictions)


def delta3(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Compute the share of predictions within a factor of 1.25^3 of their label."""
    return _mean("delta3", labels, predictions)


def _mean(name: str, labels: ArrayLike, predictions: ArrayLike) -> float:
    truth, predicted = (np.asarray(each, dtype=np.float64) for each in (labels, predictions))
    if truth.shape != predicted.shape:
        raise ValueError(f"labels and predictions must have one shape, got {truth.shape} and {predicted.shape}")
    # A pixel without depth is zero and must have been left out before; dividing by it would give infinity.
    if not (truth > 0).all():
        raise ValueError(f"{name} needs labels above zero")
    values = PIXEL_VALUES[name](truth, predicted, np)
    return float(values.mean()) if values.size else math.nan


def compute_relative_errors(labels: Any, predictions: Any, xp: Any) -> Any:
    """Compute `|prediction - label| / label` of every pixel."""
    return xp.abs(predictions - labels) / labels


def compute_log_errors(labels: Any, predictions: Any, xp: Any) -> Any:
    """Compute `|log10 prediction - log10 label|` of every pixel, with predictions of at least `SMALLEST`."""
    return xp.abs(xp.log10(predictions.clip(SMALLEST)) - xp.log10(labels))


def compute_hits(labels: Any, predictions: Any, xp: Any, *, power: int) -> Any:
    """Compute True for every pixel whose prediction is within a factor of `1.25^power` of the label."""
    # Without the bound, both ratios of a negative prediction would be below every threshold.
    predicted = predictions.clip(SMALLEST)
    return xp.maximum(predicted / labels, labels / predicted) <= 1.25**power


PIXEL_VALUES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "abs_rel": compute_relative_errors,
    "log10": compute_log_errors,
    "delta1": partial(compute_hits, power=1),
    "delta2": partial(compute_hits, power=2),
    "delta3": partial(compute_hits, power=3),
}
"""Value of each pixel, of labels and predictions of one shape, and their module, `numpy` or `torch`.

The metric of that name is its mean.
"""
