"""Settings with the unit of the label or of pixels, from the data where a configuration leaves them open.

An encoder's output is of the order of one. If labels are counted in units of which the data spread over hundreds, most of a
short training is spent on reaching them, and its error does not depend on the method. So a predictor's output of zero is the
median of the training labels, and one unit of it their spread: the distance of their 10th and 90th percentile, divided by that
of a normal distribution, so that on normal labels it is the standard deviation and a few labels far away do not change it.
Both are read off the manifest's histogram, so that a study is resolved without its data.

Settings of losses and terms that are differences of labels are counted in label bins (`dirtune.losses.units.InBins`). With
`model.label_transform`, all of them are in the unit of the transformed labels.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from dirtune.config import TrialConfig
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.label_transform import compute_bin_edges, get_lower_limit, make_training_spec, transform_labels
from dirtune.losses.balanced_mse import BNI
from dirtune.losses.units import InBins
from dirtune.manifest import LabelSpec, LabelTransform, Manifest
from dirtune.nested import get_leaf, merge, nest

# Of ImageNet's training images, with which torchvision's weights were trained
_IMAGENET_MEAN, _IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_NORMAL_DECILES = 2.5631031310892007
"""Distance of the 10th and 90th percentile of a normal distribution, in standard deviations."""


def resolve_label_units(config: TrialConfig, manifest: Manifest) -> TrialConfig:
    """Return a configuration with a number for every setting that is taken from the data; the others are as before."""
    check_label_transform(config, manifest)
    open_settings, pixels = find_open_settings(config), choose_pixel_units(config, manifest)
    if not open_settings and not pixels:
        return config
    model, label = config.model, manifest.label
    center, spread = estimate_label_units(label, manifest.train_counts, model.label_transform)
    bin_width = make_training_spec(label, model.label_transform).bin_width
    scale = spread if model.label_scale == "auto" else model.label_scale
    plain, numbers = config.to_plain(), dict[str, Any]()
    for path, values in pixels.items():
        numbers = merge(numbers, nest(path, list(values)))
    for path, mark in open_settings.items():
        if mark is None:
            number = spread if path == "model.label_scale" else center
        else:
            number = mark.convert(get_leaf(plain, path), bin_width, scale)
        numbers = merge(numbers, nest(path, number))
    return read(TrialConfig, merge(plain, numbers), where=config.data.name)


def choose_pixel_units(config: TrialConfig, manifest: Manifest) -> dict[str, tuple[float, ...]]:
    """Return the settings that standardize images, by dotted path; none if they are given or not known.

    Pretrained weights expect the units of their own training, otherwise images have those of the data set.
    """
    encoder: Any = config.model.encoder
    # Some encoders have the units of their network.
    if config.model.pixel_units != "auto" or getattr(encoder, "standardizes_pixels", False):
        return {}
    known = [spec for spec in manifest.features.values() if spec.pixel_mean is not None]
    if len(known) != 1 or known[0].pixel_mean is None or known[0].pixel_deviation is None:
        return {}
    mean, deviation = known[0].pixel_mean, known[0].pixel_deviation
    if getattr(encoder, "weights_file", None) is not None and len(mean) == len(_IMAGENET_MEAN):
        mean, deviation = _IMAGENET_MEAN, _IMAGENET_DEVIATION
    return {"model.pixel_units.mean": mean, "model.pixel_units.deviation": deviation}


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


def check_label_transform(config: TrialConfig, manifest: Manifest) -> None:
    """Raise an error if labels cannot be trained in the unit that a configuration asks for.

    Raises:
        InputError: the labels are per pixel or have several dimensions, the transform is not defined for all of them, or the
            loss needs bins of equal width in that unit.
    """
    label, transform = manifest.label, config.model.label_transform
    if transform == label.transform:
        return
    where, key = manifest.name, "model.label_transform"
    if transform != "none" and (label.dense is not None or label.components):
        rule = "is made for one label of one dimension per sample"
        raise InputError(Fault(where=where, key=key, rule=rule, got=transform))
    limit = get_lower_limit(transform)
    if label.low <= limit:
        rule = f"needs labels above {limit:g}, but their range begins at {label.low:g}"
        if transform == "log" and label.low >= 0:
            rule += "; log1p is defined at zero, and an ingest with the option label_transform=log has bins of labels above it"
        raise InputError(Fault(where=where, key=key, rule=rule, got=transform))
    losses = (config.loss, getattr(config.scheme, "loss", None))
    if any(isinstance(loss, BNI) for loss in losses):
        rule = f"must be {label.transform}, as that of the label bins, whose centers the loss bni compares"
        raise InputError(Fault(where=where, key=key, rule=rule, got=transform))


def estimate_label_units(
    label: LabelSpec, counts: Sequence[int], transform: LabelTransform = "none"
) -> tuple[float, float]:
    """Return center and spread of labels with a histogram, in the unit of training, rounded to three significant digits.

    The spread of labels of which 80 % share a bin is their standard deviation. For a label of several dimensions, both are
    means over the dimensions, because a predictor has one scale.

    Args:
        label: the label and its bins.
        counts: labels per bin.
        transform: from the label's unit to that of training.
    """
    grid = np.asarray(counts, dtype=np.float64).reshape([axis.num_bins for axis in label.axes])
    units = []
    for index, axis in enumerate(label.axes):
        others = tuple(other for other in range(grid.ndim) if other != index)
        units.append(_estimate_of_axis(axis, grid.sum(axis=others), transform))
    center, spread = np.mean(units, axis=0)
    return float(f"{center:.3g}"), float(f"{spread:.3g}")


def _estimate_of_axis(axis: LabelSpec, counts: np.ndarray, transform: LabelTransform) -> tuple[float, float]:
    edges = compute_bin_edges(axis)
    edges = transform_labels(np.minimum(edges, max(axis.high, edges[1])), transform)
    width = make_training_spec(axis, transform).bin_width
    shares = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
    low, center, high = np.interp([0.1, 0.5, 0.9], shares, edges)
    if high - low > width:
        return center, (high - low) / _NORMAL_DECILES
    middles = (edges[:-1] + edges[1:]) / 2
    mean = np.average(middles, weights=counts)
    deviation = np.sqrt(np.average((middles - mean) ** 2, weights=counts))
    # Labels that share one bin differ by less than its width.
    return center, max(deviation, width)
