"""SupCon for regression: samples of one label bin attract each other, all others repel, whatever their label distance.

The naive baseline of ACCon (Eq. 1 of Zhao et al., AAAI 2025; the loss is that of Khosla et al., NeurIPS 2020, with label
bins as classes). Official code: github.com/Haifengtao/ACCon, `SupConLoss` in `agedb/loss.py` and `sts-b/loss.py`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses.pairs import (
    Reduction,
    cosine_matrix,
    equal_bins,
    full_precision,
    masked_logsumexp,
    negative_log_likelihoods,
    reduce_anchors,
    smoothed_mean,
    without_diagonal,
)


class SupCon(Frozen):
    """Naive SupCon: pulls together equal label bins (ACCon's Eq. 1, after Khosla et al., 2020); formula: `supcon`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. ACCon's code: 1 (AgeDB, IMDB-WIKI), 10 (STS-B)."""
    tau: float = Field(default=0.05, gt=0)
    """Temperature, without unit. ACCon's code: 0.05 (AgeDB, IMDB-WIKI), 1 (STS-B, where its flag has no effect)."""
    epsilon: float = Field(default=1e-5, ge=0)
    """official: smoothing of each anchor's mean, as a number of positives; 0 is the exact mean. Unused by paper."""
    variant: Literal["official", "paper"] = "official"
    """official: the smoothed mean of the code, as the published numbers were made with it; paper: the exact mean."""
    reduction: Reduction = "all"
    """all: mean over all anchors, as paper and code; valid: only over those that have a positive."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return supcon(
            inputs.representations,
            inputs.label_bins,
            tau=self.tau,
            smoothing=self.epsilon if self.variant == "official" else 0.0,
            reduction=self.reduction,
        )


def supcon(
    representations: Float[Tensor, "rows dim"],
    label_bins: Int[Tensor, " rows"],
    *,
    tau: float,
    smoothing: float = 0.0,
    reduction: Reduction = "all",
) -> Float[Tensor, ""]:
    """The mean over anchors of `l_i = -( sum_{j in P_i} log p_ij + a ) / ( |P_i| + a )`, `a` the smoothing.

    `p_ij = exp(c_ij / tau) / sum_{k != i} exp(c_ik / tau)` with the cosine `c`, and `P_i` the other rows of the anchor's
    label bin. Representations must have unit norm. If all labels are equal, the minimum is `log(rows - 1)`.

    An anchor without positives has `l_i = -1` under smoothing (what the official code yields; its gradient is zero) and
    `l_i = 0` without.

    Departures from the official code: (1) label bins take the place of exactly equal labels, which are the case of one
    bin per label; the STS-B script's rounding to 0.1 is the case of bins centred on the tenths. (2) The maximum is
    subtracted inside the log-sum-exp only, so that the gradient is exact without unit norm, too.
    """
    with full_precision(representations) as z:
        logits = cosine_matrix(z).div_(tau)
        positives = without_diagonal(equal_bins(label_bins))
        others = without_diagonal(torch.ones_like(positives))
        sums, counts = negative_log_likelihoods(logits, masked_logsumexp(logits, others), positives)
        losses = smoothed_mean(sums, counts, smoothing=smoothing)
        return reduce_anchors(losses, counts > 0, reduction)
