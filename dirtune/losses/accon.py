"""ACCon: the angle between two representations is pulled to a multiple of the distance of their labels.

Zhao et al., "ACCon: Angle-Compensated Contrastive Regularizer for Deep Regression", AAAI 2025. Official code:
github.com/Haifengtao/ACCon, `ACCon` in `agedb/loss.py` and `sts-b/loss.py`. Total loss: `L_reg + gamma * L_ACCon`.

A negative's similarity is turned by its target angle, so that lowering it pulls the pair to that angle from either side
instead of pushing it apart without a limit.
"""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.losses import blocks, pairs, supcon
from dirtune.losses.pairs import LabelDistance, Positives, Reduction
from dirtune.losses.temperature import Tau, compute_robust_sums, expand_temperatures

Variant = Literal["official", "official_sts", "paper"]
EpsilonAt = Literal["inside", "outside"]


class ACCon(supcon.BinTerm):
    """ACCon: pulls the angle of a pair to its label distance (Zhao et al., AAAI 2025); formula: `accon`."""

    epsilon: float = Field(default=1e-6, ge=0)
    """Smoothing term, without unit: added to the squared sine of a pair's angle and, in the official variants, to the mean
    over positives; 0 is the exact formula. Official: 1e-6."""
    epsilon_at: EpsilonAt = "inside"
    """inside: epsilon is added inside the root, as in the code, the default because there it bounds the slope; outside: it is
    added to the root, as the paper prints it, where it is a constant without effect on the slope."""
    variant: Variant = "official"
    """official: negatives over-weighted by `exp(1 / tau)`, as in the code; the default, because the published numbers were
    made with it and it gets closer to the target angles at small `tau` (6 against 30 degrees off at 0.1 on free vectors);
    official_sts: the STS-B script's form of it (one mean over all positive pairs, each sample also its own positive);
    paper: Eq. 4."""
    label_distance: LabelDistance = "l2"
    """Distance of labels of several dimensions; labels of paper and code have one dimension."""

    def evaluate_at(self, inputs: TermInputs, tau: Tau, *, rho: float | None = None) -> Float[Tensor, ""]:
        return accon(
            inputs.representations,
            inputs.labels,
            self.find_classes(inputs),
            tau=tau,
            label_range=inputs.label_range,
            epsilon=self.epsilon,
            epsilon_at=self.epsilon_at,
            variant=self.variant,
            reduction=self.reduction,
            positives=self.positives,
            label_distance=self.label_distance,
            rho=rho,
        )

    @model_validator(mode="after")
    def _check_official_sts(self) -> "ACCon":
        for key, only in (("reduction", "all"), ("positives", "each")):
            if self.variant == "official_sts" and getattr(self, key) != only:
                raise ValueError(f"{key} must be {only!r} with variant 'official_sts'")
        return self


