"""The two values that travel through training: `Batch` into the model, `TermInputs` into a regularizer term."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

Inputs = dict[str, Tensor]
"""One view of a batch: tensors by column name, first dimension = batch."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One (local) batch of a split.

    `views` holds one or more augmented views of the same samples; everything else has one entry per sample.
    """

    views: tuple[Inputs, ...]
    labels: Float[Tensor, " batch"]  # in the label's unit
    label_bins: Int[Tensor, " batch"]  # index of the label bin
    weights: Float[Tensor, " batch"]  # re-weighting, mean one over the training split
    rows: Int[Tensor, " batch"]  # position in the split, sorted by sample id


@dataclass(frozen=True, kw_only=True)
class TermInputs:
    """What a regularizer term sees: the global batch, all views stacked view-major.

    Row `v * batch + i` is view `v` of sample `i`; labels, bins and weights are repeated accordingly.
    Under distributed training the rows of all ranks have been gathered before.
    """

    representations: Float[Tensor, "rows dim"]  # z, L2-normalised
    labels: Float[Tensor, " rows"]  # in the label's unit
    label_bins: Int[Tensor, " rows"]
    predictions: Float[Tensor, " rows"]  # in the label's unit, detached
    weights: Float[Tensor, " rows"]
    num_views: int
    label_range: float  # width of the label's range, from the manifest
