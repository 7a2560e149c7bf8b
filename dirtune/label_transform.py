"""Logarithms of labels over orders of magnitude: the functions, their inverses, and label bins in their unit.

Where labels span orders of magnitude, such as prices, a difference of 1,000 is much to one sample and nothing to another. Models
are then trained on the logarithm (`model.label_transform`), and the label bins of such a data set are of equal width in it
(`LabelSpec.transform`): a bin is a ratio. Everything that compares labels in training is in that unit: the regression loss,
distances, ranges and windows of terms, settings that are counted in bins, Gaussian mixtures and DenseWeight's density.
Predictions, metrics, floors and records are in the label's unit. The exponential of a mean of logarithms is a geometric
mean: an L1 loss in logarithms still predicts the median of the labels, a squared one predicts less than their mean.
"""

from typing import Any

import numpy as np

from dirtune.manifest import LabelSpec, LabelTransform

Array = np.typing.NDArray[np.float64]


def transform_labels(labels: np.typing.ArrayLike, transform: LabelTransform) -> Array:
    """Return labels in the unit of training: unchanged, log(y), or log(1 + y)."""
    values = np.asarray(labels, dtype=np.float64)
    if transform == "none":
        return values
    return np.asarray(np.log(values) if transform == "log" else np.log1p(values))


def restore_labels(values: np.typing.ArrayLike, transform: LabelTransform) -> Array:
    """Return values in the label's unit, the inverse of `transform_labels`; infinite where the exponential overflows."""
    found = np.asarray(values, dtype=np.float64)
    if transform == "none":
        return found
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(found) if transform == "log" else np.expm1(found))


def compute_bin_edges(label: LabelSpec) -> Array:
    """Return the edges of the bins of a label of one dimension, in its unit; shape `(num_bins + 1,)`."""
    positions = label.bin_width * np.arange(label.num_bins + 1)
    return restore_labels(transform_labels(label.low, label.transform) + positions, label.transform)


def compute_binned_range(label: LabelSpec) -> float:
    """Return the width of the range of a label of one dimension, in the unit of its bin width."""
    low, high = transform_labels([label.low, label.high], label.transform)
    return float(high - low)


def make_training_spec(label: LabelSpec, transform: LabelTransform) -> LabelSpec:
    """Return a label's spec in the unit of training.

    Where bins are not of equal width in that unit, their width is the mean one, so that settings that are counted in bins
    remain the same share of the range.

    Raises:
        ValueError: the transform is not defined at the lower end of the range.
    """
    if transform == "none" and label.transform == "none":
        return label
    if transform != "none" and label.low <= get_lower_limit(transform):
        raise ValueError(
            f"{transform} needs labels above {get_lower_limit(transform):g}, but they begin at {label.low:g}"
        )
    low, high = (float(each) for each in transform_labels([label.low, label.high], transform))
    changed: dict[str, Any] = {"low": low, "high": high, "transform": "none"}
    if transform != label.transform:
        changed["bin_width"] = (high - low) / label.num_bins
    # A published range is in the label's unit.
    if transform != "none":
        changed["contrast_range"] = None
    return label.model_copy(update=changed)


def get_lower_limit(transform: LabelTransform) -> float:
    """Return the number above which a transform is defined."""
    return {"none": -np.inf, "log": 0.0, "log1p": -1.0}[transform]
