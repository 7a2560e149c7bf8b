"""ConR: pulls samples of similar labels together, pushes away those with similar predictions but different labels.

Keramati, Meng and Evans, "ConR: Contrastive Regularizer for Deep Imbalanced Regression", ICLR 2024. Official code:
github.com/BorealisAI/ConR, `agedb-dir/loss.py`, `imdb-wiki-dir/loss.py`, `nyud2-dir/ConR.py`. Total loss:
`alpha * L_R + beta * L_ConR`.

Pair matrices dominate the cost of this term, so operations are in place where possible, and large batches are evaluated a
block of anchors at a time: 8,192 rows of 128 dimensions take 20 MiB in float32, their gradient included.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.losses import blocks, pairs, units
from dirtune.losses.temperature import Tau, TemperedTerm, compute_robust_sums, expand_temperatures

Pushing = Literal["exp", "linear", "none"]
Denominator = Literal["official", "paper"]


class PairTerm(TemperedTerm):
    """The settings of ConR's choice of pairs, for the terms that build on it."""

    omega: Annotated[float, units.InBins()] = Field(default=1.0, ge=0)
    """Similarity window for labels and predictions, in the label's unit; not given: one label bin. ConR's and ACCon's code:
    1 year (AgeDB, IMDB-WIKI); ConR's: 0.2 m (NYUD2)."""
    tau: float = Field(default=0.07, gt=0)
    """Temperature, without unit; where it is learned, its starting value. Effective in both codes: 0.07 (AgeDB, whatever
    their flags say; IMDB-WIKI); in ConR's: 0.2 (NYUD2)."""
    push_power: Annotated[float, units.InBins(power=-1)] = Field(default=0.01, ge=0)
    """The pushing weight's growth with the label distance, per label unit; not given: 0.01 per label bin. 0 with pushing
    `exp`: the sample weight alone; unused with pushing `none`. ConR's code ("e"): 0.01 (AgeDB, IMDB-WIKI), 0.2 (NYUD2)."""
    label_distance: pairs.LabelDistance = "l2"
    """Distance of labels, and of predictions, of several dimensions; the code for gaze labels was never released."""
    denominator: Denominator | None = None
    """official: every non-positive, the anchor included, adds one to the denominator; paper: nothing is added; null: as
    `variant` says (nyu: official)."""
    outer_weight: bool | None = None
    """True: the anchor's sample weight multiplies its loss as well; null: true in the variant official only."""


