"""CCC loss: one minus the concordance correlation of a batch's predictions and labels, added to a loss of single errors.

Concordance correlation: Lin, Biometrics 1989. As a regression loss for imbalanced labels it is this library's transfer of a
reward: "MLLM-DIR", ICML 2026 (arXiv 2605.01402), rewards numbers that a language model writes by it. A prediction of the mean
label for every sample, which a loss of single errors tolerates on rare labels, has a correlation of zero.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Frozen
from dirtune.losses import pairs, pointwise
from dirtune.losses.needs import Needs


class CCC(Frozen):
    """Loss of single errors plus `weight (1 - CCC)` of the batch (Lin, 1989; as a loss by this library); formula: `ccc`."""

    name: Literal["ccc"] = "ccc"
    needs: ClassVar[Needs] = Needs(samples=2, whole_batches=True)
    distance: Literal["l1", "mse", "none"] = "l1"
    """Loss of single errors; none: the correlation alone, which does not change if errors and labels are scaled together."""
    weight: float = Field(default=1.0, ge=0)
    """Weight of `1 - CCC`, which is within 0 and 2 whatever the unit of the labels."""
    moments: Literal["population", "sample"] = "population"
    """Divisor of variances and covariance: the number of rows (population), or one less (sample). It matters in small
    batches, because the squared difference of the means has none."""

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; None for the weights means all are one."""
        loss = self.weight * ccc(predictions, labels, weights, moments=self.moments)
        if self.distance == "none":
            return loss
        point = pointwise.L1() if self.distance == "l1" else pointwise.MSE()
        return loss + point(predictions, labels, weights)


def ccc(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
    *,
    moments: Literal["population", "sample"] = "population",
) -> Float[Tensor, ""]:
    """Return the mean over dimensions of `1 - 2 cov(p, y) / (var p + var y + (mean p - mean y)^2)`.

    Moments are weighted by the sample weights, divided by their sum. With one row, or equal labels, it is 1 and has no gradient;
    if moreover all predictions are that label, 0 / 0 is defined as a loss of 0.
    """
    with pairs.full_precision(predictions.reshape(len(predictions), -1)) as p:
        y = labels.reshape(len(p), -1).to(p.dtype)
        shares = p.new_full((len(p),), 1 / len(p)) if weights is None else weights.to(p.dtype) / weights.sum()
        means = [(shares[:, None] * values).sum(dim=0) for values in (p, y)]
        apart_p, apart_y = p - means[0], y - means[1]
        correction = len(p) / max(len(p) - 1, 1) if moments == "sample" else 1.0
        variance_p, variance_y, covariance = (
            correction * (shares[:, None] * products).sum(dim=0)
            for products in (apart_p.square(), apart_y.square(), apart_p * apart_y)
        )
        total = variance_p + variance_y + (means[0] - means[1]).square()
        # Below the rounding of the values themselves, all predictions are the one label.
        size = torch.maximum(p.detach().abs().amax(dim=0), y.abs().amax(dim=0))
        is_exact = total.detach() <= (4 * torch.finfo(p.dtype).eps * size).square()
        losses = 1 - 2 * covariance / torch.where(is_exact, 1.0, total)
        return torch.where(is_exact, 0.0 * total, losses).mean()
