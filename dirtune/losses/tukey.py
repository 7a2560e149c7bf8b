"""Tukey's biweight: a squared error near zero that flattens, so that far outliers have no gradient.

It is the opposite of the other losses here, and included for that contrast: a sample with a large error is ignored as an
outlier, where they weight it as a rare label.

Source: Belagiannis et al., "Robust Optimization for Deep Regression", ICCV 2015, which scales the errors by their median
absolute deviation (MAD) in each batch.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from dirtune.losses.pointwise import PointLoss

Scale = Literal["mad", "none"]

# The MAD of a normal distribution is its standard deviation divided by this.
_MAD_TO_DEVIATION = 1.4826


class Tukey(PointLoss):
    """Tukey's biweight: errors beyond `c` have no gradient (Belagiannis et al., ICCV 2015).

    `c^2/6 (1 - (1 - (r/c)^2)^3)`, the bracket being 1 for `|r| > c`. Under scale `none` r is the residual, and the loss has
    the label's unit squared. Under `mad` the residual is divided by `1.4826 median|r - median r|`, for each label dimension
    over the rows, and the loss has no unit. The divisor gets no gradient. Where it is 0 (one row, or half of the residuals
    equal), r is the residual. The median of an even number of values is the lower of the two in the middle.
    """

    name: Literal["tukey"] = "tukey"
    c: float = Field(default=4.685, gt=0)
    """Smallest error at which the loss is flat: in robust standard deviations under mad, otherwise in the unit of the labels
    that the loss is given. The paper's 4.685 has 95 % of the efficiency of least squares on normal errors."""
    scale: Scale = "mad"
    """mad: errors are divided by their robust standard deviation over the batch, as in the paper, the default because the
    errors of an untrained regressor are so large that a fixed c leaves it without gradient; none: errors are unscaled."""

    def compute_elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        if self.scale == "mad":
            errors = residuals.detach()
            # `torch.median` returns the lower of two middle values, which is defined for one row, too.
            from_median = (errors - errors.median(dim=0).values).abs()
            deviations = _MAD_TO_DEVIATION * from_median.median(dim=0).values
            residuals = residuals / torch.where(deviations > 0, deviations, 1.0)
        x = (residuals / self.c).square().clamp(max=1)
        # 1 - (1 - x)^3, in a form that keeps its digits near zero
        return self.c**2 / 6 * x * (3 - 3 * x + x.square())
