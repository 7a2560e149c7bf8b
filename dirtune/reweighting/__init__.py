"""Re-weighting of training samples by label density: `Reweighting`, the value a configuration holds.

The steps are pure functions in this package: `density` counts, `inverse` turns counts into weights, `lds` smooths the
counts in between, `denseweight` does without bins. Weights multiply the regression loss and have mean one over the
training split, so that the loss keeps its scale when the scheme changes. Feature distribution smoothing (`fds`) changes
no weight; it stands here because the papers switch it together with LDS.

Where the published code and what it intends differ, both have a name, and the field that chooses says which is the
default and why: `LDS.published_truncation`, `LDS.root`, `FDS.published_aliasing`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.reweighting.denseweight import dense_weights
from dirtune.reweighting.density import label_density
from dirtune.reweighting.fds import FDS
from dirtune.reweighting.inverse import effective_counts, inverse_weights
from dirtune.reweighting.lds import LDS, smoothed_counts

__all__ = ["FDS", "LDS", "Reweighting", "Scheme"]

Scheme = Literal["none", "inverse", "sqrt_inverse", "dense"]


class Reweighting(Frozen):
    """How training samples are weighted. The papers use sqrt_inverse on ages and inverse on STS-B-DIR and NYUD2-DIR."""

    scheme: Scheme = "none"
    """none: weight one; inverse (INV): `1 / count`; sqrt_inverse (SQINV): `1 / sqrt(count)`; dense (DenseWeight): one
    minus the scaled kernel density."""
    clip: tuple[int, int] | None = None
    """Counts are limited to this range first; none: as they are. Published: 5, 1000 for inverse on ages. It has an
    effect for the two inverse schemes only."""
    alpha: float = Field(default=1.0, ge=0)
    """dense only: how strongly density lowers the weight; 0: not at all. Published default: 1."""
    lds: LDS | None = None
    """Smoothing of the counts; none: not smoothed."""
    fds: FDS | None = None
    """Smoothing of the embeddings, beside the weights; none: not smoothed."""

    @field_validator("clip")
    @classmethod
    def _is_a_range(cls, clip: tuple[int, int] | None) -> tuple[int, int] | None:
        if clip is not None and not 1 <= clip[0] <= clip[1]:
            raise ValueError("must be two counts in order, the first at least 1")
        return clip

    @model_validator(mode="after")
    def _has_something_to_smooth(self) -> Reweighting:
        if self.lds is not None and self.scheme in ("none", "dense"):
            raise ValueError(f"lds smooths the counts of a scheme, so scheme must not be {self.scheme!r}")
        return self

    def weights(
        self, bins: NDArray[np.int64], num_bins: int, labels: NDArray[np.floating] | None = None
    ) -> NDArray[np.float64]:
        """The weight of each training sample, from all training samples; mean one, shape `(samples,)`.

        Args:
            bins: bin index of each training sample (`dirtune.reweighting.density.label_bins`).
            num_bins: number of bins of the label; a grid of bins of several dimensions comes flattened.
            labels: the label of each training sample, `(samples,)` or `(samples, L)`; the scheme dense needs them, lds
                only looks at how many dimensions they have.

        Raises:
            InputError: labels of several dimensions under dense or lds, or an lds that does not fit the bins.
        """
        self._refuse_dimensions(labels)
        if self.scheme == "dense":
            if labels is None:
                raise ValueError("scheme 'dense' needs the labels of the training samples")
            return dense_weights(labels.reshape(-1), alpha=self.alpha)
        return self.bin_weights(label_density(bins, num_bins))[bins]

    def bin_weights(self, density: NDArray[np.int64]) -> NDArray[np.float64]:
        """The weight of a sample in each bin, with mean one over the training samples; shape `(num_bins,)`.

        For labels that are looked up by bin, as the depth of each pixel is. The scheme dense has no such weights.

        Args:
            density: training samples per bin.
        """
        return inverse_weights(self._effective_counts(density), density)

    def _effective_counts(self, density: NDArray[np.int64]) -> NDArray[np.float64]:
        if self.scheme == "dense":
            raise ValueError("scheme 'dense' has no weights of bins")
        if self.lds is None:
            return effective_counts(density, self.scheme, self.clip)
        if self.scheme == "sqrt_inverse" and self.lds.root == "after":
            return np.sqrt(smoothed_counts(effective_counts(density, "inverse", self.clip), self.lds))
        truncate = self.lds.published_truncation and self.scheme == "inverse"
        effective = effective_counts(density, self.scheme, self.clip)
        return smoothed_counts(effective, self.lds, truncate=truncate)

    def _refuse_dimensions(self, labels: NDArray[np.floating] | None) -> None:
        if labels is None or labels.size == len(labels):
            return
        for key, refused in (("scheme", self.scheme == "dense"), ("lds", self.lds is not None)):
            if refused:
                rule = "is made for labels of one dimension"
                dims, key = labels.size // len(labels), f"reweighting.{key}"
                raise InputError(Fault(where="training labels", key=key, rule=rule, got=dims))
