"""RankSim: samples whose labels are near in rank shall have representations that are near in rank.

Gong, Mori and Tung, "RankSim: Ranking Similarity Regularization for Deep Imbalanced Regression", ICML 2022. Official code:
github.com/BorealisAI/ranksim-imbalanced-regression, `ranksim.py` and `ranking.py` of each data set. Total loss:
`L_reg + gamma * L_RankSim`.

Ranks are piecewise constant. Their backward pass interpolates (Pogancic et al., "Differentiation of Blackbox Combinatorial
Solvers", ICLR 2020), so that the gradient is not the slope of the loss and not linear in the factor before it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.autograd.function import once_differentiable

from dirtune.batch import TermInputs
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.losses.blocks import BLOCK_ENTRIES
from dirtune.losses.pairs import cosine_matrix, distance_matrix, full_precision

_MERSENNE_PRIME = 2**31 - 1
# Carries sums that differ by little far apart
_MULTIPLIER = 1_583_458_089

_CACHED_ENTRIES = 1 << 16
"""Keys of a sort, of eight bytes, that the caches next to one core hold."""

_COARSE_COLUMNS = 1024
"""More values in a row seldom differ in the bits that 32 leave beside the column: every row would be sorted twice."""


class RankSim(Frozen):
    """RankSim: ranks neighbors in the embedding as in the label (Gong et al., ICML 2022); formula: `ranksim`."""

    gamma: float = Field(default=100.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 100 (AgeDB, IMDB-WIKI), 3e-4 (STS-B). The
    gradient is computed behind it: twice the weight is not twice the gradient."""
    interpolation: float = Field(default=2.0, gt=0)
    """lambda: how far the similarities are pushed along the gradient to see which ranks change, in units of cosine per unit
    of gradient. Official: 2 (AgeDB, IMDB-WIKI, STS-B)."""
    reads: Literal["representation", "embedding"] = "embedding"
    """What is ranked: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return ranksim(
            inputs.representations,
            scalar_labels(inputs.labels, term="ranksim"),
            inputs.samples,
            interpolation=self.interpolation,
        )


def ranksim(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    samples: Int[Tensor, " rows"],
    *,
    interpolation: float,
) -> Float[Tensor, ""]:
    """`sum_i 1/m sum_j (b_ij - a_ij)^2` over `m` kept samples, one per distinct label; 0 if all labels are equal.

        a_ij = rank of -|y_i - y_j| in its row / m       b_ij = rank of s_ij in its row / m,  s the cosine

    The largest entry has rank 1; of equal entries the sample of the higher position in the training split comes first. With
    `g = dL/db`, the backward pass gives `dL/ds = ( rank(s + interpolation g) / m - b ) / (interpolation + 1e-8)`. The sum
    over `i` is no mean: the loss grows with the number of distinct labels.

    Args:
        samples: position of each row's sample in the training split, equal for the views of one sample.

    Departures from the official code: (1) it keeps a random row per label, from a generator that no seed reaches; here
    lots are drawn by arithmetic on the batch's sample positions, which no order of rows and no number of ranks changes.
    (2) It has no views; here those of a kept sample enter as their mean. (3) Ties are broken by sample position; there
    by the order of the batch where all labels are distinct, else of the labels, and for ages by an unstable sort.
    (4) An embedding of zeros has cosine 0 to all and gradient 0.
    """
    with full_precision(embeddings) as e:
        kept, values = _one_sample_per_label(e, labels.to(e.dtype), samples)
        label_ranks = _ranks(distance_matrix(values).neg_())
        loss: Tensor = _RankLoss.apply(directions(kept), label_ranks, interpolation)
        return loss


def scalar_labels(labels: Float[Tensor, "rows *label"], *, term: str) -> Float[Tensor, " rows"]:
    """The labels without a trailing dimension of one.

    Raises:
        InputError: the labels have several dimensions, which have no ranks and no order.
    """
    if labels.ndim > 2 or labels[:1].numel() > 1:
        shape = tuple(labels.shape[1:])
        raise InputError(Fault(where=f"term {term}", rule="needs labels of one dimension", got=shape))
    return labels.reshape(len(labels))


def directions(vectors: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """`v / |v|`; a vector of zeros stays zero and gets no gradient."""
    norms = vectors.norm(dim=1, keepdim=True)
    result: Tensor = vectors / norms.masked_fill(norms == 0, torch.inf)
    return result


def _one_sample_per_label(
    embeddings: Float[Tensor, "rows dim"], labels: Float[Tensor, " rows"], samples: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, "kept dim"], Float[Tensor, " kept"]]:
    """The drawn samples' embeddings (mean over views) and labels, by ascending sample position."""
    values, groups = labels.unique(return_inverse=True)
    lots = _lots(samples.long())
    winners = lots.new_zeros(len(values)).scatter_reduce(0, groups, lots, "amin", include_self=False)
    drawn = lots == winners[groups]
    groups, samples, embeddings = groups[drawn], samples[drawn], embeddings[drawn]
    views = torch.bincount(groups, minlength=len(values))[:, None]
    means = embeddings.new_zeros(len(values), embeddings.shape[1]).index_add(0, groups, embeddings)
    order = samples.new_zeros(len(values)).scatter(0, groups, samples).argsort(stable=True)
    return (means / views)[order], values[order]