def accon(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    label_bins: Int[Tensor, " rows"],
    *,
    tau: Tau,
    label_range: float,
    epsilon: float,
    variant: Variant,
    epsilon_at: EpsilonAt = "inside",
    reduction: Reduction = "all",
    positives: Positives = "each",
    label_distance: LabelDistance = "l2",
    rho: float | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over anchors of `l_i = 1/|P_i| sum_{j in P_i} (log Z_i - c_ij / tau_i)`, `c` the cosine.

    `P_i` holds the other rows of the anchor's label bin, `N_i` all rows of other bins, and

        Z_i = sum_{P_i} exp(c_ij / tau_i) + sum_{N_i} exp(t_ij / tau_i)     [official: exp((t_ij + 1) / tau_i)]
        t_ij = -cos(theta_ij - delta_ij) = -c_ij cos(delta_ij) - sqrt(1 - c_ij^2 + epsilon) sin(delta_ij)
        delta_ij = pi min(|y_i - y_j| / label_range, 1)

    Labels and `label_range` share a unit; representations must have unit norm. An anchor without positives has `l_i = 0` in
    the paper variant and, by the smoothing below, -1 with zero gradient in the official one.

    Where the official code and the paper differ: (1) the code subtracts the row maximum `1 / tau` from positives only,
    which multiplies every negative term by `exp(1 / tau)`; (2) the code smooths the mean,
    `-( sum_{P_i} log p_ij + epsilon ) / ( |P_i| + epsilon )`; (3) the paper writes epsilon outside of the root, where it
    is a constant that leaves the slope at `|c| = 1` unbounded (`epsilon_at`). Departures from both: (4) without an epsilon
    inside the root, the slope is 0 where the angle is below the resolution of the dtype; (5) `|dy|` replaces the signed
    difference, which is the same up to `label_range`; beyond it both fold the target angle back, here it is clipped at pi;
    (6) the shift is the constant `1 / tau`, so that the gradient is exact without unit norm, too; (7) label bins replace
    equal labels, which are the case of one bin per label.

    Adaptations, each off by default: (8) for labels of several dimensions `|dy|` is their `label_distance`; (9) `joint`
    positives, `l_i = log Z_i - log sum_{P_i} exp(c_ij / tau_i)`, without smoothing, as in `supcon`; (10) a temperature per
    anchor and the robust form with `rho`: `compute_robust_sums`.
    """
    # A single row has no partner to normalize by.
    pooled = variant == "official_sts" and len(labels) > 1
    smoothing = 0.0 if variant == "paper" or positives == "joint" else epsilon
    # The code subtracts the row maximum from positives only; adding it to negatives is the same.
    shift = 0.0 if variant == "paper" else 1.0

    def sum_block(anchors: slice, z: Tensor, taus: Tensor) -> Tensor:
        same = pairs.compare_bins(label_bins[anchors], label_bins)
        angles = compute_target_angles(labels.to(z.dtype), label_range, anchors, label_distance=label_distance)
        cosines = pairs.cosine_matrix(z[anchors], z)
        repulsion = compensate_cosines(cosines, angles, epsilon=epsilon, epsilon_at=epsilon_at).add_(shift)
        logits = torch.where(same, cosines, repulsion) / taus[anchors, None]
        sums, counts = pairs.sum_likelihoods_among_others(
            logits, same if pooled else pairs.remove_self(same, anchors), anchors, form=positives
        )
        sums = compute_robust_sums(sums, counts, taus[anchors], num_others=len(z) - 1, rho=rho)
        if pooled:
            return sums.sum()
        losses = pairs.compute_smoothed_mean(sums, counts, smoothing=smoothing)
        return pairs.sum_anchors(losses, counts > 0, reduction)

    with pairs.full_precision(representations) as z:
        total = blocks.sum_over_anchors(sum_block, z, expand_temperatures(tau, z))
        if pooled:
            num_pairs = pairs.count_bin_members(label_bins).sum().to(z.dtype)
            return pairs.compute_smoothed_mean(total, num_pairs, smoothing=epsilon)
        return total / pairs.count_anchors(label_bins, reduction)


def compute_target_angles(
    labels: Float[Tensor, "rows *label"],
    label_range: float,
    anchors: slice | None = None,
    *,
    label_distance: LabelDistance = "l2",
) -> Float[Tensor, "anchors rows"]:
    """Return `delta_ij = pi min(|y_i - y_j| / label_range, 1)`, in radians; 0 for equal labels even if the range is 0.

    Args:
        labels: in the unit of `label_range`.
        label_range: width of the labels' range.
        anchors: the rows of the result; None means all.
        label_distance: of labels of several dimensions.
    """
    # In a range of 0 all labels are equal, and 0 / tiny is the angle 0.
    width = max(label_range, torch.finfo(labels.dtype).tiny)
    distances = pairs.distance_matrix(labels[anchors or slice(None)], labels, label_distance=label_distance)
    return distances.div_(width).clamp_(max=1.0).mul_(math.pi)


def compensate_cosines(
    cosines: Float[Tensor, "rows columns"],
    angles: Float[Tensor, "rows columns"],
    *,
    epsilon: float,
    epsilon_at: EpsilonAt = "inside",
) -> Float[Tensor, "rows columns"]:
    """Return `t_ij = -c_ij cos(delta_ij) - sqrt(1 - c_ij^2 + epsilon) sin(delta_ij)`; the angles get no gradient.

    With epsilon outside, the root's factor is `sqrt(1 - c_ij^2) + epsilon`. Without epsilon it is
    `-cos(theta_ij - delta_ij)`, lowest where the pair is at its target angle.
    """
    is_inside = epsilon_at == "inside"
    result: Tensor = _Compensate.apply(cosines, angles, epsilon if is_inside else 0.0)
    return result if is_inside else result - epsilon * angles.sin()


class _Compensate(torch.autograd.Function):
    """Compensated cosines that keep the slope `dt/dc` for the backward pass, where autograd would keep five matrices.

    Where the root's argument is below the dtype's resolution, the angle has no direction any more, and the slope is 0.
    """

    @staticmethod
    def forward(ctx: Any, cosines: Tensor, angles: Tensor, epsilon: float) -> Tensor:
        resolution = torch.finfo(cosines.dtype).eps
        sines = cosines.square().neg_().add_(1.0 + epsilon)
        # Marked before the clamp, which only keeps the division below finite.
        blurred = sines < resolution
        sines.clamp_(min=resolution).sqrt_()
        turn, lift = angles.cos(), angles.sin()
        result = (cosines * turn).addcmul_(sines, lift).neg_()
        slopes = lift.mul_(cosines).div_(sines).sub_(turn).masked_fill_(blurred, 0.0)
        ctx.save_for_backward(slopes)
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return gradient * slopes, None, None
