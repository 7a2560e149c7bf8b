"""Rank-N-Contrast: pulls a sample closer to another than to all samples with more distant labels.

Zha, Cao, Son, Yang and Katabi, "Rank-N-Contrast: Learning Continuous Representations for Regression", NeurIPS 2023.
Official code: github.com/kaiwenzha/Rank-N-Contrast, `RnCLoss` in `loss.py`. There it trains the encoder alone; as a
regularizer added to a regression loss it is a baseline of ACCon (Zhao et al., AAAI 2025).

The denominators of an anchor are sums over growing sets: with its row sorted by label distance they are one cumulative
log-sum-exp, and so is their gradient. That takes `O(rows log rows)` per anchor where a loop over its pairs takes
`O(rows^2)`.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import blocks, pairs, ranksim

Similarity = Literal["neg_euclidean", "cosine"]

_SPREAD_OF_FLOAT64 = 600.0
"""Maximum difference of the logits of one row: `exp(600)`, 1e260, leaves room for counts and for rounding."""


class RnC(Frozen):
    """Rank-N-Contrast: orders neighbors by label distance (Zha et al., NeurIPS 2023); formula: `rnc`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. The official code has no other loss."""
    tau: float = Field(default=2.0, gt=0)
    """Temperature, in the unit of the similarity. Official: 2 (AgeDB); so in ACCon's comparison."""
    similarity: Similarity = "neg_euclidean"
    """neg_euclidean: minus the distance of the vectors, as in the code; cosine: of the angle between them."""
    label_distance: pairs.LabelDistance = "l1"
    """Distance of labels of several dimensions; l1 (sum over dimensions) is the code's."""
    reads: Literal["representation", "embedding"] = "embedding"
    """Input of the term: embedding (e), as in the code; representation (z)."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return rnc(
            inputs.representations,
            inputs.labels,
            tau=self.tau,
            similarity=self.similarity,
            label_distance=self.label_distance,
        )


def rnc(
    embeddings: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    *,
    tau: float,
    similarity: Similarity = "neg_euclidean",
    label_distance: pairs.LabelDistance = "l1",
) -> Float[Tensor, ""]:
    """Return the mean over all ordered pairs of `log sum_{k in S_ij} exp(s_ik) - s_ij`; 0 for a single row.

    `S_ij = { k != i : d_ik >= d_ij }` holds `j` itself and every row whose label is at least as far from the anchor's;
    `d` is the label distance and `s_ij = -||e_i - e_j|| / tau`, or the cosine over `tau`. Any number of views: each row is
    an anchor, and the other views of its sample are its nearest partners.

    Departures from the official code: (1) sums are computed as logarithms; there they underflow where all partners are
    farther than about `100 tau`, and the loss becomes infinite. (2) Everything is computed in float64, distances from inner
    products; vectors that are equal to that precision (a relative distance of about 1e-7) have distance and gradient 0.
    """
    with pairs.full_precision(embeddings) as e:
        if len(e) < 2:
            return (e * 0.0).sum()
        # With rows sorted by label, each row of label distances is two sorted runs, which are merged in a third of the time.
        order = labels.reshape(len(labels), -1)[:, 0].argsort()
        targets = labels.to(e.dtype)[order]
        wide = e.double()
        # Centering keeps the distances and gives the smallest norms, at which inner products lose least.
        vectors = wide - wide.detach().mean(dim=0) if similarity == "neg_euclidean" else ranksim.normalize_rows(wide)

        def sum_block(anchors: slice, vectors: Tensor) -> Tensor:
            distances = pairs.distance_matrix(targets[anchors], targets, label_distance=label_distance)
            # The anchor itself sorts first, and is dropped there.
            distances.diagonal(anchors.start).fill_(torch.inf)
            logits = _compute_similarities(vectors[anchors], vectors, similarity) / tau
            losses: Tensor = _RankedLosses.apply(logits, distances)
            return losses

        total = blocks.sum_over_anchors(sum_block, vectors[order]) / (len(e) * (len(e) - 1))
        return total.to(e.dtype)


def _compute_similarities(
    anchors: Float[Tensor, "anchors dim"], rows: Float[Tensor, "rows dim"], similarity: Similarity
) -> Float[Tensor, "anchors rows"]:
    products = anchors @ rows.T
    if similarity == "cosine":
        return products
    norms = anchors.square().sum(dim=1)[:, None] + rows.square().sum(dim=1)
    squares = norms - 2 * products
    # A sum of n products is exact to n rounding steps of the sum of their magnitudes.
    resolution = (rows.shape[1] + 4) * torch.finfo(rows.dtype).eps
    equal = squares.detach() <= resolution * norms.detach()
    return -squares.masked_fill(equal, 1.0).sqrt().masked_fill(equal, 0.0)


class _RankedLosses(torch.autograd.Function):
    """Sum over anchors and partners of `log sum_{k in S_ij} exp(s_ik) - s_ij`.

    Partners are sorted from far to near. With `C_p` the log-sum-exp of the first `p` of them, a set of partners at equal
    distance that ends at `p` has the denominator `C_p`; the gradient of `s_q` sums over the ends behind it:
    `dL/ds_q = sum_{ends p >= q} n_p exp(s_q - C_p) - 1`, `n_p` the size of the set. An anchor's distance to itself must be
    infinite.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, distances: Tensor) -> Tensor:
        sorted_distances, order = distances.sort(dim=1, descending=True)
        # The first column is the anchor itself.
        sorted_distances, order = sorted_distances[:, 1:], order[:, 1:]
        sizes = _count_ties_at_ends(sorted_distances).to(logits.dtype)
        logits_in_order = logits.gather(1, order)
        log_sums, shares = _compute_growing_sums(logits_in_order, sizes)
        slopes = torch.zeros_like(logits).scatter_(1, order, shares.sub_(1.0))
        ctx.save_for_backward(slopes)
        return log_sums.mul_(sizes).sum() - logits_in_order.sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None


