"""Multi-Similarity: hard pairs are mined by their relative similarity, then weighted by their hardness.

Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019. Official code:
github.com/msight-tech/research-ms-loss, `ret_benchmark/losses/multi_similarity_loss.py`. A loss for classes, here adapted to
regression with label bins as the classes, as SupCon is: a baseline that mines pairs, but ignores label distances.
"""

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import blocks, pairs


class MultiSimilarity(Frozen):
    """Multi-Similarity: mines and weights pairs of label bins (Wang et al., CVPR 2019); formula: `multi_similarity`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. In the paper it is the only loss."""
    alpha: float = Field(default=2.0, gt=0)
    """Sharpness of the weighting of positives, per unit of cosine; towards 0 all weigh alike. Paper and code: 2."""
    beta: float = Field(default=50.0, gt=0)
    """Sharpness of the weighting of negatives, per unit of cosine. Paper: 50; code: 40 (CUB)."""
    threshold: float = Field(default=0.5, ge=-1, le=1)
    """The paper's lambda, a cosine: positives below it and negatives above it weigh most. Code: 0.5."""
    margin: float | None = Field(default=0.1, ge=0)
    """The paper's epsilon, a cosine: a mined pair may be easier by this than the hardest pair of the other kind; above 2 all
    pairs are mined of anchors that have both kinds; null: no mining. Paper and code: 0.1."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return multi_similarity(
            inputs.representations,
            inputs.label_bins,
            alpha=self.alpha,
            beta=self.beta,
            threshold=self.threshold,
            margin=self.margin,
        )


def multi_similarity(
    representations: Float[Tensor, "rows dim"],
    label_bins: Int[Tensor, " rows"],
    *,
    alpha: float,
    beta: float,
    threshold: float,
    margin: float | None,
) -> Float[Tensor, ""]:
    """Return the mean over all anchors of

        l_i =   1/alpha log(1 + sum_{j in P_i} exp(-alpha (c_ij - threshold)))
              + 1/beta  log(1 + sum_{j in N_i} exp(  beta (c_ij - threshold)))

    with the cosine `c`. Before mining, `P_i` holds the other rows of the anchor's label bin and `N_i` all rows of other bins;
    mining keeps the pairs that are hard relative to the hardest pair of the other kind:

        P_i = { j : c_ij < max_{k in N_i} c_ik + margin }      N_i = { j : c_ij > min_{k in P_i} c_ik - margin }

    so that an anchor that lacks either kind contributes 0; without mining (no margin) all its pairs remain. Every anchor
    counts in the mean. Representations must have unit norm.

    Departures from the official code: (1) label bins replace classes; (2) the anchor itself is left out by its position,
    not by a cosine beyond `1 - 1e-5`, so that true duplicates remain positives; (3) an anchor without positives or
    negatives gives 0 instead of an error.
    """
    with pairs.full_precision(representations) as z:

        def sum_block(anchors: slice, z: Tensor) -> Tensor:
            cosines = pairs.cosine_matrix(z[anchors], z)
            same = pairs.compare_bins(label_bins[anchors], label_bins)
            positives, negatives = pairs.remove_self(same, anchors), ~same
            if margin is not None:
                # A row without pairs of a kind has none of the other kind either: its extreme is infinite.
                # Mining is a selection, so that no gradient flows through it.
                fixed = cosines.detach()
                least_similar = torch.where(positives, fixed, torch.inf).amin(dim=1, keepdim=True)
                most_similar = torch.where(negatives, fixed, -torch.inf).amax(dim=1, keepdim=True)
                positives = positives & (fixed < most_similar + margin)
                negatives = negatives & (fixed > least_similar - margin)
            pulls = _compute_soft_counts((threshold - cosines).mul_(alpha), positives) / alpha
            pushes = _compute_soft_counts((cosines - threshold).mul_(beta), negatives) / beta
            return (pulls + pushes).sum()

        return blocks.sum_over_anchors(sum_block, z) / len(z)


def _compute_soft_counts(
    exponents: Float[Tensor, "anchors rows"], mask: Bool[Tensor, "anchors rows"]
) -> Float[Tensor, " anchors"]:
    """Return `log(1 + sum_{j in mask_i} exp(exponents_ij))`, 0 for an empty row."""
    sums = pairs.masked_logsumexp(exponents, mask)
    return torch.logaddexp(sums, torch.zeros_like(sums))
