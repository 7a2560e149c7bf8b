"""SupCon for regression: samples of one label bin attract each other, all others repel, at any label distance.

The naive baseline of ACCon (Eq. 1 of Zhao et al., AAAI 2025; the loss is that of Khosla et al., NeurIPS 2020, with label
bins as classes). Official code: github.com/Haifengtao/ACCon, `SupConLoss` in `agedb/loss.py` and `sts-b/loss.py`.
"""

from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Added
from dirtune.losses import blocks, pairs
from dirtune.losses.pairs import Positives, Reduction
from dirtune.losses.temperature import Tau, TemperedTerm, compute_robust_sums, expand_temperatures

Similarity = Literal["cosine", "neg_euclidean"]


class BinTerm(TemperedTerm):
    """Settings of the terms whose positives are the other rows of the anchor's label bin."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. ACCon's code: 1 (AgeDB, IMDB-WIKI), 10 (STS-B)."""
    tau: float = Field(default=0.05, gt=0)
    """Temperature, without unit; where it is learned, its starting value. ACCon's code: 0.05 (AgeDB, IMDB-WIKI), 1
    (STS-B, where its flag has no effect)."""
    reduction: Reduction = "all"
    """all: mean over all anchors, as paper and code; valid: only over those that have a positive."""
    positives: Positives = "each"
    """each: one logarithm per positive, as paper and code; joint: one for all of them."""
    label_decimals: Annotated[int | None, Added()] = Field(default=None, ge=0)
    """Decimals to which labels are rounded before they are compared: positives have equal rounded labels. null: they are of
    one label bin. ACCon's code on STS-B: 1."""

    @property
    def weight(self) -> float:
        return self.gamma

    def find_classes(self, inputs: TermInputs) -> Int[Tensor, " rows"]:
        """Return one number per row, equal for rows that are positives of each other."""
        return pairs.find_label_classes(inputs.labels, inputs.label_bins, self.label_decimals)


class SupCon(BinTerm):
    """Naive SupCon: pulls together equal label bins (ACCon's Eq. 1, after Khosla et al., 2020); formula: `supcon`."""

    epsilon: float = Field(default=1e-5, ge=0)
    """official: smoothing of each anchor's mean, as a number of positives; 0 is the exact mean. Unused by paper and by
    joint positives."""
    variant: Literal["official", "paper"] = "official"
    """official: the smoothed mean of the code, as the published numbers were made with it; paper: the exact mean."""
    similarity: Similarity = "cosine"
    """cosine: as paper and code; neg_euclidean: the negative distance, as in Rank-N-Contrast (Zha et al., NeurIPS 2023),
    where `tau` has the unit of a distance (there 2)."""

    def evaluate_at(self, inputs: TermInputs, tau: Tau, *, rho: float | None = None) -> Float[Tensor, ""]:
        return supcon(
            inputs.representations,
            self.find_classes(inputs),
            tau=tau,
            smoothing=self.epsilon if self.variant == "official" else 0.0,
            reduction=self.reduction,
            similarity=self.similarity,
            positives=self.positives,
            rho=rho,
        )


def supcon(
    representations: Float[Tensor, "rows dim"],
    label_bins: Int[Tensor, " rows"],
    *,
    tau: Tau,
    smoothing: float = 0.0,
    reduction: Reduction = "all",
    similarity: Similarity = "cosine",
    positives: Positives = "each",
    rho: float | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over anchors of `l_i = -( sum_{j in P_i} log p_ij + a ) / ( |P_i| + a )`, `a` the smoothing.

    `p_ij = exp(s_ij / tau_i) / sum_{k != i} exp(s_ik / tau_i)`, and `P_i` the other rows of the anchor's label bin. The
    similarity `s_ij` is the cosine, for which representations must have unit norm, or `-||z_i - z_j||`. If all labels are
    equal, the minimum is `log(rows - 1)`.

    An anchor without positives has `l_i = -1` under smoothing (as in the official code; its gradient is zero) and
    `l_i = 0` without.

    Departures from the official code: (1) label bins replace exactly equal labels, which are the case of one bin per
    label; the STS-B script's rounding to 0.1 is `label_decimals`. (2) The maximum is subtracted
    inside the log-sum-exp only, so that the gradient is exact without unit norm, too.

    Adaptations of others' ideas, each off by default: (3) similarity `neg_euclidean`; equal representations get no
    gradient from each other. (4) `joint` positives, `l_i = -log sum_{j in P_i} p_ij`, without smoothing: `L_in` of Khosla
    et al. up to its `log |P_i|`, and MV-InfoNCE (Koromilas et al., 2025, arXiv 2507.06979) with the rows of a label bin as
    views and one logarithm per anchor instead of one for all views of a sample. (5) A temperature per anchor and the
    robust form with `rho`: `compute_robust_sums`.
    """
    smoothing = smoothing if positives == "each" else 0.0

    def sum_block(anchors: slice, z: Tensor, taus: Tensor) -> Tensor:
        if similarity == "neg_euclidean":
            logits = pairs.euclidean_matrix(z[anchors], z) / -taus[anchors, None]
        else:
            # Dividing the vectors instead of the matrix of their products is the same, and cheap.
            logits = pairs.cosine_matrix(z[anchors] / taus[anchors, None], z)
        same = pairs.compare_bins(label_bins[anchors], label_bins)
        sums, counts = pairs.sum_likelihoods_among_others(
            logits, pairs.remove_self(same, anchors), anchors, form=positives
        )
        sums = compute_robust_sums(sums, counts, taus[anchors], num_others=len(z) - 1, rho=rho)
        losses = pairs.compute_smoothed_mean(sums, counts, smoothing=smoothing)
        return pairs.sum_anchors(losses, counts > 0, reduction)

    with pairs.full_precision(representations) as z:
        total = blocks.sum_over_anchors(sum_block, z, expand_temperatures(tau, z))
        return total / pairs.count_anchors(label_bins, reduction)
