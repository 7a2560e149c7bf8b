"""RankSim: ranks the neighbors of a sample by representation as they are ranked by label.

Gong, Mori and Tung, "RankSim: Ranking Similarity Regularization for Deep Imbalanced Regression", ICML 2022. Official code:
github.com/BorealisAI/ranksim-imbalanced-regression, `ranksim.py` and `ranking.py` of each data set. Total loss:
`L_reg + gamma * L_RankSim`.

Ranks are piecewise constant. Their backward pass interpolates (Pogancic et al., "Differentiation of Blackbox Combinatorial
Solvers", ICLR 2020), so that the gradient is not the slope of the loss and not linear in the factor before it.
"""

from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.losses import blocks, pairs

_MERSENNE_PRIME = 2**31 - 1
# Maps sums that differ by little to distant factors
_MULTIPLIER = 1_583_458_089

_CACHED_ENTRIES = 1 << 16
"""Number of sort keys, of eight bytes each, that fit into the caches of one core."""

_COARSE_COLUMNS = 1024
"""Maximum row length for keys of 32 bits. More values seldom differ in the bits that the column leaves: every row would be
sorted twice."""


class RankSim(Frozen):
    """RankSim: ranks neighbors in the embedding as in the label (Gong et al., ICML 2022); formula: `ranksim`."""

    gamma: float = Field(default=100.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 100 (AgeDB, IMDB-WIKI), 3e-4 (STS-B). The
    gradient is not linear in it: twice the weight is not twice the gradient."""
    interpolation: float = Field(default=2.0, gt=0)
    """lambda: step of the similarities along the gradient, in units of cosine per unit of gradient; the gradient is the change
    of ranks by this step. Official: 2 (AgeDB, IMDB-WIKI, STS-B)."""
    reads: Literal["representation", "embedding"] = "embedding"
    """Input of the term: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return ranksim(
            inputs.representations,
            require_scalar_labels(inputs.labels, term="ranksim"),
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
    """Return `sum_i 1/m sum_j (b_ij - a_ij)^2` over `m` kept samples, one per distinct label; 0 if all labels are equal.

        a_ij = rank of -|y_i - y_j| in its row / m       b_ij = rank of s_ij in its row / m,  s the cosine

    The largest entry has rank 1; of equal entries the sample of the higher position in the training split comes first. With
    `g = dL/db`, the backward pass gives `dL/ds = ( rank(s + interpolation g) / m - b ) / (interpolation + 1e-8)`. The sum
    over `i` is no mean: the loss grows with the number of distinct labels.

    Args:
        samples: position of each row's sample in the training split, equal for the views of one sample.

    Departures from the official code: (1) it keeps a random row per label, from a generator without a seed; here lots are
    drawn by arithmetic on the batch's sample positions, which no order of rows and no number of ranks changes. (2) It has
    no views; here those of a kept sample enter as their mean. (3) Ties are broken by sample position; there by the order
    of the batch where all labels are distinct, else of the labels, and for ages by an unstable sort.
    (4) An embedding of zeros has cosine 0 to all and gradient 0.
    """
    with pairs.full_precision(embeddings) as e:
        kept, values = _select_one_sample_per_label(e, labels.to(e.dtype), samples)
        label_ranks = _rank_rows(pairs.distance_matrix(values).neg_())
        loss: Tensor = _RankLoss.apply(normalize_rows(kept), label_ranks, interpolation)
        return loss


def require_scalar_labels(labels: Float[Tensor, "rows *label"], *, term: str) -> Float[Tensor, " rows"]:
    """Return the labels without a trailing dimension of one.

    Raises:
        InputError: the labels have several dimensions, which have no ranks and no order.
    """
    if labels.ndim > 2 or labels[:1].numel() > 1:
        shape = tuple(labels.shape[1:])
        raise InputError(Fault(where=f"term {term}", rule="needs labels of one dimension", got=shape))
    return labels.reshape(len(labels))


def normalize_rows(vectors: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Return `v / |v|`; a vector of zeros remains zero and gets no gradient."""
    norms = vectors.norm(dim=1, keepdim=True)
    result: Tensor = vectors / norms.masked_fill(norms == 0, torch.inf)
    return result


def _select_one_sample_per_label(
    embeddings: Float[Tensor, "rows dim"], labels: Float[Tensor, " rows"], samples: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, "kept dim"], Float[Tensor, " kept"]]:
    """Return the drawn samples' embeddings (mean over views) and labels, by ascending sample position."""
    values, groups = labels.unique(return_inverse=True)
    lots = _draw_lots(samples.long())
    winners = lots.new_zeros(len(values)).scatter_reduce(0, groups, lots, "amin", include_self=False)
    # Positions, and not a mask for each of the three, whose size the host would ask a GPU for each time
    drawn = (lots == winners[groups]).nonzero().squeeze(1)
    groups, samples, embeddings = groups[drawn], samples[drawn], embeddings[drawn]
    views = groups.new_zeros(len(values)).index_add(0, groups, torch.ones_like(groups))[:, None]
    means = embeddings.new_zeros(len(values), embeddings.shape[1]).index_add(0, groups, embeddings)
    order = samples.new_zeros(len(values)).scatter(0, groups, samples).argsort(stable=True)
    return (means / views)[order], values[order]


def _draw_lots(samples: Int[Tensor, " rows"]) -> Int[Tensor, " rows"]:
    """Return a pseudo-random number per sample, unique within the batch: `k (sample + 1) mod p`.

    The factor `k` comes from the sum of all positions, so that the draw depends on the other samples of the batch. With the
    position itself as the number, a sample would never be drawn together with one of lower position.
    """
    # Products of two numbers below 2^31 fit into 64 bits.
    factor = samples.sum() % _MERSENNE_PRIME * _MULTIPLIER % (_MERSENNE_PRIME - 1) + 1
    return (samples + 1) * factor % _MERSENNE_PRIME


def _rank_rows(values: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """Return the rank of each entry in its row over the number of columns; the largest, and the last of ties, has rank 1."""
    columns = values.shape[1]
    ranks = torch.empty_like(values)
    descending = torch.arange(columns, 0, -1, dtype=values.dtype, device=values.device) / columns
    packable = values.dtype == torch.float32 and values.device.type == "cpu"
    # Blocks bound the memory of the sort; packed keys must also fit into the caches.
    rows = max(1, (_CACHED_ENTRIES if packable else blocks.BLOCK_ENTRIES) // columns)
    for block, ranked in zip(values.split(rows), ranks.split(rows), strict=True):
        order = _sort_packed(block) if packable else block.argsort(dim=1, stable=True)
        ranked.scatter_(1, order, descending.expand_as(block))
    return ranks


def _sort_packed(values: Float[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """Return `values.argsort(dim=1, stable=True)` of float32 on the CPU, in a quarter of the time.

    NumPy's sort of plain integers is vectorized. Value and column are packed into one integer; one of 32 bits sorts ten
    times as fast as one of 64 but holds the value only roughly, so that rows out of order are sorted again.
    """
    if values.shape[1] > _COARSE_COLUMNS:
        return _sort_columns(_to_exact_keys(values), column_bits=32)
    column_bits = (values.shape[1] - 1).bit_length()
    order = _sort_columns(_to_coarse_keys(values, bits=31 - column_bits), column_bits)
    # NumPy compares in a third of the time.
    entries = values.gather(1, order).numpy()
    wrong = torch.from_numpy(np.flatnonzero((entries[:, 1:] < entries[:, :-1]).any(axis=1)))
    if len(wrong):
        order[wrong] = _sort_columns(_to_exact_keys(values[wrong]), column_bits=32)
    return order


def _sort_columns(keys: Int[Tensor, "rows columns"], column_bits: int) -> Int[Tensor, "rows columns"]:
    """Return each row's columns by ascending key, equal keys by column; the keys are overwritten."""
    packed: Tensor = keys.bitwise_left_shift_(column_bits).add_(torch.arange(keys.shape[1], dtype=keys.dtype))
    packed.numpy().sort(axis=1)
    columns: Tensor = packed.bitwise_and_((1 << column_bits) - 1).long()
    return columns


def _to_coarse_keys(values: Float[Tensor, "rows columns"], bits: int) -> Int[Tensor, "rows columns"]:
    """Return integers of at most `bits` bits in the order of the values; close values may get one integer."""
    low, high = values.aminmax()
    # A float32 has 24 bits; the last ones may be rounded up.
    levels = 2 ** min(bits, 22) - 1
    keys: Tensor = (values - low).mul_(levels / (high - low).clamp(min=1e-30))
    return keys.int()


def _to_exact_keys(values: Float[Tensor, "rows columns"]) -> Int[Tensor, "rows columns"]:
    """Return 64-bit integers in the exact order of the float32 values."""
    # Adding zero makes -0.0 equal to 0.0.
    bits = (values + 0.0).view(torch.int32)
    # The bits of a float, read as an integer, sort like the float once those of negative numbers are inverted.
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).long()


class _RankLoss(torch.autograd.Function):
    """RankSim's loss of directions, with the interpolated gradient of ranks in the backward pass."""

    @staticmethod
    def forward(ctx: Any, directions: Tensor, label_ranks: Tensor, interpolation: float) -> Tensor:
        similarities = pairs.cosine_matrix(directions)
        ranks = _rank_rows(similarities)
        ctx.save_for_backward(directions, similarities, ranks, label_ranks)
        ctx.interpolation = interpolation
        return (ranks - label_ranks).square_().sum() / ranks.shape[1]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        directions, similarities, ranks, label_ranks = ctx.saved_tensors
        # The blackbox gradient: the change of the ranks by a step along the gradient, over the step; 1e-8 is the code's.
        slopes = (ranks - label_ranks).mul_(2 * gradient / ranks.shape[1])
        pushed = slopes.mul_(ctx.interpolation).add_(similarities)
        of_similarities = _rank_rows(pushed).sub_(ranks).div_(ctx.interpolation + 1e-8)
        # s_ij = u_i . u_j: each direction is in its row and in its column. The product is as exact as that of the forward pass.
        both = of_similarities.T.contiguous().add_(of_similarities)
        return pairs.cosine_matrix(both, directions.T), None, None