def _lots(samples: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """A number per sample, different for different samples, that other companions in the batch change as by chance.

    `k (sample + 1) mod p` with a factor `k` from the sum of all positions: were it the position itself, a sample would
    never be drawn beside one of lower position.
    """
    factor = samples.sum() % _MERSENNE_PRIME * _MULTIPLIER % (_MERSENNE_PRIME - 1) + 1
    return (samples + 1) * factor % _MERSENNE_PRIME


def _ranks(values: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Rank of each entry in its row, divided by the number of columns; the largest, and the last of equal ones, is first."""
    columns = values.shape[1]
    ranks = torch.empty_like(values)
    places = torch.arange(columns, 0, -1, dtype=values.dtype, device=values.device) / columns
    packable = values.dtype == torch.float32 and values.device.type == "cpu"
    rows = max(1, (_CACHED_ENTRIES if packable else BLOCK_ENTRIES) // columns)
    for block, ranked in zip(values.split(rows), ranks.split(rows), strict=True):
        order = _packed_argsort(block) if packable else block.argsort(dim=1, stable=True)
        ranked.scatter_(1, order, places.expand_as(block))
    return ranks


def _packed_argsort(values: Float[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """`values.argsort(dim=1, stable=True)` of float32 on the CPU, in a quarter of the time.

    NumPy's sort of plain integers is vectorized. Value and column are packed into one integer; one of 32 bits sorts ten
    times as fast as one of 64 but holds the value only roughly, so that rows it leaves out of order are sorted anew.
    """
    if values.shape[1] > _COARSE_COLUMNS:
        return _sorted_columns(_exact(values), column_bits=32)
    column_bits = (values.shape[1] - 1).bit_length()
    order = _sorted_columns(_coarse(values, bits=31 - column_bits), column_bits)
    wrong = _unsorted_rows(values.gather(1, order))
    if len(wrong):
        order[wrong] = _sorted_columns(_exact(values[wrong]), column_bits=32)
    return order


def _unsorted_rows(values: Float[Tensor, "rows columns"]) -> Int[Tensor, " some_rows"]:
    """Rows that are not in ascending order; NumPy looks through them in a third of the time."""
    entries = values.numpy()
    return torch.from_numpy(np.flatnonzero((entries[:, 1:] < entries[:, :-1]).any(axis=1)))


def _sorted_columns(keys: Int[Tensor, "rows columns"], column_bits: int) -> Int[Tensor, "rows columns"]:
    """Each row's columns by ascending key, equal keys by column; the keys are overwritten."""
    packed: Tensor = keys.bitwise_left_shift_(column_bits).add_(torch.arange(keys.shape[1], dtype=keys.dtype))
    packed.numpy().sort(axis=1)
    columns: Tensor = packed.bitwise_and_((1 << column_bits) - 1).long()
    return columns


def _coarse(values: Float[Tensor, "rows columns"], bits: int) -> Int[Tensor, "rows columns"]:
    """The values' places between the smallest and the largest of all, in at most `bits` bits; order is kept, not all ties."""
    low, high = values.aminmax()
    # A float32 has 24 bits; the last ones may be rounded up
    levels = 2 ** min(bits, 22) - 1
    places: Tensor = (values - low).mul_(levels / (high - low).clamp(min=1e-30))
    return places.int()


def _exact(values: Float[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """A float's bits, read as an integer, sort like the float once those of negative numbers are turned around."""
    # -0.0 and 0.0 are equal
    bits = (values + 0.0).view(torch.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


class _RankLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, directions: Tensor, label_ranks: Tensor, interpolation: float) -> Tensor:
        similarities = cosine_matrix(directions)
        ranks = _ranks(similarities)
        ctx.save_for_backward(directions, similarities, ranks, label_ranks)
        ctx.interpolation = interpolation
        return (ranks - label_ranks).square_().sum() / ranks.shape[1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        directions, similarities, ranks, label_ranks = ctx.saved_tensors
        slopes = (ranks - label_ranks).mul_(2 * gradient / ranks.shape[1])
        pushed = slopes.mul_(ctx.interpolation).add_(similarities)
        of_similarities = _ranks(pushed).sub_(ranks).div_(ctx.interpolation + 1e-8)
        # s_ij = u_i . u_j: each direction is in its row and in its column. The product is as exact as that of the forward pass.
        both = of_similarities.T.contiguous().add_(of_similarities)
        return cosine_matrix(both, directions.T), None, None
