"""Settings with the unit of the label, from the data where a configuration leaves them open.

An encoder's output is of the order of one. If labels are counted in units of which the data spread over hundreds, most of a
short training is spent on reaching them, and its error does not depend on the method. So a predictor's output of zero is the
median of the training labels, and one unit of it their spread: the distance of their 10th and 90th percentile, divided by that
of a normal distribution, so that on normal labels it is the standard deviation and a few labels far away do not change it.
Both are read off the manifest's histogram, so that a study is resolved without its data.

Settings of losses and terms that are differences of labels are counted in label bins (`dirtune.losses.units.InBins`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dirtune.config import TrialConfig
from dirtune.frozen import read
from dirtune.losses.units import InBins
from dirtune.manifest import LabelSpec, Manifest
from dirtune.nested import get_leaf, merge, nest

_NORMAL_DECILES = 2.5631031310892007
"""Distance of the 10th and 90th percentile of a normal distribution, in standard deviations."""


def resolve_label_units(config: TrialConfig, manifest: Manifest) -> TrialConfig:
    """Return a configuration with a number for every setting that is taken from the data; the others are as before."""
    if not (open_settings := find_open_settings(config)):
        return config
    model, label = config.model, manifest.label
    center, spread = estimate_label_units(label, manifest.train_counts)
    scale = spread if model.label_scale == "auto" else model.label_scale
    plain, numbers = config.to_plain(), dict[str, Any]()
    for path, mark in open_settings.items():
        if mark is None:
            number = spread if path == "model.label_scale" else center
        else:
            number = mark.convert(get_leaf(plain, path), label.bin_width, scale)
        numbers = merge(numbers, nest(path, number))
    return read(TrialConfig, merge(plain, numbers), where=config.data.name)


def find_open_settings(config: TrialConfig) -> dict[str, InBins | None]:
    """Return the settings that are taken from the data, by dotted path: a mark, or None for those of the model."""
    found: dict[str, InBins | None] = {
        f"model.{name}": None for name in ("label_scale", "label_offset") if getattr(config.model, name) == "auto"
    }
    # Losses and terms, which their protocols do not call models.
    parts: dict[str, Any] = {
        "loss": config.loss,
        "scheme.loss": getattr(config.scheme, "loss", None),
        **{f"terms.{name}": term for name, term in config.terms.get_active().items()},
    }
    for path, part in parts.items():
        for name, field in type(part).model_fields.items() if part is not None else ():
            marks = [mark for mark in field.metadata if isinstance(mark, InBins)]
            if marks and name not in part.model_fields_set:
                found[f"{path}.{name}"] = marks[0]
    return found


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
