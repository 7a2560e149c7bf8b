"""SupReMix: supervised contrast with mixtures of an anchor and others as negatives, and of two sides of its label as positives.

Wu et al., "SupReMix" (arXiv 2309.16633). Code by its first author: github.com/Dingyijiang1/Mixup-Your-Own-Pairs, `agedb-dir`.

Departures from the code, which are its faults: (1) mixed labels belong to their mixtures; the code sorts them apart. (2) Rows and
mixtures share one denominator, exactly; the code shifts them by different maxima, into which unused places enter. (3) Without one
kind of mixtures there are none; in the code zero vectors with the label 0 remain. Departures in the draws: (4) a pair of samples has one
share in a step, whichever their views, drawn from 4,096 quantiles of the Beta distribution by the step's seed.
Mixtures of two sides need no vectors: the cosine of an anchor with a mixture is the mixture of cosines, so that memory is quadratic in
the rows, where the code's is cubic.
"""

import itertools
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from dirtune.batch import TermInputs
from dirtune.frozen import Frozen
from dirtune.losses import blocks, draws, pairs
from dirtune.losses.needs import Needs
from dirtune.losses.units import InBins
from dirtune.randomness import derive_seed
from dirtune.transfer import to_device

Mixtures = Literal["both", "negatives", "positives"]

_QUANTILE_BITS = 12
_MOST_ENTRIES = 1 << 22
"""Largest number of mixtures of two sides that are evaluated together, if they are those of more than one anchor."""


class SupReMix(Frozen):
    """SupReMix: contrast with hard mixtures of representations (Wu et al., 2023); formula: `supremix`."""

    needs: ClassVar[Needs] = Needs(scalar_labels=True, samples=2)
    gamma: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off. The code trains the representation by the term alone (`two_stage`)."""
    tau: float = Field(default=0.5, gt=0)
    """Temperature. Code: 0.5 (AgeDB), 0.3 (IMDB-WIKI)."""
    window: Annotated[float, InBins()] = Field(default=5.0, ge=0)
    """Rows closer than this to an anchor's label are mixed to positives, in the label's unit; not given: five label bins. Code: 5
    (ages)."""
    growth: Annotated[float, InBins(power=-1)] = Field(default=1.0, ge=0)
    """Growth of a part's factor in the denominator with its label distance, per label unit; 0: no factors; not given: 1 per label
    bin. Code: 1 (ages)."""
    beta: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (2.0, 8.0)
    """Parameters of the anchor's share in a mixed negative. Code: 2 and 8, which is 0.2 on average."""
    mixtures: Mixtures = "both"
    """Kinds of mixtures. Code: both; its options have negatives alone and positives alone."""

    @property
    def weight(self) -> float:
        return self.gamma

    def __call__(self, inputs: TermInputs) -> Float[Tensor, ""]:
        precision = torch.promote_types(inputs.representations.dtype, torch.float32)
        quantiles = to_device(_compute_quantiles(self.beta).to(precision), inputs.samples.device)
        seed, samples = derive_seed(inputs.draw_seed, "supremix"), inputs.samples.long()

        def draw_shares(anchors: slice) -> Tensor:
            # A pseudo-random number for each ordered pair of samples, whose highest bits below the sign choose a quantile.
            lots = draws.draw_lots(draws.draw_lots(samples[anchors], seed)[:, None] ^ samples, seed)
            places = (lots >> (63 - _QUANTILE_BITS)) & ((1 << _QUANTILE_BITS) - 1)
            return quantiles[places]

        return supremix(
            inputs.representations,
            inputs.labels.reshape(len(samples)),
            inputs.label_bins,
            draw_shares,
            tau=self.tau,
            window=self.window,
            growth=self.growth,
            mixtures=self.mixtures,
        )


