"""Inputs of models, terms and fitted losses: `Batch`, `TermInputs`, `TrainingLabels`, `EvaluatedRows`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune import randomness
from dirtune.manifest import LabelSpec

Inputs = dict[str, Tensor]
"""One view of a batch: tensors by column name, first dimension = batch."""


class Mixture(NamedTuple):
    """Partners of rows with which their embeddings are combined; a tuple, for distributed wrappers."""

    partners: Inputs
    """Inputs of the partners, one for each row."""
    shares: Float[Tensor, " rows"]
    """Share of the row itself, in [0, 1]; its partner has the rest."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Batch of a split on one rank, or one of the micro-batches of a step.

    `views` holds one or more augmented views of the same samples; every other tensor has one entry per sample.
    """

    views: tuple[Inputs, ...]
    labels: Float[Tensor, "batch *label"]
    """In the unit of training, which is the label's or that of its transform, as everything in this module."""
    label_bins: Int[Tensor, " batch"]
    """Index of the label bin."""
    weights: Float[Tensor, " batch"]
    """Weights of re-weighting, with mean one over the training split."""
    rows: Int[Tensor, " batch"]
    """Position in the split, sorted by sample id."""
    share: float = 1.0
    """Share of the samples of its step, over all ranks."""
    ends_step: bool = True
    """True for the last micro-batch of a step, after which the optimizer steps."""
    counts: tuple[int, ...] | None = None
    """Samples of the micro-batch on each rank; None if they are unknown."""
    partner_views: tuple[Inputs, ...] = ()
    """Views of the samples' partners, if embeddings are mixed (`dirtune.mixing`)."""
    own_shares: Float[Tensor, " batch"] | None = None
    """Share of each sample itself in such a mixture."""
    draws: tuple[int, str, int, int] = (0, "draws", 0, 0)
    """Stream of random draws in losses and terms: of the trial, the pass and the micro-batch, and equal on all ranks."""

    @property
    def draw_seed(self) -> int:
        """Seed of the stream, which few losses and terms read."""
        return randomness.derive_seed(*self.draws)


@dataclass(frozen=True, kw_only=True)
class TermInputs:
    """Inputs of a regularizer term: the global batch, all views stacked view-major.

    Row `v * batch + i` is view `v` of sample `i`; labels, bins and weights are repeated accordingly.
    Under distributed training it holds the gathered rows of all ranks.
    """

    representations: Float[Tensor, "rows dim"]
    """Vectors that the term reads: z, e / |e| or e."""
    labels: Float[Tensor, "rows *label"]
    """(rows, L) for labels of L dimensions."""
    label_bins: Int[Tensor, " rows"]
    predictions: Float[Tensor, "rows *label"]
    """Detached."""
    weights: Float[Tensor, " rows"]
    samples: Int[Tensor, " rows"]
    """Position in the training split; equal for the views of a sample."""
    num_views: int
    label_range: float
    """Width of the label's range (`LabelSpec.label_range`)."""
    label_scale: float = 1.0
    """Divisor of the labels that the regression loss is given."""
    draw_seed: int = 0
    """Seed of the term's random draws in this step, equal on all ranks (`dirtune.losses.draws`)."""


@dataclass(frozen=True, kw_only=True)
class TrainingLabels:
    """Labels of the training split, for losses and terms that are fitted to their distribution."""

    labels: Float[Tensor, "samples *label"]
    label_bins: Int[Tensor, " samples"]
    spec: LabelSpec
    label_scale: float = 1.0
    """Divisor of the labels that a regression loss is given."""
    weights: Float[Tensor, " samples"] | None = None
    """Weights of re-weighting, with mean one; None means all are one."""
    seed: int = 0
    """Seed of the trial, for draws that are made once."""
    dims: Mapping[str, int] = field(default_factory=dict)
    """Sizes of the vectors that a term may read: of "representation", "embedding" and "direction"."""
    histogram: tuple[int, ...] = ()
    """Training labels in each bin of the data set as ingested, of which heads are built; empty: those of `label_bins`."""

    @property
    def num_samples(self) -> int:
        return len(self.labels)

    def count_bins(self) -> Int[Tensor, " bins"]:
        """Return the histogram of which the head of a loss is built, on the CPU."""
        if self.histogram:
            return torch.tensor(self.histogram)
        return torch.bincount(self.label_bins, minlength=self.spec.num_bins).cpu()


@dataclass(frozen=True, kw_only=True)
class EvaluatedRows:
    """Rows of the training split as the model sees them in evaluation mode, for the end of an epoch of a fitted part."""

    vectors: Float[Tensor, "rows dim"]
    """What the part reads: z, e / |e| or e."""
    predictions: Float[Tensor, "rows *label"]
    labels: Float[Tensor, "rows *label"]
    label_bins: Int[Tensor, " rows"]
    samples: Int[Tensor, " rows"]
    """Position in the training split."""