def _count_ties_at_ends(sorted_values: Float[Tensor, "anchors partners"]) -> Int[Tensor, "anchors partners"]:
    """Return the size of each set of equal values at its last entry, 0 elsewhere."""
    ends = torch.ones_like(sorted_values, dtype=torch.bool)
    ends[:, :-1] = sorted_values[:, 1:] != sorted_values[:, :-1]
    # The last entry of a row is always an end, so that no set reaches over the rows. All on the device: the positions of the
    # ends alone would have a size for which the host must wait.
    flat = ends.flatten()
    positions = torch.arange(len(flat), device=flat.device)
    last = torch.where(flat, positions, -1).cummax(0).values
    before = torch.cat([last.new_full((1,), -1), last[:-1]])
    return torch.where(flat, positions - before, 0).view_as(ends)


def _compute_growing_sums(
    logits: Float[Tensor, "anchors partners"], sizes: Float[Tensor, "anchors partners"]
) -> tuple[Float[Tensor, "anchors partners"], Float[Tensor, "anchors partners"]]:
    """Return `C_p = log sum_{q <= p} exp(s_q)` and `sum_{p >= q} n_p exp(s_q - C_p)`."""
    # Logarithms, which take four times as long, are needed only where one float64 cannot hold the sum of the largest and the
    # smallest term. A GPU always takes them, since the host would wait for the answer.
    peaks = logits.amax(dim=1, keepdim=True)
    if logits.is_cuda or (peaks - logits).max() > _SPREAD_OF_FLOAT64:
        log_sums = logits.logcumsumexp(dim=1)
        # The logarithm is minus infinity where no set ends, and adds nothing to the sum.
        pulls = sizes.log().sub_(log_sums)
        return log_sums, pulls.flip(1).logcumsumexp(dim=1).flip(1).add_(logits).exp_()
    terms = (logits - peaks).exp_()
    sums = terms.cumsum(dim=1)
    shares = (sizes / sums).flip(1).cumsum(dim=1).flip(1).mul_(terms)
    return sums.log_().add_(peaks), shares