def supremix(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, " rows"],
    label_bins: Int[Tensor, " rows"],
    draw_shares: Callable[[slice], Tensor],
    *,
    tau: float,
    window: float,
    growth: float,
    mixtures: Mixtures = "both",
) -> Float[Tensor, ""]:
    """Return the mean over anchors of the mean over positives p of `log Z_i - s_ip`.

    With `s_ik = f_i . f_k / tau`, the positives are the other rows of the anchor's bin, and for each pair (j, k) of rows with
    `y_j < y_i < y_k`, both closer than the window, `a f_j + (1 - a) f_k` with the label `y_i`: `a = (y_k - y_i) / (y_k - y_j)`.
    Mixed negatives are `b f_i + (1 - b) f_k` for each row k of another bin, with the shares b that are drawn, and their label is
    mixed likewise. `Z_i` is the sum over all other rows and all mixtures of `(growth |y_i - y| + 1) exp(s)`. Mixtures are constants.

    Args:
        representations: f, of unit norm.
        labels: y.
        label_bins: rows of one bin have equal labels.
        draw_shares: from a slice of anchors to b, `(anchors, rows)`.
        tau: temperature.
        window: in the unit of the labels.
        growth: per unit of the labels.
        mixtures: the kinds.
    """
    with pairs.full_precision(representations) as f:
        labels, constant = labels.to(f.dtype), f.detach()
        ascending, order = labels.sort(stable=True)
        bounds = _find_bounds(labels, ascending, window) if mixtures != "negatives" else []

        def sum_block(anchors: slice, f: Tensor) -> Tensor:
            logits = pairs.cosine_matrix(f[anchors] / tau, f)
            same = pairs.compare_bins(label_bins[anchors], label_bins)
            positives = pairs.remove_self(same, anchors)
            gaps = growth * pairs.distance_matrix(labels[anchors], labels)
            others = pairs.remove_self(torch.ones_like(same), anchors)
            log_sums = [pairs.masked_logsumexp(logits + torch.log1p(gaps), others)]
            counts = positives.sum(dim=1).to(logits.dtype)
            attraction = torch.where(positives, logits, 0.0).sum(dim=1)
            # Only the anchor has a gradient where it meets a mixture.
            fixed = pairs.cosine_matrix(f[anchors] / tau, constant)
            if mixtures != "positives":
                shares = draw_shares(anchors).to(f.dtype)
                mixed = shares * fixed.diagonal(anchors.start)[:, None] + (1 - shares) * fixed
                log_sums.append(pairs.masked_logsumexp(mixed + torch.log1p((1 - shares) * gaps), ~same))
            if mixtures != "negatives":
                log_sum, sums, numbers = _MixedPositives.apply(
                    fixed[:, order], labels[anchors], ascending, bounds[anchors]
                )
                log_sums.append(log_sum)
                counts, attraction = counts + numbers, attraction + sums
            log_normalizers = torch.logsumexp(torch.stack(log_sums), dim=0)
            losses = log_normalizers - attraction / counts.clamp(min=1)
            return torch.where(counts > 0, losses, 0.0).sum()

        return blocks.sum_over_anchors(sum_block, f) / len(f)


def _find_bounds(labels: Float[Tensor, " rows"], ascending: Float[Tensor, " rows"], window: float) -> list[list[int]]:
    """Return for each anchor where the rows of both sides of its label begin and end in the order of labels.

    The host waits for a GPU here, once for all anchors: the numbers of rows on both sides are sizes.
    """
    bounds = (
        torch.searchsorted(ascending, labels - window, right=True),
        torch.searchsorted(ascending, labels),
        torch.searchsorted(ascending, labels, right=True),
        torch.searchsorted(ascending, labels + window),
    )
    found: list[list[int]] = torch.stack(bounds, dim=1).tolist()
    return found


class _MixedPositives(torch.autograd.Function):
    """Logarithm of the sum of exponentials, sum, and number of the logits of each anchor's mixtures of two sides.

    Logits of rows are given in the ascending order of labels, where those within the window are neighbors; anchors of one label
    have the same mixtures. Slopes are computed with the values, so that no mixture is kept.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, anchor_labels: Tensor, labels: Tensor, bounds: list[list[int]]
    ) -> tuple[Tensor, Tensor, Tensor]:
        log_sums = logits.new_full((len(logits),), torch.finfo(logits.dtype).min)
        numbers, sums = logits.new_zeros(len(logits)), logits.new_zeros(len(logits))
        slopes, coefficients = torch.zeros_like(logits), torch.zeros_like(logits)
        distinct, by_label = anchor_labels.sort(stable=True)
        first = 0
        # Anchors of one label are neighbors in the order of labels, and have the same bounds.
        for (start, low_end, high_start, stop), equal in itertools.groupby(sorted(bounds)):
            last = first + len(list(equal))
            label, anchors, first = distinct[first], by_label[first:last], last
            low, high = slice(start, low_end), slice(high_start, stop)
            if low.start >= low.stop or high.start >= high.stop:
                continue
            # a of (j, k)
            shares = (labels[high] - label) / (labels[high] - labels[low][:, None])
            to_low, to_high = shares.sum(dim=1), (1 - shares).sum(dim=0)
            numbers[anchors] = shares.numel()
            sums[anchors] = logits[anchors, low] @ to_low + logits[anchors, high] @ to_high
            coefficients[anchors, low], coefficients[anchors, high] = to_low, to_high
            for some in anchors.split(max(_MOST_ENTRIES // shares.numel(), 1)):
                mixed = shares * logits[some, low][:, :, None] + (1 - shares) * logits[some, high][:, None]
                log_sums[some] = torch.logsumexp(mixed.flatten(1), dim=1)
                weights = mixed.sub_(log_sums[some][:, None, None]).exp_()
                slopes[some, low] = (weights * shares).sum(dim=2)
                slopes[some, high] = (weights * (1 - shares)).sum(dim=1)
        ctx.save_for_backward(slopes, coefficients)
        ctx.mark_non_differentiable(numbers)
        return log_sums, sums, numbers

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_log_sums: Tensor, of_sums: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        slopes, coefficients = ctx.saved_tensors
        return slopes * of_log_sums[:, None] + coefficients * of_sums[:, None], None, None, None


@cache
def _compute_quantiles(beta: tuple[float, float]) -> Float[Tensor, " quantiles"]:
    """Return the middles of 4,096 equally likely parts of a Beta distribution."""
    # Imported here, because it takes long and only this term needs it.
    from scipy.special import betaincinv

    number = 1 << _QUANTILE_BITS
    return torch.from_numpy(betaincinv(*beta, (np.arange(number) + 0.5) / number))
