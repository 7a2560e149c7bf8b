"""Re-weighting of training samples by label density: `Reweighting`, the value a configuration holds.

The steps are pure functions in this package: `density` counts, `inverse` turns counts into weights, `lds` smooths the
counts in between, `denseweight` needs no bins. Weights multiply the regression loss and have mean one over the training
split, so that the loss keeps its scale when the scheme changes. Feature distribution smoothing (`fds`) changes no weight; it
is here because the papers switch it together with LDS.

Where the published code differs from its intention, a setting chooses between the two and documents the default:
`LDS.published_truncation`, `LDS.root`, `FDS.published_aliasing`.
"""

from typing import Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.reweighting import denseweight, inverse
from dirtune.reweighting.density import label_density
from dirtune.reweighting.fds import FDS
from dirtune.reweighting.lds import LDS, smooth_counts

__all__ = ["FDS", "LDS", "Reweighting", "Scheme"]

Scheme = Literal["none", "inverse", "sqrt_inverse", "dense"]


class Reweighting(Frozen):
    """Weights of the training samples. The papers use sqrt_inverse on ages and inverse on STS-B-DIR and NYUD2-DIR."""

    scheme: Scheme = "none"
    """none: weight one; inverse (INV): `1 / count`; sqrt_inverse (SQINV): `1 / sqrt(count)`; dense (DenseWeight): one
    minus the scaled kernel density."""
    clip: tuple[int, int] | None = None
    """Range to which counts are clipped first; null: no clipping. Published: 5, 1000 for inverse on ages. It has an effect
    for the two inverse schemes only."""
    alpha: float = Field(default=1.0, ge=0)
    """dense only: strength of the reduction of weights by density; 0: none. Published default: 1."""
    lds: LDS | None = None
    """Smoothing of the counts; null: none."""
    fds: FDS | None = None
    """Smoothing of the embeddings, in addition to the weights; null: none."""

    @field_validator("clip")
    @classmethod
    def _check_clip(cls, clip: tuple[int, int] | None) -> tuple[int, int] | None:
        if clip is not None and not 1 <= clip[0] <= clip[1]:
            raise ValueError("must be two counts in order, the first at least 1")
        return clip

    @model_validator(mode="after")
    def _check_lds(self) -> "Reweighting":
        if self.lds is not None and self.scheme in ("none", "dense"):
            raise ValueError(f"lds smooths the counts of a scheme, so scheme must not be {self.scheme!r}")
        return self

    def compute_weights(
        self, bins: np.typing.NDArray[np.int64], num_bins: int, labels: np.typing.NDArray[np.floating] | None = None
    ) -> np.typing.NDArray[np.float64]:
        """Compute the weight of each training sample, from all training samples; mean one, shape `(samples,)`.

        Args:
            bins: bin index of each training sample (`dirtune.reweighting.density.label_bins`).
            num_bins: number of bins of the label; a grid of bins of several dimensions is flattened.
            labels: the label of each training sample, `(samples,)` or `(samples, L)`; the scheme dense needs them, lds
                needs their number of dimensions only.

        Raises:
            InputError: labels of several dimensions under dense or lds, or an lds that does not fit the bins.
        """
        dims = 1 if labels is None or labels.size == len(labels) else labels.size // len(labels)
        for key, needs_order in (("scheme", self.scheme == "dense"), ("lds", self.lds is not None)):
            if dims > 1 and needs_order:
                rule = "is made for labels of one dimension"
                raise InputError(Fault(where="training labels", key=f"reweighting.{key}", rule=rule, got=dims))
        if self.scheme == "dense":
            if labels is None:
                raise ValueError("scheme 'dense' needs the labels of the training samples")
            return denseweight.compute_dense_weights(labels.reshape(-1), alpha=self.alpha)
        return self.compute_bin_weights(label_density(bins, num_bins))[bins]

    def compute_bin_weights(self, density: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.float64]:
        """Compute the weight of a sample in each bin, with mean one over the training samples; shape `(num_bins,)`.

        For labels that are looked up by bin, such as the depth of each pixel.

        Args:
            density: training samples per bin.

        Raises:
            ValueError: the scheme is dense, which has no weights of bins.
        """
        if self.scheme == "dense":
            raise ValueError("scheme 'dense' has no weights of bins")
        root_after = self.scheme == "sqrt_inverse" and self.lds is not None and self.lds.root == "after"
        counts = inverse.compute_effective_counts(density, "inverse" if root_after else self.scheme, self.clip)
        if self.lds is not None:
            # The official code truncates for the scheme inverse only: its square roots are not integers.
            truncate = self.lds.published_truncation and self.scheme == "inverse"
            counts = smooth_counts(counts, self.lds, truncate=truncate)
        return inverse.compute_inverse_weights(np.sqrt(counts) if root_after else counts, density)
