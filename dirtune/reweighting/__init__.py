"""Re-weighting of training samples by label density: `Reweighting`, the value a configuration holds.

The steps are pure functions in this package: `density` counts, `inverse` turns counts into weights, `lds` smooths the
counts in between. Weights multiply the regression loss and have mean one over the training split, so that the loss
keeps its scale when the scheme changes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from dirtune.frozen import Frozen
from dirtune.reweighting.density import label_density
from dirtune.reweighting.inverse import Scheme, effective_counts, inverse_weights
from dirtune.reweighting.lds import Kernel, kernel_window, smoothed_counts


class LDS(Frozen):
    """Label distribution smoothing (Yang et al., ICML 2021); formula and departures: `dirtune.reweighting.lds`."""

    kernel: Kernel = "gaussian"
    size: int = Field(default=5, gt=0)
    """Width of the kernel window, in bins; odd. The papers use 5."""
    sigma: float = Field(default=2.0, gt=0)
    """Width of the kernel, in bins. The papers use 2; without effect for triang."""
    published_truncation: bool = False
    """Cut the smoothed counts to integers, as the official code does for the scheme inverse (without effect otherwise)."""

    @field_validator("size")
    @classmethod
    def _has_a_centre(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("must be odd, so that the kernel has a centre bin")
        return size


class Reweighting(Frozen):
    """How training samples are weighted. The papers use sqrt_inverse on ages and inverse on STS-B-DIR and NYUD2-DIR."""

    scheme: Scheme = "none"
    """none: weight one; inverse (INV): `1 / count`; sqrt_inverse (SQINV): `1 / sqrt(count)`."""
    clip: tuple[int, int] | None = None
    """Counts are limited to this range first; none: as they are. Published: 5, 1000 for inverse on ages."""
    lds: LDS | None = None
    """Smoothing of the counts; none: not smoothed."""

    @field_validator("clip")
    @classmethod
    def _is_a_range(cls, clip: tuple[int, int] | None) -> tuple[int, int] | None:
        if clip is not None and not 1 <= clip[0] <= clip[1]:
            raise ValueError("must be two counts in order, the first at least 1")
        return clip

    @model_validator(mode="after")
    def _has_something_to_smooth(self) -> Reweighting:
        if self.lds is not None and self.scheme == "none":
            raise ValueError("lds smooths the counts of a scheme, so scheme must not be 'none'")
        return self

    def weights(self, bins: NDArray[np.int64], num_bins: int) -> NDArray[np.float64]:
        """The weight of each training sample, from the bins of all training samples; mean one, shape `(samples,)`.

        Args:
            bins: bin index of each training sample (`dirtune.reweighting.density.label_bins`).
            num_bins: number of bins of the label.
        """
        effective = effective_counts(label_density(bins, num_bins), self.scheme, self.clip)
        if self.lds is not None:
            window = kernel_window(self.lds.kernel, self.lds.size, self.lds.sigma)
            truncate = self.lds.published_truncation and self.scheme == "inverse"
            effective = smoothed_counts(effective, window, truncate=truncate)
        return inverse_weights(effective, bins)
