"""Label bins, label density and shot regions.

All code that needs the frequency of labels (re-weighting, shot regions, the manifest's histograms) uses these three
functions, so that a label is in the same bin everywhere. They need numpy only.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021, and its official repository
(YyzHarry/imbalanced-regression: `agedb-dir/train.py`, `sts-b-dir/util.py`). Departures: 1. one binning rule for all
data sets instead of one per script; 2. a label on a bin edge is recognized by a tolerance (see `label_bins`) instead of
by doing the arithmetic in float32.
"""

from collections.abc import Sequence

import numpy as np

from dirtune.errors import Fault, InputError
from dirtune.label_transform import transform_labels
from dirtune.manifest import LabelSpec, ShotRule

# Rounding to float32 moves a label by half a step; the rest allows for arithmetic on it.
FLOAT32_TOLERANCE = 4 * float(np.finfo(np.float32).eps)
"""Tolerance at the edges of label bins, as a share of the label range's largest magnitude."""


def label_bins(labels: np.typing.ArrayLike, label: LabelSpec) -> np.typing.NDArray[np.int64]:
    """Return the bin index of each label: `floor((y - low) / bin_width)`, clipped to `0..num_bins - 1`.

    With a transform, `y` and `low` are transformed before. A label at which it is not defined is in the first bin.

    A label of several dimensions is in the cell of the grid of its components' bins, the last component's changing fastest.

    Decimal labels are on bin edges that binary floats cannot represent: `0.3 / 0.1` is just below 3, and a quarter of the
    published STS-B scores would be one bin too low. A label that is below an edge by no more than float32 rounding can
    explain, four float32 steps of the label range's largest magnitude, therefore counts as on the edge. For STS-B that is
    2.4e-5 of a bin, while its three-decimal scores have a distance of at least 1e-2 of a bin to the next edge.

    Args:
        labels: any shape, in the label's unit; the last axis of labels of several dimensions is theirs.
        label: the bins.

    Raises:
        InputError: a label is NaN or infinite, or does not have the dimensions of the spec.
    """
    values = np.asarray(labels, dtype=np.float64)
    if label.components:
        if values.shape[-1:] != label.value_shape:
            rule = f"every label must have {len(label.components)} dimensions; shape of the labels"
            raise InputError(Fault(where=f"label {label.name!r}", rule=rule, got=values.shape))
        indices = [label_bins(values[..., at], axis) for at, axis in enumerate(label.components)]
        shape = [axis.num_bins for axis in label.components]
        return np.asarray(np.ravel_multi_index(indices, shape), dtype=np.int64)
    if not np.isfinite(values).all():
        count = int(np.count_nonzero(~np.isfinite(values)))
        rule = "every label must be finite; labels that are not"
        raise InputError(Fault(where=f"label {label.name!r}", rule=rule, got=count))
    low, high = label.low, label.high
    if label.transform != "none":
        low, high = transform_labels([low, high], label.transform)
        # Labels that a table is asked about later may be below the range.
        values = transform_labels(np.maximum(values, label.low), label.transform)
    # The rounding error of a float32 is relative to its magnitude, not to the bin width.
    magnitude = max(abs(low), abs(high))
    tolerance = FLOAT32_TOLERANCE * magnitude / label.bin_width
    positions = np.floor((values - low) / label.bin_width + tolerance)
    return np.clip(positions, 0, label.num_bins - 1).astype(np.int64)


def label_density(bins: np.typing.NDArray[np.int64], num_bins: int) -> np.typing.NDArray[np.int64]:
    """Count the samples in each of `num_bins` bins; shape `(num_bins,)`."""
    return np.bincount(bins, minlength=num_bins).astype(np.int64)


def shot_regions(train_counts: np.typing.ArrayLike, rule: ShotRule) -> np.typing.NDArray[np.str_]:
    """Return the shot region of each bin: "many", "medium" or "few"; shape `(num_bins,)`.

    By counts: many above `many_above` training samples, few below `few_below` (an empty bin is few), medium the rest.
    By published lists, where the rule has them: a bin in neither list is few. Index the result with the bins of any
    split: `shot_regions(train_counts, rule)[bins]`.

    Raises:
        InputError: a published list contains a bin that does not exist.
    """
    counts = np.asarray(train_counts, dtype=np.int64)
    if rule.many_bins is None or rule.medium_bins is None:
        many, medium = counts > rule.many_above, counts >= rule.few_below
    else:
        many = _mark_bins(rule.many_bins, len(counts), "many_bins")
        medium = _mark_bins(rule.medium_bins, len(counts), "medium_bins")
    return np.select([many, medium], ["many", "medium"], default="few")


def _mark_bins(bins: Sequence[int], num_bins: int, key: str) -> np.typing.NDArray[np.bool_]:
    unknown = [index for index in bins if not 0 <= index < num_bins]
    if unknown:
        rule = f"bins must be within 0..{num_bins - 1}"
        raise InputError(Fault(where="shot rule", key=key, rule=rule, got=unknown))
    mask = np.zeros(num_bins, dtype=np.bool_)
    mask[list(bins)] = True
    return mask
