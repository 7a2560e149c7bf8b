"""ConR: pull samples of similar labels together, push away those that only the predictions take for similar.

Keramati, Meng and Evans, "ConR: Contrastive Regularizer for Deep Imbalanced Regression", ICLR 2024. Official code:
github.com/BorealisAI/ConR, `agedb-dir/loss.py`, `imdb-wiki-dir/loss.py`. Total loss: `alpha * L_R + beta * L_ConR`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses.pairs import (
    cosine_matrix,
    distance_matrix,
    full_precision,
    logsumexp,
    negative_log_likelihoods,
    smoothed_mean,
    without_diagonal,
)

Pushing = Literal["exp", "linear", "none"]
Form = Literal["official", "paper"]


class ConR(Frozen):
    """ConR: pushes apart what is predicted alike but labelled apart (Keramati et al., ICLR 2024); formula: `conr`."""

    beta: float = Field(default=4.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 4 (AgeDB, IMDB-WIKI), 0.2 (NYUD2)."""
    omega: float = Field(default=1.0, ge=0)
    """Similarity window for labels and predictions, in the label's unit. Official: 1 year (AgeDB, IMDB-WIKI), 0.2 m
    (NYUD2)."""
    tau: float = Field(default=0.07, gt=0)
    """Temperature, without unit. Effective in the official code: 0.07 (AgeDB, whatever its flag says; IMDB-WIKI), 0.2
    (NYUD2)."""
    push_power: float = Field(default=0.01, ge=0)
    """The pushing weight's growth with the label distance, per label unit; 0 with pushing `exp`: the sample weight alone.
    Official ("e"): 0.01 (AgeDB, IMDB-WIKI), 0.2 (NYUD2)."""
    pushing: Pushing = "exp"
    """Pushing weight of a negative: `exp` `w_i exp(e D_ij)` (AgeDB, IMDB-WIKI), `linear` `w_i e D_ij` (NYUD2), `none` 1."""
    variant: Form = "official"
    """official: with the two additions of the code, the default because the published numbers were made with them; paper:
    without. It sets the two switches below, which separate them."""
    denominator: Form | None = None
    """official: every non-positive, the anchor included, adds one to the denominator; paper: nothing is added; none: as
    `variant` says."""
    outer_weight: bool | None = None
    """Whether the anchor's sample weight multiplies its loss as well; none: official does, paper does not."""

    @property
    def weight(self) -> float:
        return self.beta

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        is_official = self.variant == "official"
        return conr(
            inputs.representations,
            inputs.labels,
            inputs.predictions,
            inputs.weights,
            omega=self.omega,
            tau=self.tau,
            push_power=self.push_power,
            pushing=self.pushing,
            denominator=self.denominator or self.variant,
            outer_weight=is_official if self.outer_weight is None else self.outer_weight,
        )


def conr(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    predictions: Float[Tensor, " rows"],
    weights: Float[Tensor, " rows"],
    *,
    omega: float,
    tau: float,
    push_power: float,
    pushing: Pushing,
    denominator: Form,
    outer_weight: bool,
) -> Float[Tensor, ""]:
    """The mean over all anchors of `l_i = 1/|P_i| sum_{j in P_i} (log Z_i - s_ij)`, times `w_i` under `outer_weight`.

    With the cosine `c`, `s_ij = c_ij / tau`, the distances of labels `D_ij` and of predictions `Q_ij`:

        P_i = { j != i : D_ij <= omega }              N_i = { j : D_ij > omega and Q_ij <= omega }
        Z_i = sum_{P_i} exp(s_ij) + sum_{N_i} S_ij exp(s_ij)     [+ rows - |P_i|, official denominator]
        S_ij = w_i exp(e D_ij), or w_i e D_ij, or 1              (e = push_power)

    An anchor without negatives or without positives contributes 0 and still counts in the mean. Predictions only select
    the negatives and get no gradient. Representations must have unit norm.

    Where the official code and the paper differ: (1) the code masks logits before the exponential, so that every
    non-positive adds `exp(0)` to `Z_i`; (2) the code multiplies by the weight a second time, outside of the logarithm.
    Departures from the official code: (3) an anchor without positives gives 0 instead of NaN; (4) everything is
    evaluated in one log-sum-exp, so that no temperature overflows.
    """
    with full_precision(representations) as z:
        labels, predictions, weights = (v.to(z.dtype) for v in (labels, predictions, weights))
        distances = distance_matrix(labels)
        similar = distances <= omega
        positives = without_diagonal(similar)
        negatives = ~similar & (distance_matrix(predictions) <= omega)
        pushes = _log_pushes(distances, weights, push_power=push_power, pushing=pushing)
        logits = cosine_matrix(z).div_(tau).add_(_offsets(pushes, positives, negatives))
        log_normalizers = logsumexp(logits)
        if denominator == "official":
            padding = (~positives).sum(dim=1).to(z.dtype)  # at least 1: the anchor itself
            log_normalizers = torch.logaddexp(log_normalizers, padding.log())
        sums, counts = negative_log_likelihoods(logits, log_normalizers, positives)
        losses = smoothed_mean(sums, counts, smoothing=0.0)
        losses = losses * weights if outer_weight else losses
        return torch.where((counts > 0) & negatives.any(dim=1), losses, 0.0).mean()


def _log_pushes(
    distances: Float[Tensor, "rows rows"],
    weights: Float[Tensor, " rows"],
    *,
    push_power: float,
    pushing: Pushing,
) -> Float[Tensor, "rows #rows"]:
    """`log S_ij`, minus infinity where the pushing weight is 0 (harmless: the diagonal keeps every row finite)."""
    if pushing == "none":
        return torch.zeros_like(weights)[:, None]
    log_weights = weights.log()[:, None]
    if pushing == "exp":
        return log_weights + push_power * distances
    return log_weights + (push_power * distances).log()


def _offsets(
    pushes: Float[Tensor, "rows #rows"],
    positives: Bool[Tensor, "rows rows"],
    negatives: Bool[Tensor, "rows rows"],
) -> Float[Tensor, "rows rows"]:
    """What is added to a pair's logit: 0 for positives, `log S` for negatives, a huge negative number for the rest."""
    lowest = torch.finfo(pushes.dtype).min
    return torch.where(negatives, pushes, lowest).masked_fill_(positives, 0.0)
