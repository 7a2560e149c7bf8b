"""Sums of a set of samples from which the metrics of one label dimension are computed; sums of two sets add up.

Everything is computed in float64. Second moments are centered and merged as such (Chan, Golub and LeVeque, "Updating formulae
and a pairwise algorithm for computing sample variances", COMPSTAT 1982), so that numbers far from zero lose no digits.
"""

import math
from dataclasses import dataclass

import numpy as np

Array = np.typing.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Count, mean, scatter and extremes of pairs `(x, y)`; `a + b` holds those of both sets together."""

    n: int
    mean: Array
    """Of (x, y), shape (2,)."""
    scatter: Array
    """Sum of outer products of (x, y) - mean, shape (2, 2)."""
    low: Array
    """Smallest (x, y), shape (2,); infinity without a pair."""
    high: Array
    """Largest (x, y), shape (2,)."""

    def __add__(self, other: "Moments") -> "Moments":
        # The update of Chan et al. for the union of two sets
        n = self.n + other.n
        share = other.n / max(n, 1)
        with np.errstate(invalid="ignore", over="ignore"):
            delta = other.mean - self.mean
            return Moments(
                n=n,
                mean=self.mean + delta * share,
                scatter=self.scatter + other.scatter + np.outer(delta, delta) * self.n * share,
                low=np.minimum(self.low, other.low),
                high=np.maximum(self.high, other.high),
            )

    @property
    def correlation(self) -> float:
        """Pearson's correlation, in -1..1; NaN for fewer than two pairs or constant numbers."""
        # The extremes decide, because the rounded mean of equal numbers may leave a tiny scatter.
        if self.n < 2 or (self.low == self.high).any():
            return math.nan
        spread = math.sqrt(self.scatter[0, 0]) * math.sqrt(self.scatter[1, 1])
        return float(np.clip(float(self.scatter[0, 1]) / spread, -1.0, 1.0)) if spread else math.nan


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """Sums of the errors of a set of samples; `a + b` holds those of both sets together."""

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
    bin_counts: np.typing.NDArray[np.int64]
    """Samples per distinct bin, shape (B,)."""
    bin_absolute: Array
    """Sum of |error| per distinct bin, shape (B,)."""

    @property
    def n(self) -> int:
        """Number of samples."""
        return self.moments.n

    def __add__(self, other: "ErrorSums") -> "ErrorSums":
        bins, positions = np.unique(np.concatenate([self.bins, other.bins]), return_inverse=True)
        counts = np.zeros(len(bins), dtype=np.int64)
        absolute = np.zeros(len(bins), dtype=np.float64)
        np.add.at(counts, positions, np.concatenate([self.bin_counts, other.bin_counts]))
        np.add.at(absolute, positions, np.concatenate([self.bin_absolute, other.bin_absolute]))
        # Predictions that are not finite make the sums NaN or infinite, without a warning.
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


def compute_moments(pairs: Array) -> Moments:
    """Compute the moments of the columns of `pairs`, shape `(2, n)`; `n` may be zero."""
    with np.errstate(invalid="ignore", over="ignore"):
        # Not `mean`, which warns of an empty set.
        mean = pairs.sum(axis=1) / max(pairs.shape[1], 1)
        centered = pairs - mean[:, None]
        return Moments(
            n=pairs.shape[1],
            mean=mean,
            scatter=centered @ centered.T,
            low=pairs.min(axis=1, initial=np.inf),
            high=pairs.max(axis=1, initial=-np.inf),
        )


def sum_errors(
    labels: np.typing.ArrayLike, predictions: np.typing.ArrayLike, bins: np.typing.ArrayLike | None = None
) -> ErrorSums:
    """Sum the errors of a set of samples (a batch, a shard, a region); all arguments have shape `(n,)`, `n` may be zero.

    Args:
        labels: in the label's unit, as the predictions.
        bins: the samples' label bins, for `balanced_mae`; None means that each distinct label is a bin of its own.

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
            # Exact hits have no logarithm and are counted apart.
            logs=float(np.log(errors[errors != 0]).sum()),
            zeros=int(np.count_nonzero(errors == 0)),
            moments=compute_moments(pair),
            bins=distinct,
            bin_counts=np.bincount(positions, minlength=len(distinct)).astype(np.int64),
            bin_absolute=np.bincount(positions, errors, len(distinct)).astype(np.float64),
        )


def as_rows(*arrays: np.typing.ArrayLike) -> Array:
    """Return the arrays as rows of one float64 matrix, shape `(len(arrays), n)`.

    Raises:
        ValueError: the arrays have different shapes, or more than one dimension.
    """
    columns = [np.asarray(array, dtype=np.float64) for array in arrays]
    shapes = [column.shape for column in columns]
    if len(shapes[0]) != 1 or len(set(shapes)) != 1:
        raise ValueError(f"all arguments must have one shape (n,), but got {shapes}")
    return np.stack(columns)
