"""AdaSupCon: SupCon with a margin for each negative that grows with the share of training labels between the two.

Dai et al., "Adaptive Contrast for Image Regression in Computer-Aided Disease Assessment" (AdaCon), IEEE TMI 2021. Official
code: github.com/xmed-lab/AdaCon, `SupConLoss_admargin` in `echonet/models/rnet2dp1.py`, its labels in
`echonet/datasets/echo.py`. ACCon's comparison has a version of its own: github.com/Haifengtao/ACCon, first commit,
`agedb/loss.py` and `agedb/datasets.py`; on STS-B `sts-b/loss.py` and `sts-b/tasks.py`.

The margin makes a negative look more similar than it is, so that labels far apart in the distribution are pushed apart
harder. The distribution is that of the training split, not of the batch: the term is called through what `fit` returns.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import TermInputs, TrainingLabels
from dirtune.errors import Fault, InputError
from dirtune.frozen import Added, Frozen
from dirtune.losses import blocks, pairs
from dirtune.losses.pairs import Reduction

# `norm_val` of ACCon's sts-b/loss.py
_STS_MARGIN_WEIGHT = 0.2


class AdaSupCon(Frozen):
    """AdaSupCon: SupCon with margins from the training labels (AdaCon, Dai et al., IEEE TMI 2021); formula: `adasupcon`."""

    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. AdaCon's code: 0.75 (EchoNet); ACCon's: 1 (AgeDB)."""
    tau: float | None = Field(default=None, gt=0)
    """Temperature, without unit; null: 1/150 in official (its scale of 150 at temperature 1), else 0.05, as in ACCon's
    code."""
    variant: Literal["corrected", "official", "accon_repo", "accon_repo_sts"] = "corrected"
    """corrected: margins from the labels themselves and an exact mean; the default, because it is the method at the
    temperature of the terms it is compared with. official: AdaCon's code, with margins from label bins. accon_repo: ACCon's
    code, which adds up the bins' labels where their counts are meant, so that its margins are none of the distribution's,
    and smooths the mean as its SupCon does; accon_repo_sts: the same on STS-B, where the sums are not divided by the number of
    samples but weighted by 0.2, so that most margins are at their bound, and bins are `floor(label / 0.1)` in float32."""
    reduction: Reduction = "all"
    """all: mean over all anchors, as both codes; valid: only over those that have a positive."""

    label_decimals: Annotated[int | None, Added()] = Field(default=None, ge=0)
    """Decimals to which labels are rounded before they are compared: positives have equal rounded labels. null: they are of
    one label bin. ACCon's code on STS-B: 1."""

    @property
    def weight(self) -> float:
        return self.gamma

    def fit(self, labels: TrainingLabels) -> "FittedAdaSupCon":
        """Return the term with the distribution of the training labels.

        Raises:
            InputError: labels of several dimensions, which have no order.
        """
        if labels.labels.ndim > 1:
            rule, dims = "is made for labels of one dimension", labels.labels.shape[1]
            raise InputError(Fault(where="term adasupcon", key="variant", rule=rule, got=dims))
        if self.variant == "accon_repo_sts":
            knots, sums = compute_accon_repo_sums(_to_tenths(labels.labels), first_key=0.0)
            # The margin is twice the difference of two positions.
            return FittedAdaSupCon(self, knots, _STS_MARGIN_WEIGHT / 2 * sums)
        if self.variant == "accon_repo":
            first_key = labels.spec.low / labels.spec.bin_width
            knots, sums = compute_accon_repo_sums(labels.label_bins, first_key=first_key)
            return FittedAdaSupCon(self, knots, sums / len(labels.label_bins))
        values = labels.labels if self.variant == "corrected" else labels.label_bins
        return FittedAdaSupCon(self, *compute_midranks(values))


class FittedAdaSupCon(nn.Module):
    """AdaSupCon with the distribution of the training labels; labels between two known ones are interpolated."""

    knots: Tensor
    positions: Tensor

    def __init__(self, settings: AdaSupCon, knots: Float[Tensor, " knots"], positions: Float[Tensor, " knots"]) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("knots", knots)
        self.register_buffer("positions", positions)

    def forward(self, inputs: TermInputs) -> Float[Tensor, ""]:
        settings = self.settings
        values = inputs.labels if settings.variant == "corrected" else inputs.label_bins
        if settings.variant == "accon_repo_sts":
            values = _to_tenths(inputs.labels)
        default_tau = 1 / 150 if settings.variant == "official" else 0.05
        return adasupcon(
            inputs.representations,
            interpolate(values.to(self.knots.dtype), self.knots, self.positions),
            pairs.find_label_classes(inputs.labels, inputs.label_bins, settings.label_decimals),
            tau=default_tau if settings.tau is None else settings.tau,
            smoothing=1e-5 if settings.variant in {"accon_repo", "accon_repo_sts"} else 0.0,
            reduction=settings.reduction,
        )


