"""Regression losses of single errors, with sample weights: L1, MSE and Huber.

All are the mean over elements of `w_i * l(r)`, with the residual `r = prediction - label` of an element; an element is a
sample or, for labels of several dimensions, one dimension of a sample, which then all have the sample's weight. The
weights have mean one over the *training set*, not over the batch, so the mean is over elements and not over weights: a
batch of rare labels counts for more. This is the definition of the code of Yang et al. (ICML 2021),
github.com/YyzHarry/imbalanced-regression, and of its followers. Half-precision predictions are compared in float32.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Frozen
from dirtune.losses.units import InBins


class PointLoss(Frozen):
    """Mean over elements of weight times loss; a subclass implements the loss of a residual, `compute_elementwise`."""

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        """Return the loss of a batch; None for the weights means all are one."""
        # Half precision would round away small residuals of large labels.
        precision = torch.promote_types(predictions.dtype, torch.float32)
        residuals = predictions.to(precision) - labels.to(precision)
        return compute_weighted_mean(self.compute_elementwise(residuals), weights)

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        """Return the loss of each residual; residuals have the label's unit."""
        raise NotImplementedError


class L1(PointLoss):
    """Absolute error; the loss of the age data sets."""

    name: Literal["l1"] = "l1"

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        return residuals.abs()


class MSE(PointLoss):
    """Squared error; the loss of STS-B and NYUD2."""

    name: Literal["mse"] = "mse"

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        return residuals.square()


class Huber(PointLoss):
    """Squared error below `beta`, absolute error above.

    With `e = |r|`: `e^2 / (2 beta)` for `e < beta` and `e - beta / 2` otherwise, in the label's unit. This is the "smooth L1"
    form (slope one far from zero), as in the code of Yang et al.; `torch.nn.HuberLoss` is `beta` times it.
    """

    name: Literal["huber"] = "huber"
    beta: Annotated[float, InBins(of_loss=True)] = Field(default=1.0, gt=0)
    """Largest error with a squared loss, in the unit of the labels that the loss is given; not given: one label bin; towards
    0 the loss becomes L1. Yang et al.: 1 (ages), 0.3 on labels divided by 5 (STS-B)."""

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        errors, beta = residuals.abs(), self.beta
        return torch.where(errors < beta, errors.square() / (2 * beta), errors - beta / 2)


def compute_weighted_mean(
    losses: Float[Tensor, "rows *label"], weights: Float[Tensor, " rows"] | None
) -> Float[Tensor, ""]:
    """Return the mean over elements of loss times sample weight; None for the weights means all are one."""
    if weights is None:
        return losses.mean()
    if losses.ndim > 1:
        weights = weights.reshape(-1, *(1,) * (losses.ndim - 1))
    return (losses * weights.to(losses.dtype)).mean()
