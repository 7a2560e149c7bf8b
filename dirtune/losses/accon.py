"""ACCon: the angle between two representations shall be proportional to the distance of their labels.

Zhao et al., "ACCon: Angle-Compensated Contrastive Regularizer for Deep Regression", AAAI 2025. Official code:
github.com/Haifengtao/ACCon, `ACCon` in `agedb/loss.py` and `sts-b/loss.py`. Total loss: `L_reg + gamma * L_ACCon`.

A negative's similarity is turned by its target angle, so that lowering it pulls the pair to that angle from either side
instead of pushing it apart without end.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor
from torch.autograd.function import once_differentiable

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses.pairs import (
    Reduction,
    cosine_matrix,
    distance_matrix,
    equal_bins,
    full_precision,
    masked_logsumexp,
    negative_log_likelihoods,
    reduce_anchors,
    smoothed_mean,
    without_diagonal,
)

Variant = Literal["official", "official_sts", "paper"]


class ACCon(Frozen):
    """ACCon: pulls the angle of a pair to its label distance (Zhao et al., AAAI 2025); formula: `accon`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 1 (AgeDB, IMDB-WIKI), 10 (STS-B)."""
    tau: float = Field(default=0.05, gt=0)
    """Temperature, without unit. Official: 0.05 (AgeDB, IMDB-WIKI), 1 (STS-B, where the flag has no effect)."""
    epsilon: float = Field(default=1e-6, ge=0)
    """Smoothing term, without unit: added to the squared sine of a pair's angle and, in the official variants, to the mean
    over positives; 0 is the exact formula. Official: 1e-6."""
    variant: Variant = "official"
    """official: negatives over-weighted by `exp(1 / tau)`, as in the code; the default, because the published numbers were
    made with it and it comes nearer to the target angles at small `tau` (6 against 30 degrees off at 0.1 on free vectors);
    official_sts: the STS-B script's form of it (one mean over all positive pairs, each sample also its own positive);
    paper: Eq. 4."""
    reduction: Reduction = "all"
    """all: mean over all anchors, as paper and code; valid: only over those that have a positive."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        return accon(
            inputs.representations,
            inputs.labels,
            inputs.label_bins,
            tau=self.tau,
            label_range=inputs.label_range,
            epsilon=self.epsilon,
            variant=self.variant,
            reduction=self.reduction,
        )

    @model_validator(mode="after")
    def _official_sts_has_no_anchors_to_drop(self) -> ACCon:
        if self.variant == "official_sts" and self.reduction != "all":
            raise ValueError("reduction must be 'all' with variant 'official_sts'")
        return self


def accon(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    label_bins: Int[Tensor, " rows"],
    *,
    tau: float,
    label_range: float,
    epsilon: float,
    variant: Variant,
    reduction: Reduction = "all",
) -> Float[Tensor, ""]:
    """The mean over anchors of `l_i = 1/|P_i| sum_{j in P_i} (log Z_i - c_ij / tau)`, `c` the cosine.

    `P_i` holds the other rows of the anchor's label bin, `N_i` all rows of other bins, and

        Z_i = sum_{P_i} exp(c_ij / tau) + sum_{N_i} exp(t_ij / tau)         [official: exp((t_ij + 1) / tau)]
        t_ij = -cos(theta_ij - delta_ij) = -c_ij cos(delta_ij) - sqrt(1 - c_ij^2 + epsilon) sin(delta_ij)
        delta_ij = pi min(|y_i - y_j| / label_range, 1)

    Labels and `label_range` share a unit; representations must have unit norm. An anchor without positives has `l_i = 0` in
    the paper variant and, by the smoothing below, -1 with zero gradient in the official one.

    Where the official code and the paper differ: (1) the code subtracts the row maximum `1 / tau` from positives only,
    which multiplies every negative term by `exp(1 / tau)`; (2) the code smooths the mean,
    `-( sum_{P_i} log p_ij + epsilon ) / ( |P_i| + epsilon )`; (3) the paper writes epsilon outside of the root, where it
    is a constant that leaves the slope at `|c| = 1` unbounded. Departures from both: (4) epsilon is inside the root in
    every variant, and without it the slope is set to 0 where the angle is below the resolution of the dtype; (5) `|dy|`
    replaces the signed difference, which is the same up to `label_range`; beyond it both fold the target angle back, and
    we clip it at pi; (6) the shift is the constant `1 / tau`, so that the gradient is exact without unit norm, too;
    (7) label bins take the place of equal labels, which are the case of one bin per label.
    """
    with full_precision(representations) as z:
        same = equal_bins(label_bins)
        cosines = cosine_matrix(z)
        angles = target_angles(labels.to(z.dtype), label_range)
        repulsion = compensated_cosines(cosines, angles, epsilon=epsilon)
        shift = 0.0 if variant == "paper" else 1.0  # of the negatives, before the division by tau
        logits = torch.where(same, cosines, repulsion.add_(shift)).div_(tau)
        log_normalizers = masked_logsumexp(logits, without_diagonal(torch.ones_like(same)))
        pooled = variant == "official_sts" and len(z) > 1  # one row has nothing to normalise by
        positives = same if pooled else without_diagonal(same)
        sums, counts = negative_log_likelihoods(logits, log_normalizers, positives)
        if pooled:
            return smoothed_mean(sums.sum(), counts.sum(), smoothing=epsilon)
        losses = smoothed_mean(sums, counts, smoothing=0.0 if variant == "paper" else epsilon)
        return reduce_anchors(losses, counts > 0, reduction)


def target_angles(labels: Float[Tensor, " rows"], label_range: float) -> Float[Tensor, "rows rows"]:
    """`delta_ij = pi min(|y_i - y_j| / label_range, 1)`, in radians; 0 for equal labels even if the range is 0."""
    width = max(label_range, torch.finfo(labels.dtype).tiny)
    return distance_matrix(labels).div_(width).clamp_(max=1.0).mul_(math.pi)


def compensated_cosines(
    cosines: Float[Tensor, "rows columns"], angles: Float[Tensor, "rows columns"], *, epsilon: float
) -> Float[Tensor, "rows columns"]:
    """`t_ij = -c_ij cos(delta_ij) - sqrt(1 - c_ij^2 + epsilon) sin(delta_ij)`; the angles get no gradient.

    Without epsilon it is `-cos(theta_ij - delta_ij)`, lowest where the pair stands at its target angle.
    """
    result: Tensor = _Compensate.apply(cosines, angles, epsilon)
    return result


class _Compensate(torch.autograd.Function):
    """Keeps the slope `dt/dc` for the backward pass instead of the five matrices that autograd would keep.

    Where the root's argument is below the dtype's resolution, the angle has no direction any more, and the slope is 0.
    """

    @staticmethod
    def forward(ctx: Any, cosines: Tensor, angles: Tensor, epsilon: float) -> Tensor:
        resolution = torch.finfo(cosines.dtype).eps
        sines = cosines.square().neg_().add_(1.0 + epsilon)
        blurred = sines < resolution
        sines.clamp_(min=resolution).sqrt_()
        turn, lift = angles.cos(), angles.sin()
        result = (cosines * turn).addcmul_(sines, lift).neg_()
        slopes = lift.mul_(cosines).div_(sines).sub_(turn).masked_fill_(blurred, 0.0)
        ctx.save_for_backward(slopes)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None, None
