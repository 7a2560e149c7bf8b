"""Label bins of a set of training labels, for loops of one's own: bins, shot regions and sample weights without a data set.

Labels are numbers, arrays or tensors; what is returned for a tensor of labels is a tensor. Labels of one dimension only.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.manifest import LabelSpec, ShotRule
from dirtune.reweighting import LDS, Reweighting, Scheme
from dirtune.reweighting.density import label_bins, label_density, shot_regions
from dirtune.signatures import is_instance

BINS = 100
"""Approximate number of label bins if no width is given."""
_MOST_BINS = 100_000
BINS_RULE = "must be a LabelBins, as of `LabelBins.from_labels(...)`"
"""Rule of arguments that are label bins."""


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
            InputError: the labels are no finite numbers of one dimension, all equal, or outside of low and high, or a limit is
                no finite number.
        """
        values = to_numbers(labels)
        _check_numbers(bin_width=bin_width, low=low, high=high)
        distinct = np.unique(values)
        start = float(distinct[0]) if low is None else float(low)
        end = float(distinct[-1]) if high is None else float(high)
        if len(distinct) < 2 or start >= end or distinct[0] < start or distinct[-1] > end:
            rule = "labels must differ, and be within low and high"
            raise InputError(Fault(where="labels", rule=rule, got=[float(distinct[0]), float(distinct[-1])]))
        if not np.isfinite(end - start):
            raise InputError(Fault(where="labels", rule="must have a range that is a finite number", got=[start, end]))
        smallest = float(np.diff(distinct).min())
        width = max((end - start) / BINS, smallest) if bin_width is None else float(bin_width)
        if width <= 0 or (end - start) / width > _MOST_BINS:
            rule = f"must be positive and at least {(end - start) / _MOST_BINS:.2g}"
            raise InputError(Fault(where="labels", key="bin_width", rule=rule, got=bin_width))
        # A label on an edge is in the bin above it, and so is the largest one.
        number = int(np.floor((end - start) / width + 1e-9)) + 1
        spec = LabelSpec(name="label", unit="units", low=start, high=end, bin_width=width, num_bins=number)
        counts = label_density(label_bins(values, spec), number)
        if is_instance(many_above, int) and is_instance(few_below, int) and few_below > many_above + 1:
            rule = "no bin may be both many and few: must be at most many_above + 1"
            raise InputError(Fault(where="labels", key="few_below", rule=rule, got=few_below))
        limits = {"many_above": many_above, "few_below": few_below}
        return cls(spec=spec, counts=tuple(counts.tolist()), rule=read(ShotRule, limits, where="labels"))

    def find_bins(self, labels: Any) -> Any:
        """Return the bin of each label; a tensor for a tensor of labels."""
        return like(labels, label_bins(to_numbers(labels, most_dims=None, least=0), self.spec))

    def check_training_labels(self, labels: np.typing.NDArray[np.float64]) -> None:
        """Raise if labels of the training set are outside of the bins, which were then made of other labels.

        Raises:
            InputError: with the range of the bins.
        """
        outside = labels[(labels < self.spec.low) | (labels > self.spec.high)]
        if len(outside):
            rule = f"training labels must be within the bins, {self.spec.low:g} to {self.spec.high:g}"
            raise InputError(Fault(where="labels", rule=rule, got=float(outside[0])))

    def find_regions(self, labels: Any) -> np.typing.NDArray[np.str_]:
        """Return the shot region of each label: many, medium or few."""
        regions = shot_regions(np.asarray(self.counts), self.rule)
        return np.asarray(regions[label_bins(to_numbers(labels, least=0), self.spec)])


