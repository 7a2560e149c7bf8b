"""ACCon+ConR in one term: ConR's choice of pairs, with negatives that are drawn to their target angle.

The row "ACCon+ConR" of Table 2 of Zhao et al., "ACCon: Angle-Compensated Contrastive Regularizer for Deep Regression", AAAI
2025. Official code: github.com/Haifengtao/ACCon, `acConR` in `agedb/loss.py`; the training script calls it without
arguments and fails, so that the settings behind the published row are not known. The sum of the two terms is another
method: `terms: {accon: ..., conr: ...}`.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.losses import accon, blocks, conr, pairs
from dirtune.losses.temperature import Tau, expand_temperatures

Variant = Literal["official", "paper"]


class ACConR(conr.PairTerm):
    """ACCon+ConR: ConR's pairs, the negatives drawn to their target angle (Zhao et al., AAAI 2025); formula: `acconr`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Not published; ACCon alone: 1, ConR alone: 4 (AgeDB)."""
    epsilon: float = Field(default=1e-6, ge=0)
    """Smoothing term, without unit: added to the squared sine of a pair's angle; 0 is the exact formula. Official: 1e-6."""
    variant: Variant = "paper"
    """paper: the default, because in the official form most negatives have no gradient; official: the code, which clamps
    `c / tau` where the cosine `c` is meant, so that every negative with `|c| > tau` counts as an angle of 0 or pi. It
    also sets pushing, denominator and outer_weight."""
    pushing: Literal["exp", "none"] | None = None
    """Pushing weight of a negative: exp `w_i exp(e D_ij)`; none 1; null: none in official, else exp."""

    @property
    def weight(self) -> float:
        return self.gamma

    def evaluate_at(self, inputs: TermInputs, tau: Tau, *, rho: float | None = None) -> Float[Tensor, ""]:
        is_official = self.variant == "official"
        return acconr(
            inputs.representations,
            inputs.labels,
            inputs.predictions,
            inputs.weights,
            label_range=inputs.label_range,
            omega=self.omega,
            tau=tau,
            push_power=self.push_power,
            epsilon=self.epsilon,
            pushing=self.pushing or ("none" if is_official else "exp"),
            denominator=self.denominator or self.variant,
            outer_weight=is_official if self.outer_weight is None else self.outer_weight,
            clamps_logits=is_official,
            label_distance=self.label_distance,
            rho=rho,
        )

    @model_validator(mode="after")
    def _check_pushing(self) -> "ACConR":
        if self.variant == "official" and self.pushing == "exp":
            raise ValueError("pushing must be 'none' with variant 'official'")
        return self


def acconr(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    predictions: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"],
    *,
    label_range: float,
    omega: float,
    tau: Tau,
    push_power: float,
    epsilon: float,
    pushing: Literal["exp", "none"],
    denominator: conr.Denominator,
    outer_weight: bool,
    clamps_logits: bool = False,
    label_distance: pairs.LabelDistance = "l2",
    rho: float | None = None,
) -> Float[Tensor, ""]:
    """Return ConR's mean over anchors, `l_i = 1/|P_i| sum_{j in P_i} (log Z_i - c_ij / tau_i)`, with

        Z_i = sum_{P_i} exp(c_ij / tau_i) + sum_{N_i} S_ij exp(t_ij / tau_i)   [+ rows - |P_i|, official denominator]

    `P_i`, `N_i`, `S_ij`, the switches and the treatment of anchors without partners are those of
    `dirtune.losses.conr.conr`; `t_ij`, the similarity turned by the target angle `pi min(D_ij / label_range, 1)`, is that of
    `dirtune.losses.accon.compensate_cosines`. Labels, `omega` and `label_range` share a unit; representations must have
    unit norm.

    This is ACCon's one idea put into ConR. Where the official code differs from it: (1) it turns `c_ij / tau`, clamped to
    [-1, 1], in place of `c_ij` (`clamps_logits`), which leaves negatives with `|c_ij| > tau` without a gradient; (2) it has
    no pushing weight. Departures from the code: (3) beyond `label_range` the target angle remains pi, where the code folds
    it back; (4) those of `conr`.
    """
    with pairs.full_precision(representations) as z:
        labels, predictions, weights = (values.detach().to(z.dtype) for values in (labels, predictions, weights))

        def sum_block(anchors: slice, z: Tensor, taus: Tensor) -> Tensor:
            positives, negatives, offsets = conr.select_pairs(
                anchors,
                labels,
                predictions,
                weights,
                omega=omega,
                push_power=push_power,
                pushing=pushing,
                label_distance=label_distance,
            )
            cosines, scales = pairs.cosine_matrix(z[anchors], z), taus[anchors, None]
            # The code clamps the logit where the cosine is meant; beyond the clamp there is no gradient.
            compensated = accon.compensate_cosines(
                (cosines / scales).clamp(-1.0, 1.0) if clamps_logits else cosines,
                accon.compute_target_angles(labels, label_range, anchors, label_distance=label_distance),
                epsilon=epsilon,
            )
            logits = offsets.add_(torch.where(negatives, compensated, cosines) / scales)
            losses = conr.compute_anchor_losses(
                logits, positives, negatives, taus[anchors], denominator=denominator, rho=rho
            )
            return (losses * weights[anchors] if outer_weight else losses).sum()

        return blocks.sum_over_anchors(sum_block, z, expand_temperatures(tau, z)) / len(z)
