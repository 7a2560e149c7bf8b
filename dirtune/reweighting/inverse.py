"""Inverse re-weighting: weights by the inverse frequency of a label (INV), or by its inverse square root (SQINV).

`w_b = (1 / c_b) * N / sum_a n_a / c_a`, where `c_b` is the effective count of bin `b`, `n_b` the number of its training
samples and `N` the number of all, so that the mean weight over the training set is one. Label distribution smoothing
(`dirtune.reweighting.lds`) is applied between the two functions here, to the effective counts.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`agedb-dir/datasets.py`, `sts-b-dir/tasks.py`, `nyud2-dir/loaddata.py`). Departures:
1. weights are float64, the official ones are rounded to float32; 2. clipping is a setting, officially fixed per data set
and scheme; 3. a bin that has no effective count weighs 0, officially infinity.
"""

from typing import Literal

import numpy as np

from dirtune.errors import Fault, InputError

CountScheme = Literal["none", "inverse", "sqrt_inverse"]


def compute_effective_counts(
    density: np.typing.NDArray[np.int64], scheme: CountScheme, clip: tuple[int, int] | None = None
) -> np.typing.NDArray[np.float64]:
    """Return the inverse of each bin's unscaled weight: its count (inverse), its root (sqrt_inverse), or one (none).

    Args:
        density: training samples per bin, shape `(num_bins,)`.
        scheme: inverse of the count, of its root, or none.
        clip: limits to which counts are clipped first. Published: `(5, 1000)` for inverse on AgeDB-DIR and
            IMDB-WIKI-DIR, none elsewhere. It raises empty bins too, which matters once the counts are smoothed.
    """
    if scheme == "none":
        return np.ones(len(density), dtype=np.float64)
    counts = np.asarray(density, dtype=np.float64)
    if clip is not None:
        counts = np.clip(counts, *clip)
    return counts if scheme == "inverse" else np.sqrt(counts)


def compute_inverse_weights(
    effective: np.typing.NDArray[np.float64], density: np.typing.NDArray[np.int64]
) -> np.typing.NDArray[np.float64]:
    """Return the weight of each bin, with mean one over the training samples; shape `(num_bins,)`.

    Args:
        effective: effective counts, shape `(num_bins,)`; the weight of a bin without a count is 0.
        density: training samples per bin, the same samples as for the effective counts: the weights of a subset of the
            training set must be computed from that subset.

    Raises:
        InputError: a bin with samples has no effective count.
    """
    has_count = effective > 0
    without_count = np.flatnonzero((density > 0) & ~has_count)
    if len(without_count):
        # Only `first_bin` of the smoothing can take the count from a bin with samples.
        rule = "must be a bin with training samples, because bins below take its count; bins without a count"
        key = "reweighting.lds.first_bin"
        raise InputError(Fault(where="training labels", key=key, rule=rule, got=without_count.tolist()))
    inverse = np.divide(1.0, effective, out=np.zeros_like(effective), where=has_count)
    return np.asarray(inverse * (density.sum() / (density @ inverse)), dtype=np.float64)
