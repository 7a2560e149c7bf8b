"""Focal-R: regression losses with a weight that grows with the error of the prediction.

A factor between 0 and 1 that grows with the error multiplies the absolute error (`focal_l1`) or its square
(`focal_mse`), as the focal loss of classification does with hard examples.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official code
github.com/YyzHarry/imbalanced-regression, `agedb-dir/loss.py`, `sts-b-dir/loss.py`.
"""

from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.frozen import Added
from dirtune.losses import pointwise, units

Activation = Literal["sigmoid", "tanh", "unshifted"]


class _Focal(pointwise.PointLoss):
    activation: Activation = "sigmoid"
    """Factor of an error e. sigmoid: `2 sigma(beta e) - 1`, as in the official code, the default because the published
    numbers were made with it; tanh: `tanh(beta e)`, the code's other choice; unshifted: `sigma(beta e)`, as the paper
    writes it, which is one half without an error."""
    beta: Annotated[float, units.InBins(power=-1, of_loss=True)] = Field(default=0.2, gt=0)
    """Growth rate of the factor, per unit of the labels that the loss is given; not given: 0.2 per label bin. Official: 0.2
    (ages), 20 on labels divided by 5 (STS-B)."""
    gamma: float = Field(default=1.0, ge=0)
    """Power of the factor; 0: no factor. Official: 1."""
    weighted: Annotated[bool, Added()] = True
    """False: sample weights do not count, as in ConR's repository, whose script passes them in the place of another argument
    (`agedb-dir/train.py`)."""

    def __call__(
        self,
        predictions: Float[Tensor, "rows *label"],
        labels: Float[Tensor, "rows *label"],
        weights: Float[Tensor, " rows"] | None = None,
    ) -> Float[Tensor, ""]:
        return super().__call__(predictions, labels, weights if self.weighted else None)

    def _compute_factors(self, errors: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        if self.activation == "unshifted":
            return (self.beta * errors).sigmoid() ** self.gamma
        # 2 sigma(x) - 1 = tanh(x / 2), which has no cancellation near zero.
        rate = self.beta / 2 if self.activation == "sigmoid" else self.beta
        # Below the clamp the slope is 0, and a power of the smallest number is finite: no 0 * inf at an error of 0.
        smallest = torch.finfo(errors.dtype).tiny
        return (rate * errors).tanh().clamp(min=smallest) ** self.gamma


class FocalL1(_Focal):
    """Focal-R on the absolute error (Yang et al., ICML 2021).

    `a(e)^gamma e` of the error `e = |r|`, in the label's unit, with the factor `a` of `activation`. The gradient flows through
    the factor as well. Departure from the official code: where the error is 0 the gradient is its limit, 0, for every
    gamma; there it is 0/0 for a gamma below one.
    """

    name: Literal["focal_l1"] = "focal_l1"

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        errors = residuals.abs()
        return self._compute_factors(errors) * errors


class FocalMSE(_Focal):
    """Focal-R on the squared error (Yang et al., ICML 2021): `a(e)^gamma e^2`; the rest as in `FocalL1`."""

    name: Literal["focal_mse"] = "focal_mse"

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        errors = residuals.abs()
        return self._compute_factors(errors) * errors.square()