class ConR(PairTerm):
    """ConR: pushes apart similar predictions of different labels (Keramati et al., ICLR 2024); formula: `conr`."""

    beta: float = Field(default=4.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. Official: 4 (AgeDB, IMDB-WIKI), 0.2 (NYUD2)."""
    variant: Literal["official", "official_sts", "nyu", "paper"] = "official"
    """official: the code of AgeDB and IMDB-WIKI, the default because the published numbers were made with it; official_sts:
    the same as in ACCon's code for STS-B, which rounds to 0.1, compares labels in their unit but predictions divided by the
    label scale, and has no sample weights (it adds its weight of 10 twice: beta 20); nyu: the code of NYUD2, for one label,
    prediction and weight per image, the means of its maps; paper: without the additions of the code. It sets pushing,
    denominator and outer_weight, which separate them."""
    pushing: Pushing | None = None
    """Pushing weight of a negative: exp `w_i exp(e D_ij)`; linear `w_i e D_ij`; none 1; null: linear in nyu, else exp."""

    @property
    def weight(self) -> float:
        return self.beta

    def evaluate_at(self, inputs: TermInputs, tau: Tau, *, rho: float | None = None) -> Float[Tensor, ""]:
        is_official = self.variant in ("official", "official_sts")
        labels, predictions, weights = inputs.labels, inputs.predictions, inputs.weights
        if self.variant == "official_sts":
            labels, predictions = (
                torch.round(values, decimals=1) for values in (labels, predictions / inputs.label_scale)
            )
            weights = torch.ones_like(weights)
        return conr(
            inputs.representations,
            labels,
            predictions,
            weights,
            omega=self.omega,
            tau=tau,
            push_power=self.push_power,
            pushing=self._pushing,
            denominator=self.denominator or ("paper" if self.variant == "paper" else "official"),
            outer_weight=is_official if self.outer_weight is None else self.outer_weight,
            counts_self=self.variant == "nyu",
            label_distance=self.label_distance,
            rho=rho,
        )

    @property
    def _pushing(self) -> Pushing:
        return self.pushing or ("linear" if self.variant == "nyu" else "exp")

    @model_validator(mode="after")
    def _check_push_power(self) -> "ConR":
        if self._pushing == "linear" and self.push_power == 0:
            raise ValueError("push_power must be positive with pushing 'linear'")
        return self


def conr(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "rows *label"],
    predictions: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"],
    *,
    omega: float,
    tau: Tau,
    push_power: float,
    pushing: Pushing,
    denominator: Denominator,
    outer_weight: bool,
    counts_self: bool = False,
    label_distance: pairs.LabelDistance = "l2",
    rho: float | None = None,
) -> Float[Tensor, ""]:
    """Return the mean over all anchors of `l_i = 1/|P_i| sum_{j in P_i} (log Z_i - s_ij)`, times `w_i` under `outer_weight`.

    With the cosine `c`, `s_ij = c_ij / tau_i`, the distances of labels `D_ij` and of predictions `Q_ij`:

        P_i = { j != i : D_ij <= omega }              N_i = { j : D_ij > omega and Q_ij <= omega }
        Z_i = sum_{P_i} exp(s_ij) + sum_{N_i} S_ij exp(s_ij)     [+ rows - |P_i|, official denominator]
        S_ij = w_i exp(e D_ij), or w_i e D_ij, or 1              (e = push_power)

    Under `counts_self` the mean over positives divides by `|P_i| + 1`. An anchor without negatives or without positives
    contributes 0 and still counts in the mean. Predictions only select the negatives and get no gradient. Representations
    must have unit norm.

    Where the official code and the paper differ: (1) the code masks logits before the exponential, so that every
    non-positive adds `exp(0)` to `Z_i`; (2) the code of AgeDB and IMDB-WIKI multiplies by the weight a second time, outside
    of the logarithm; (3) the code of NYUD2 does not, but pushes linearly and counts the anchor among its positives.
    Departures from the official code: (4) an anchor without positives gives 0 instead of NaN; (5) everything is evaluated
    in one log-sum-exp, so that no temperature overflows; (6) labels may have several dimensions, where the code fails;
    (7) a temperature per anchor, and with `rho` the robust form, `compute_robust_sums`, over the summands of `Z_i`.
    """
    with pairs.full_precision(representations) as z:
        labels, predictions, weights = (values.detach().to(z.dtype) for values in (labels, predictions, weights))

        def sum_block(anchors: slice, z: Tensor, taus: Tensor) -> Tensor:
            positives, negatives, offsets = select_pairs(
                anchors,
                labels,
                predictions,
                weights,
                omega=omega,
                push_power=push_power,
                pushing=pushing,
                label_distance=label_distance,
            )
            # Dividing the anchors and adding to the offsets, not to the products, saves two pair matrices.
            logits = offsets.add_(pairs.cosine_matrix(z[anchors] / taus[anchors, None], z))
            losses = compute_anchor_losses(
                logits, positives, negatives, taus[anchors], denominator=denominator, counts_self=counts_self, rho=rho
            )
            return (losses * weights[anchors] if outer_weight else losses).sum()

        return blocks.sum_over_anchors(sum_block, z, expand_temperatures(tau, z)) / len(z)


def select_pairs(
    anchors: slice,
    labels: Float[Tensor, "rows *label"],
    predictions: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"],
    *,
    omega: float,
    push_power: float,
    pushing: Pushing,
    label_distance: pairs.LabelDistance,
) -> tuple[Bool[Tensor, "anchors rows"], Bool[Tensor, "anchors rows"], Float[Tensor, "anchors rows"]]:
    """Return the masks of `P_i` and `N_i`, and the offsets of the logits: 0 in `P_i`, `log S_ij` in `N_i`.

    All other pairs, the anchor itself among them, get a huge negative number. A pushing weight of 0 gives minus infinity,
    which is harmless, because the anchor itself keeps every row finite.
    """
    distances = pairs.distance_matrix(labels[anchors], labels, label_distance=label_distance)
    similar = distances <= omega
    negatives = (
        pairs.distance_matrix(predictions[anchors], predictions, label_distance=label_distance) <= omega
    ).logical_and_(~similar)
    positives = pairs.remove_self(similar, anchors)
    # The distances are not needed any more, so the logarithms of the pushing weights overwrite them.
    if pushing == "none":
        offsets = distances.zero_()
    else:
        growth = distances.mul_(push_power)
        offsets = (growth.log_() if pushing == "linear" else growth).add_(weights[anchors].log()[:, None])
    lowest = torch.finfo(offsets.dtype).min
    return (positives, negatives, offsets.masked_fill_(~negatives, lowest).masked_fill_(positives, 0.0))


def compute_anchor_losses(
    logits: Float[Tensor, "anchors rows"],
    positives: Bool[Tensor, "anchors rows"],
    negatives: Bool[Tensor, "anchors rows"],
    taus: Float[Tensor, " anchors"],
    *,
    denominator: Denominator,
    counts_self: bool = False,
    rho: float | None = None,
) -> Float[Tensor, " anchors"]:
    """Return `l_i` of `conr` before the outer weight.

    The logits are `s_ij` in `P_i`, `s_ij + log S_ij` in `N_i`, and hugely negative elsewhere.
    """
    # All sums over masks come before the log-sum-exp: each needs a matrix for a moment, and so does its gradient.
    counts = positives.sum(dim=1, dtype=logits.dtype)
    num_negatives = negatives.sum(dim=1, dtype=logits.dtype)
    attraction = torch.where(positives, logits, 0.0).sum(dim=1)
    log_normalizers = pairs.logsumexp(logits)
    num_others = counts + num_negatives
    if denominator == "official":
        # At least 1, because the anchor is no positive of its own
        padding = logits.shape[1] - counts
        log_normalizers = torch.logaddexp(log_normalizers, padding.log())
        num_others = num_others + padding
    sums = counts * log_normalizers - attraction
    sums = compute_robust_sums(sums, counts, taus, num_others=num_others, rho=rho)
    losses = sums / (counts + 1 if counts_self else counts.clamp(min=1))
    return torch.where(num_negatives > 0, losses, 0.0)
