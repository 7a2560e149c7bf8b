"""Regression losses that look at one error at a time: L1, MSE and Huber, with sample weights.

All are the mean over elements of `w_i * l`, with the error `e = |prediction - label|` of an element; an element is a
sample or, for labels of several dimensions, one dimension of a sample, which then all have the sample's weight. The
weights have mean one over the *training set*, not over the batch, so the mean is over elements and not over weights: a
batch of rare labels shall count for more. This is the definition of the code of Yang et al. (ICML 2021),
github.com/YyzHarry/imbalanced-regression, and of its followers. Half-precision predictions are compared in float32.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Frozen


class L1(Frozen):
    """Absolute error; the loss of the age data sets."""

    name: Literal["l1"] = "l1"

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        return l1(predictions, labels, weights)


class MSE(Frozen):
    """Squared error; the loss of STS-B and NYUD2."""

    name: Literal["mse"] = "mse"

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        return mse(predictions, labels, weights)


class Huber(Frozen):
    """Squared error below `beta`, absolute error above."""

    name: Literal["huber"] = "huber"
    beta: float = Field(default=1.0, gt=0)
    """Where the square ends, in the label's unit; towards 0 the loss becomes L1. Yang et al.: 1 (ages), 0.3 on labels
    divided by 5 (STS-B)."""

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        return huber(predictions, labels, weights, beta=self.beta)


def l1(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, ""]:
    """The mean of `w e`, in the label's unit; no weights means all are one."""
    return weighted_mean(absolute_errors(predictions, labels), weights)


def mse(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
) -> Float[Tensor, ""]:
    """The mean of `w e^2`, in the label's unit squared; no weights means all are one."""
    return weighted_mean(absolute_errors(predictions, labels).square(), weights)


def huber(
    predictions: Float[Tensor, "rows *label"],
    labels: Float[Tensor, "rows *label"],
    weights: Float[Tensor, " rows"] | None = None,
    *,
    beta: float,
) -> Float[Tensor, ""]:
    """The mean of `w l`, `l = e^2 / (2 beta)` for `e < beta` and `e - beta / 2` otherwise, in the label's unit.

    This is the "smooth L1" form (slope one far from zero), as in the code of Yang et al.; `torch.nn.HuberLoss` is `beta`
    times it.
    """
    errors = absolute_errors(predictions, labels)
    losses = torch.where(errors < beta, errors.square() / (2 * beta), errors - beta / 2)
    return weighted_mean(losses, weights)


def absolute_errors(
    predictions: Float[Tensor, "rows *label"], labels: Float[Tensor, "rows *label"]
) -> Float[Tensor, "rows *label"]:
    """`|prediction - label|` of each element, in float32 at least."""
    precision = torch.promote_types(predictions.dtype, torch.float32)
    return (predictions.to(precision) - labels.to(precision)).abs()


def weighted_mean(
    losses: Float[Tensor, "rows *label"], weights: Float[Tensor, " rows"] | None
) -> Float[Tensor, ""]:
    """The mean over elements of each one's loss times the weight of its sample; no weights means all are one."""
    if weights is None:
        return losses.mean()
    by_row = weights.reshape(-1, *(1,) * (losses.ndim - 1))
    return (losses * by_row.to(losses.dtype)).mean()