def adasupcon(
    representations: Float[Tensor, "rows dim"],
    positions: Float[Tensor, " rows"],
    label_bins: Int[Tensor, " rows"],
    *,
    tau: float,
    smoothing: float = 0.0,
    reduction: Reduction = "all",
) -> Float[Tensor, ""]:
    """Return the mean over anchors of `l_i = -( sum_{j in P_i} log p_ij + a ) / ( |P_i| + a )`, `a` the smoothing, with

        p_ij = exp(s_ij / tau) / sum_{k != i} exp(s_ik / tau)
        s_ij = c_ij in the anchor's label bin,  c_ij + min(2 |F_i - F_j|, 2) elsewhere

    where `c` is the cosine, `P_i` holds the other rows of the anchor's label bin, and `F` are the positions in the
    distribution of the training labels: 0 at its lower end, 1 at its upper end. Representations must have unit norm.

    An anchor without positives has `l_i = -1` under smoothing (as in ACCon's code; its gradient is zero) and `l_i = 0`
    without, where AdaCon's code returns 0/0.

    Departures from the official codes: (1) label bins replace their buckets, 0.05 percentage points (AdaCon) and one year
    (ACCon) wide; (2) AdaCon's scale s and temperature T are one `tau = 1 / s`, which is the same at its T = 1;
    (3) the maximum is subtracted inside the log-sum-exp only, so that the gradient is exact without unit norm, too.
    """
    with pairs.full_precision(representations) as z:
        positions = positions.to(z.dtype)

        def sum_block(anchors: slice, z: Tensor) -> Tensor:
            same = pairs.compare_bins(label_bins[anchors], label_bins)
            spans = pairs.distance_matrix(positions[anchors], positions)
            margins = spans.mul_(2.0).clamp_(max=2.0).masked_fill_(same, 0.0)
            logits = margins.add_(pairs.cosine_matrix(z[anchors], z)).div_(tau)
            others = pairs.remove_self(torch.ones_like(same), anchors)
            log_normalizers = pairs.masked_logsumexp(logits, others)
            sums, counts = pairs.sum_likelihoods(logits, log_normalizers, same & others)
            losses = pairs.compute_smoothed_mean(sums, counts, smoothing=smoothing)
            return pairs.sum_anchors(losses, counts > 0, reduction)

        return blocks.sum_over_anchors(sum_block, z) / pairs.count_anchors(label_bins, reduction)


def compute_midranks(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct values `v` in ascending order, and `F(v)`: the share below `v` plus half of the share at `v`."""
    # In float32, cumulative counts of large training sets would lose single samples.
    knots, counts = values.double().unique(return_counts=True)
    counts = counts.double()
    return knots, (counts.cumsum(0) - counts / 2) / len(values)


def compute_accon_repo_sums(label_bins: Tensor, *, first_key: float) -> tuple[Tensor, Tensor]:
    """Return the distinct bins in ascending order, and the values that ACCon's code uses in place of cumulative counts.

    A bin's key is its lower edge in bin widths (for ages: the age), `first_key` that of bin 0. Starting from the count of
    the first bin, the code adds up keys, and subtracts half of a bin's own key. It divides by the number of samples, except
    on STS-B.
    """
    knots, counts = label_bins.double().unique(return_counts=True)
    keys = knots + first_key
    cumulated = torch.cat([counts[:1], keys[1:]]).cumsum(0)
    return knots, cumulated - keys / 2


def _to_tenths(labels: Tensor) -> Tensor:
    """Return `labels // 0.1` as the STS-B script computes it, in float32: 4 at 0.5, 6 at 0.7."""
    return labels.float() // 0.1


def interpolate(
    values: Float[Tensor, " rows"], knots: Float[Tensor, " knots"], positions: Float[Tensor, " knots"]
) -> Float[Tensor, " rows"]:
    """Return the positions at the values: linear between two knots, that of the outermost knot beyond."""
    upper = torch.searchsorted(knots, values.contiguous()).clamp(max=len(knots) - 1)
    lower = (upper - 1).clamp(min=0)
    # With a single knot the width is 0.
    width = (knots[upper] - knots[lower]).clamp(min=torch.finfo(knots.dtype).tiny)
    shares = ((values - knots[lower]) / width).clamp(0.0, 1.0)
    return torch.lerp(positions[lower], positions[upper], shares)