def weights(
    labels: Any,
    *,
    scheme: Scheme = "sqrt_inverse",
    lds: bool | LDS | Mapping[str, Any] = False,
    bins: LabelBins | None = None,
    bin_width: float | None = None,
    clip: tuple[int, int] | None = None,
    alpha: float = 1.0,
) -> Any:
    """Return the weight of each training sample for a regression loss, with mean one.

    Args:
        labels: of all training samples.
        scheme: inverse (INV), sqrt_inverse (SQINV), dense (DenseWeight) or none.
        lds: label distribution smoothing (Yang et al., ICML 2021): True for the published kernel, or its settings, as a mapping
            or a `dirtune.nn.LDS`.
        bins: the label bins; None means those of `LabelBins.from_labels`.
        bin_width: width of the bins; not together with `bins`.
        clip: range to which counts are clipped first.
        alpha: dense only: strength of the reduction of weights by density.

    Returns:
        An array in float64; for a tensor of labels, a tensor of its dtype (float32 for integers) on its device.

    Raises:
        InputError: the labels have no bins or are not those of the bins, or the settings do not fit together.
    """
    values = to_numbers(labels)
    if bins is None:
        bins = LabelBins.from_labels(values, bin_width=bin_width)
    elif not isinstance(bins, LabelBins):
        raise InputError(Fault(where="weights", key="bins", rule=BINS_RULE, got=type(bins).__name__))
    elif bin_width is not None:
        raise InputError(
            Fault(where="weights", key="bin_width", rule="belongs to `bins`, which is given", got=bin_width)
        )
    bins.check_training_labels(values)
    settings = {"scheme": scheme, "lds": _get_smoothing(lds), "clip": clip, "alpha": alpha}
    reweighting = read(Reweighting, settings, where="weights")
    found = reweighting.compute_weights(label_bins(values, bins.spec), bins.spec.num_bins, labels=values)
    return like(labels, found)


def to_numbers(labels: Any, *, most_dims: int | None = 1, least: int = 1) -> np.typing.NDArray[np.float64]:
    """Return labels as an array in float64.

    Args:
        labels: numbers.
        most_dims: number of dimensions; None means any.
        least: smallest number of labels.

    Raises:
        InputError: they are not finite numbers, are too few, or have another number of dimensions than `most_dims`.
    """
    try:
        # In double precision first: NumPy has no bfloat16
        plain = np.asarray(labels.detach().double().cpu().numpy() if hasattr(labels, "detach") else labels)
        # Texts, dates and complex numbers would be converted without a word.
        if plain.dtype.kind in "USmMc":
            raise InputError(Fault(where="labels", rule=f"must be numbers, got values of the type {plain.dtype}"))
        values = plain.astype(np.float64)
    # The last, of a tensor without values or of a sparse layout
    except (TypeError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(Fault(where="labels", rule=f"must be numbers ({error})")) from None
    if most_dims is not None and values.ndim != most_dims:
        raise InputError(Fault(where="labels", rule="must have the shape (samples,)", got=values.shape))
    if values.size < least or not np.isfinite(values).all():
        rule = "must be finite numbers" + (", at least one" if least else "")
        raise InputError(Fault(where="labels", rule=rule))
    return values


def _check_numbers(**given: Any) -> None:
    """Raise if one of these is neither None nor a finite number."""
    for name, value in given.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool) and np.isfinite(float(value))
        if value is not None and not is_number:
            raise InputError(Fault(where="labels", key=name, rule="must be a finite number", got=value))


def _get_smoothing(lds: Any) -> dict[str, Any] | None:
    """Return the settings of a smoothing as plain data, or None without one."""
    if lds is True:
        return LDS().model_dump()
    if lds is False or lds is None:
        return None
    if isinstance(lds, LDS):
        return lds.model_dump()
    if isinstance(lds, Mapping):
        return dict(lds)
    rule = "must be True, False, a mapping of settings or a dirtune.nn.LDS"
    raise InputError(Fault(where="weights", key="lds", rule=rule, got=lds))


def like(labels: Any, values: np.typing.NDArray[Any]) -> Any:
    """Return an array, as a tensor on the labels' device if these are a tensor; this module does not import torch."""
    if not hasattr(labels, "new_tensor"):
        return values
    found = labels.new_tensor(0).new_zeros(values.shape)
    is_count = values.dtype.kind == "i"
    found = found.long() if is_count else (found if found.is_floating_point() else found.float())
    return found.new_tensor(values.tolist())
