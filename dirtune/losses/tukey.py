"""Tukey's biweight: a squared error near zero that flattens, so that far outliers have no gradient at all.

It is the robust answer to what the other losses here call a rare label, and stands beside them for that contrast: a
sample that is far off is taken for a mistake, not for a call for attention.

Source: Belagiannis et al., "Robust Optimization for Deep Regression", ICCV 2015, which scales the errors by their median
absolute deviation (MAD) in each batch.
"""

from __future__ import annotations

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
    equal), r stays as it is. Of an even number of values the median is the lower of the two in the middle.
    """

    name: Literal["tukey"] = "tukey"
    c: float = Field(default=4.685, gt=0)
    """Error from which on the loss is flat: in robust standard deviations under mad, otherwise in the unit of the labels
    that the loss is given. The paper's 4.685 has 95 % of the efficiency of least squares on normal errors."""
    scale: Scale = "mad"
    """mad: errors are divided by their robust standard deviation over the batch, as in the paper, the default because an
    untrained regressor is so far off that a fixed c leaves it without gradient; none: they are taken as they are."""

    def elementwise(self, residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "rows *label"]:
        if self.scale == "mad":
            residuals = residuals / _robust_deviations(residuals.detach())
        x = (residuals / self.c).square().clamp(max=1)
        # 1 - (1 - x)^3, written so that it keeps its digits near zero.
        return self.c**2 / 6 * x * (3 - 3 * x + x.square())


def _robust_deviations(residuals: Float[Tensor, "rows *label"]) -> Float[Tensor, "*label"]:
    from_median = (residuals - residuals.median(dim=0).values).abs()
    deviations = _MAD_TO_DEVIATION * from_median.median(dim=0).values
    return torch.where(deviations > 0, deviations, 1.0)
