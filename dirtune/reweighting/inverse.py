"""Inverse re-weighting: a sample weighs the inverse of how often its label occurs (INV), or of the root of it (SQINV).

`w_i = (1 / c_b(i)) * N / sum_j 1 / c_b(j)`, where `c_b` is the effective count of bin `b` and the sum runs over the
`N` training samples, so that the mean weight over the training set is one. Label distribution smoothing
(`dirtune.reweighting.lds`) stands between the two functions here: it smooths the effective counts.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`agedb-dir/datasets.py`, `sts-b-dir/tasks.py`). Departures: 1. weights are float64, the
official ones are rounded to float32; 2. clipping is a setting, officially fixed per data set and scheme.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scheme = Literal["none", "inverse", "sqrt_inverse"]


def effective_counts(
    density: NDArray[np.int64], scheme: Scheme, clip: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """What each bin's weight is the inverse of: its count (inverse), the root of it (sqrt_inverse), or one (none).

    Args:
        density: training samples per bin, shape `(num_bins,)`.
        scheme: which inverse.
        clip: counts are raised and lowered to these limits first. Published: `(5, 1000)` for inverse on AgeDB-DIR and
            IMDB-WIKI-DIR, none elsewhere. It raises empty bins too, which matters once the counts are smoothed.
    """
    if scheme == "none":
        return np.ones(len(density), dtype=np.float64)
    counts = np.asarray(density, dtype=np.float64)
    if clip is not None:
        counts = np.clip(counts, *clip)
    return counts if scheme == "inverse" else np.sqrt(counts)


def inverse_weights(effective: NDArray[np.float64], bins: NDArray[np.int64]) -> NDArray[np.float64]:
    """The weight of each training sample, with mean one; shape of `bins`.

    Args:
        effective: effective counts, shape `(num_bins,)`; positive in every bin that a sample is in.
        bins: the training samples' bins. They must be the ones that were counted: weights of a subset of the training
            set are to be computed from that subset.
    """
    inverse: NDArray[np.float64] = 1.0 / effective[bins]
    return inverse / float(inverse.mean())
