"""Label bins of a set of training labels, for loops of one's own: bins, shot regions and sample weights without a data set.

Labels are numbers, arrays or tensors; what is returned for a tensor of labels is a tensor. Labels of one dimension only.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.manifest import LabelSpec, ShotRule
from dirtune.reweighting import LDS, Reweighting, Scheme
from dirtune.reweighting.density import label_bins, label_density, shot_regions

BINS = 100
"""Approximate number of label bins if no width is given."""
_MOST_BINS = 100_000


@dataclass(frozen=True, kw_only=True)
class LabelBins:
    """Label bins, the number of training labels in each, and their shot regions."""

    spec: LabelSpec
    counts: tuple[int, ...]
    """Training labels per bin."""
    rule: ShotRule

    @classmethod
    def from_labels(
        cls,
        labels: Any,
        *,
        bin_width: float | None = None,
        low: float | None = None,
        high: float | None = None,
        many_above: int = 100,
        few_below: int = 20,
    ) -> "LabelBins":
        """Return the bins of training labels.

        Args:
            labels: of the training samples.
            bin_width: None means a hundredth of the range, but not less than the smallest distance of two labels.
            low: lower end of the first bin; None means the smallest label.
            high: end of the range; None means the largest label.
            many_above: a bin with more training labels is many-shot.
            few_below: a bin with fewer training labels is few-shot.

        Raises:
            InputError: the labels are no finite numbers of one dimension, all equal, or outside of low and high.
        """
        values = to_numbers(labels)
        distinct = np.unique(values)
        start = float(distinct[0]) if low is None else float(low)
        end = float(distinct[-1]) if high is None else float(high)
        if len(distinct) < 2 or start >= end or distinct[0] < start or distinct[-1] > end:
            rule = "labels must differ, and be within low and high"
            raise InputError(Fault(where="labels", rule=rule, got=[float(distinct[0]), float(distinct[-1])]))
        width = float(bin_width or max((end - start) / BINS, float(np.diff(distinct).min())))
        if width <= 0 or (end - start) / width > _MOST_BINS:
            rule = f"must be positive and at least {(end - start) / _MOST_BINS:.2g}"
            raise InputError(Fault(where="labels", key="bin_width", rule=rule, got=bin_width))
        # A label on an edge is in the bin above it, and so is the largest one.
        number = int(np.floor((end - start) / width + 1e-9)) + 1
        spec = LabelSpec(name="label", unit="units", low=start, high=end, bin_width=width, num_bins=number)
        counts = label_density(label_bins(values, spec), number)
        return cls(spec=spec, counts=tuple(counts.tolist()), rule=ShotRule(many_above=many_above, few_below=few_below))

    def find_bins(self, labels: Any) -> Any:
        """Return the bin of each label; a tensor for a tensor of labels."""
        return like(labels, label_bins(to_numbers(labels, most_dims=None), self.spec))

    def find_regions(self, labels: Any) -> np.typing.NDArray[np.str_]:
        """Return the shot region of each label: many, medium or few."""
        regions = shot_regions(np.asarray(self.counts), self.rule)
        return np.asarray(regions[label_bins(to_numbers(labels), self.spec)])


def weights(
    labels: Any,
    *,
    scheme: Scheme = "sqrt_inverse",
    lds: bool | LDS = False,
    bins: LabelBins | None = None,
    bin_width: float | None = None,
    clip: tuple[int, int] | None = None,
    alpha: float = 1.0,
) -> Any:
    """Return the weight of each training sample for a regression loss, with mean one.

    Args:
        labels: of all training samples.
        scheme: inverse (INV), sqrt_inverse (SQINV), dense (DenseWeight) or none.
        lds: label distribution smoothing (Yang et al., ICML 2021): True for the published kernel, or its settings.
        bins: the label bins; None means those of `LabelBins.from_labels`.
        bin_width: width of the bins, if `bins` is not given.
        clip: range to which counts are clipped first.
        alpha: dense only: strength of the reduction of weights by density.

    Returns:
        An array in float64; for a tensor of labels, a tensor of its dtype (float32 for integers) on its device.

    Raises:
        InputError: the labels have no bins, or the settings do not fit together.
    """
    values = to_numbers(labels)
    bins = bins or LabelBins.from_labels(values, bin_width=bin_width)
    smoothing = LDS() if lds is True else (lds or None)
    settings = {"scheme": scheme, "lds": smoothing and smoothing.model_dump(), "clip": clip, "alpha": alpha}
    reweighting = read(Reweighting, settings, where="weights")
    found = reweighting.compute_weights(label_bins(values, bins.spec), bins.spec.num_bins, labels=values)
    return like(labels, found)


def to_numbers(labels: Any, *, most_dims: int | None = 1) -> np.typing.NDArray[np.float64]:
    """Return labels as an array in float64.

    Raises:
        InputError: they are not finite numbers, or have more dimensions than `most_dims`.
    """
    plain = labels.detach().cpu().numpy() if hasattr(labels, "detach") else labels
    try:
        values = np.asarray(plain, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(Fault(where="labels", rule=f"must be numbers ({error})")) from None
    if most_dims is not None and values.ndim != most_dims:
        raise InputError(Fault(where="labels", rule="must have the shape (samples,)", got=values.shape))
    if not values.size or not np.isfinite(values).all():
        raise InputError(Fault(where="labels", rule="must be finite numbers, at least one"))
    return values


def like(labels: Any, values: np.typing.NDArray[Any]) -> Any:
    """Return an array, as a tensor on the labels' device if these are a tensor; this module does not import torch."""
    if not hasattr(labels, "new_tensor"):
        return values
    found = labels.new_tensor(0).new_zeros(values.shape)
    is_count = values.dtype.kind == "i"
    found = found.long() if is_count else (found if found.is_floating_point() else found.float())
    return found.new_tensor(values.tolist())
