"""Scale and offset of predictions from the training labels, where a configuration leaves them open (`auto`).

An encoder's output is of the order of one. If labels are counted in units of which the data spread over hundreds, most of a
short training is spent on reaching them, and its error says nothing about the method. So a predictor's output of zero is the
median of the training labels, and one unit of it their spread: the distance of their 10th and 90th percentile, divided by that
of a normal distribution, so that on normal labels it is the standard deviation and a few labels far away do not change it.
Both are read off the manifest's histogram, so that a study is resolved without its data.
"""

from collections.abc import Sequence

import numpy as np

from dirtune.config import TrialConfig
from dirtune.manifest import LabelSpec, Manifest

_NORMAL_DECILES = 2.5631031310892007
"""Distance of the 10th and 90th percentile of a normal distribution, in standard deviations."""


def resolve_label_units(config: TrialConfig, manifest: Manifest) -> TrialConfig:
    """Return a configuration whose `model.label_scale` and `model.label_offset` are numbers."""
    model = config.model
    if "auto" not in (model.label_scale, model.label_offset):
        return config
    center, spread = estimate_label_units(manifest.label, manifest.train_counts)
    numbers = {
        "label_scale": spread if model.label_scale == "auto" else model.label_scale,
        "label_offset": center if model.label_offset == "auto" else model.label_offset,
    }
    return config.model_copy(update={"model": model.model_copy(update=numbers)})


def estimate_label_units(label: LabelSpec, counts: Sequence[int]) -> tuple[float, float]:
    """Return center and spread of labels with a histogram, in the label's unit, rounded to three significant digits.

    The spread of labels of which 80 % share a bin is their standard deviation. For a label of several dimensions, both are
    means over the dimensions, because a predictor has one scale.

    Args:
        label: the label and its bins.
        counts: labels per bin.
    """
    grid = np.asarray(counts, dtype=np.float64).reshape([axis.num_bins for axis in label.axes])
    units = []
    for index, axis in enumerate(label.axes):
        others = tuple(other for other in range(grid.ndim) if other != index)
        units.append(_estimate_of_axis(axis, grid.sum(axis=others)))
    center, spread = np.mean(units, axis=0)
    return float(f"{center:.3g}"), float(f"{spread:.3g}")


def _estimate_of_axis(axis: LabelSpec, counts: np.ndarray) -> tuple[float, float]:
    edges = np.minimum(
        axis.low + axis.bin_width * np.arange(axis.num_bins + 1), max(axis.high, axis.low + axis.bin_width)
    )
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    low, center, high = np.interp([0.1, 0.5, 0.9], shares, edges)
    if high - low > axis.bin_width:
        return center, (high - low) / _NORMAL_DECILES
    middles = (edges[:-1] + edges[1:]) / 2
    mean = np.average(middles, weights=counts)
    deviation = np.sqrt(np.average((middles - mean) ** 2, weights=counts))
    # Labels that share one bin differ by less than its width.
    return center, max(deviation, axis.bin_width)
