"""Label bins of another width, from the training counts per bin that a manifest keeps."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec, Manifest, ShotRule
from dirtune.reweighting.density import label_bins, label_density


@dataclass(frozen=True, kw_only=True)
class Binning:
    """Label bins with the number of training samples in each."""

    label: LabelSpec
    train_counts: NDArray[np.int64]


def make_binning(manifest: Manifest, bin_width: float | None = None, train_labels: ArrayLike | None = None) -> Binning:
    """Return the label bins of a width, with the training samples in each.

    Bins of a multiple of the data set's width hold whole bins of the data set, whose counts the manifest has; for any
    other width the training labels themselves are needed.

    Args:
        manifest: of the data set.
        bin_width: in the label's unit; None means the data set's.
        train_labels: shape `(n,)`, in the label's unit; needed for widths that are no multiple.

    Raises:
        InputError: the width is not positive, or is no multiple and there are no labels.
    """
    label = manifest.label
    if bin_width is None or bin_width == label.bin_width:
        return Binning(label=label, train_counts=np.asarray(manifest.train_counts, dtype=np.int64))
    if label.components:
        rule = "cannot be changed for labels of several dimensions"
        raise InputError(Fault(where="bin width", rule=rule, got=bin_width))
    if not 0 < bin_width < np.inf:
        raise InputError(Fault(where="bin width", rule="must be positive and finite", got=bin_width))
    # Without the tolerance, rounding could add an empty last bin.
    bins = int(np.ceil(label.num_bins * label.bin_width / bin_width - 1e-9))
    wider = label.model_copy(update={"bin_width": bin_width, "num_bins": bins})
    if train_labels is not None:
        counts = label_density(label_bins(train_labels, wider), bins)
        return Binning(label=wider, train_counts=counts)
    factor = round(bin_width / label.bin_width)
    # With a tolerance: 0.3 is three bins of 0.1, although 3 * 0.1 is not 0.3 in floating point.
    if factor < 1 or not np.isclose(factor * label.bin_width, bin_width, rtol=1e-9, atol=0.0):
        rule = f"must be a multiple of {label.bin_width:g}, or the training labels must be given"
        raise InputError(Fault(where="bin width", rule=rule, got=bin_width))
    starts = range(0, label.num_bins, factor)
    counts = np.add.reduceat(np.asarray(manifest.train_counts, dtype=np.int64), list(starts))
    return Binning(label=wider, train_counts=counts)


def check_bin_lists(rules: Iterable[ShotRule], bin_width: float | None, published: float) -> None:
    """Raise if a shot rule is a list of bins of another width.

    Args:
        rules: the shot rules.
        bin_width: the width asked for; None means the data set's.
        published: the width that lists of bins are given in.

    Raises:
        InputError: a list would be applied to bins of another width.
    """
    if bin_width in (None, published):
        return
    # A list names bins by their position, and in bins of another width the positions mean other labels.
    if any(rule.many_bins is not None for rule in rules):
        text = f"the shot rule is a list of bins of width {published:g}; give a rule by counts"
        raise InputError(Fault(where="bin width", rule=text, got=bin_width))
