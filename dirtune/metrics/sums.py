"""`ErrorSums`: what a set of samples contributes to the metrics of one label dimension, in parts that add up.

Everything is float64 inside, whatever comes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.metrics.moments import Array, Moments, moments


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """What a set of samples contributes to the metrics; `a + b` is the contribution of both sets together."""

    absolute: float
    """Sum of |error|."""
    squared: float
    """Sum of error ** 2."""
    logs: float
    """Sum of log |error| over the errors that are not zero."""
    zeros: int
    """Number of errors that are exactly zero."""
    moments: Moments
    """Of (label, prediction)."""
    bins: Array
    """Distinct bins, ascending, shape (B,)."""
    bin_counts: NDArray[np.int64]
    """Samples per distinct bin, shape (B,)."""
    bin_absolute: Array
    """Sum of |error| per distinct bin, shape (B,)."""

    @property
    def n(self) -> int:
        """Samples."""
        return self.moments.n

    def __add__(self, other: ErrorSums) -> ErrorSums:
        bins, counts, absolute = _add_bins(self, other)
        with np.errstate(invalid="ignore", over="ignore"):
            return ErrorSums(
                absolute=self.absolute + other.absolute,
                squared=self.squared + other.squared,
                logs=self.logs + other.logs,
                zeros=self.zeros + other.zeros,
                moments=self.moments + other.moments,
                bins=bins,
                bin_counts=counts,
                bin_absolute=absolute,
            )


def error_sums(labels: ArrayLike, predictions: ArrayLike, bins: ArrayLike | None = None) -> ErrorSums:
    """The sums of one set of samples (a batch, a shard, a region); all arguments have shape `(n,)`, `n` may be zero.

    Args:
        labels: in the label's unit, as the predictions.
        bins: the samples' label bins, for `balanced_mae`; without them each distinct label is a bin of its own.

    Raises:
        ValueError: the shapes differ.
    """
    columns = as_rows(labels, predictions, labels if bins is None else bins)
    pair = columns[:2]
    distinct, positions = np.unique(columns[2], return_inverse=True)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(pair[1] - pair[0])
        return ErrorSums(
            absolute=float(errors.sum()),
            squared=float(np.square(errors).sum()),
            logs=float(np.log(errors[errors != 0]).sum()),
            zeros=int(np.count_nonzero(errors == 0)),
            moments=moments(pair),
            bins=distinct,
            bin_counts=np.bincount(positions, minlength=len(distinct)).astype(np.int64),
            bin_absolute=np.bincount(positions, errors, len(distinct)).astype(np.float64),
        )


def as_rows(*arrays: ArrayLike) -> Array:
    """The arrays as rows of one float64 matrix, shape `(len(arrays), n)`."""
    columns = [np.asarray(array, dtype=np.float64) for array in arrays]
    shapes = [column.shape for column in columns]
    if len(shapes[0]) != 1 or len(set(shapes)) != 1:
        raise ValueError(f"all arguments must have one shape (n,), but got {shapes}")
    return np.stack(columns)


def _add_bins(first: ErrorSums, second: ErrorSums) -> tuple[Array, NDArray[np.int64], Array]:
    bins, positions = np.unique(np.concatenate([first.bins, second.bins]), return_inverse=True)
    counts = np.zeros(len(bins), dtype=np.int64)
    absolute = np.zeros(len(bins), dtype=np.float64)
    np.add.at(counts, positions, np.concatenate([first.bin_counts, second.bin_counts]))
    np.add.at(absolute, positions, np.concatenate([first.bin_absolute, second.bin_absolute]))
    return bins, counts, absolute
