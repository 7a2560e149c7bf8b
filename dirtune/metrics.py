"""Metrics of predictions, per shot region: sums that add up, and the metrics computed from them.

A metric here is a function of `ErrorSums`, and the sums of two shards add up to the sums of their union, so a metric is
distributable because its parts are. Everything is float64 inside, whatever comes in; the second moments are centred and
merged as such (Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances",
COMPSTAT 1982), so that labels far from zero lose no digits. Spearman's correlation needs the ranks among all samples
and is the one metric that no sums can give: its entry in `METRICS` is None and `spearman` takes the arrays.

What is undefined (no sample, fewer than two, constant input) is NaN, never an exception or a warning.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression: `agedb-dir/train.py`, `sts-b-dir/util.py`) for mae,
mse, gmean, pearson, spearman; Ren et al., "Balanced MSE for Imbalanced Visual Regression", CVPR 2022, for balanced_mae;
Zhao et al., AAAI 2025, for r2. Departures: 1. an empty region is NaN (officially an exception on ages, zero on STS-B);
2. `gmean` treats zero errors alike for all data sets, and `zero_errors` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]

REGIONS = ("all", "many", "medium", "few")


@dataclass(frozen=True, kw_only=True)
class ErrorSums:
    """What a set of samples contributes to the metrics; `a + b` is the contribution of both sets together."""

    n: int
    absolute: float  # sum of |error|
    squared: float  # sum of error ** 2
    logs: float  # sum of log |error| over the errors that are not zero
    zeros: int  # number of errors that are exactly zero
    mean: Array  # of (label, prediction), shape (2,)
    scatter: Array  # sum of outer products of (label, prediction) - mean, shape (2, 2)
    low: Array  # smallest (label, prediction), shape (2,)
    high: Array  # largest (label, prediction), shape (2,)
    bins: Array  # distinct bins, ascending, shape (B,)
    bin_counts: NDArray[np.int64]  # samples per distinct bin, shape (B,)
    bin_absolute: Array  # sum of |error| per distinct bin, shape (B,)

    def __add__(self, other: ErrorSums) -> ErrorSums:
        n = self.n + other.n
        share = other.n / max(n, 1)
        bins, counts, absolute = _add_bins(self, other)
        with np.errstate(invalid="ignore", over="ignore"):
            delta = other.mean - self.mean
            return ErrorSums(
                n=n,
                absolute=self.absolute + other.absolute,
                squared=self.squared + other.squared,
                logs=self.logs + other.logs,
                zeros=self.zeros + other.zeros,
                mean=self.mean + delta * share,
                scatter=self.scatter + other.scatter + np.outer(delta, delta) * self.n * share,
                low=np.minimum(self.low, other.low),
                high=np.maximum(self.high, other.high),
                bins=bins,
                bin_counts=counts,
                bin_absolute=absolute,
            )


def error_sums(
    labels: ArrayLike, predictions: ArrayLike, bins: ArrayLike | None = None
) -> ErrorSums:
    """The sums of one set of samples (a batch, a shard, a region); all arguments have shape `(n,)`, `n` may be zero.

    Args:
        labels: in the label's unit, as the predictions.
        bins: the samples' label bins, for `balanced_mae`; without them each distinct label is a bin of its own.

    Raises:
        ValueError: the shapes differ.
    """
    columns = _columns(labels, predictions, labels if bins is None else bins)
    pair = columns[:2]
    distinct, positions = np.unique(columns[2], return_inverse=True)
    with np.errstate(invalid="ignore", over="ignore"):
        errors = np.abs(pair[1] - pair[0])
        n = len(errors)
        mean = pair.sum(axis=1) / max(n, 1)
        centred = pair - mean[:, None]
        return ErrorSums(
            n=n,
            absolute=float(errors.sum()),
            squared=float(np.square(errors).sum()),
            logs=float(np.log(errors[errors != 0]).sum()),
            zeros=int(np.count_nonzero(errors == 0)),
            mean=mean,
            scatter=centred @ centred.T,
            low=pair.min(axis=1, initial=np.inf),
            high=pair.max(axis=1, initial=-np.inf),
            bins=distinct,
            bin_counts=np.bincount(positions, minlength=len(distinct)).astype(np.int64),
            bin_absolute=np.bincount(positions, errors, len(distinct)).astype(np.float64),
        )


def mae(sums: ErrorSums) -> float:
    """Mean absolute error, `mean |prediction - label|`, in the label's unit."""
    return _ratio(sums.absolute, sums.n)


def mse(sums: ErrorSums) -> float:
    """Mean squared error, in the label's unit squared."""
    return _ratio(sums.squared, sums.n)


def rmse(sums: ErrorSums) -> float:
    """Root of the mean squared error over all samples, in the label's unit."""
    return math.sqrt(mse(sums))


def gmean(sums: ErrorSums, *, epsilon: float = 1e-10) -> float:
    """Geometric mean of the absolute errors, `exp(mean log |error|)`, in the label's unit.

    Args:
        sums: of the samples.
        epsilon: stands for errors that are exactly zero. The default is the official STS-B code's: one exact hit in
            2,000 lowers the result by about 1 % instead of making it zero. The official code for ages has none, which
            is `epsilon=0`: any exact hit gives zero. Either way `zero_errors` says how many there are.
    """
    if sums.zeros and epsilon == 0:
        return 0.0
    replaced = sums.zeros * math.log(epsilon) if sums.zeros else 0.0
    return math.exp(_ratio(sums.logs + replaced, sums.n))


def zero_errors(sums: ErrorSums) -> float:
    """Number of predictions that equal their label exactly; zero for no sample."""
    return float(sums.zeros)


def balanced_mae(sums: ErrorSums) -> float:
    """Mean over the label bins that occur of each bin's mean absolute error, in the label's unit."""
    return _ratio(float((sums.bin_absolute / sums.bin_counts).sum()), len(sums.bins))


def r2(sums: ErrorSums) -> float:
    """Coefficient of determination, `1 - MSE / Var(label)` with the population variance; undefined for equal labels."""
    if sums.n < 2 or sums.low[0] == sums.high[0]:
        return math.nan
    return 1.0 - _ratio(sums.squared, float(sums.scatter[0, 0]))


def pearson(sums: ErrorSums) -> float:
    """Pearson's correlation of predictions and labels, in -1..1; undefined where either is constant."""
    # Equality of the extremes, because the rounded mean of equal numbers may leave a tiny scatter.
    if sums.n < 2 or (sums.low == sums.high).any():
        return math.nan
    spread = math.sqrt(sums.scatter[0, 0]) * math.sqrt(sums.scatter[1, 1])
    return float(np.clip(_ratio(float(sums.scatter[0, 1]), spread), -1.0, 1.0))


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Spearman's rank correlation of all samples, in -1..1 (ties share their mean rank); both of shape `(n,)`."""
    pair = _columns(labels, predictions)
    if np.isnan(pair).any():
        return math.nan
    return pearson(error_sums(*rankdata(pair, axis=1)))


METRICS: dict[str, Callable[[ErrorSums], float] | None] = {
    "mae": mae,
    "mse": mse,
    "rmse": rmse,
    "gmean": gmean,
    "zero_errors": zero_errors,
    "balanced_mae": balanced_mae,
    "r2": r2,
    "pearson": pearson,
    "spearman": None,  # not a function of sums
}
HIGHER_IS_BETTER = frozenset({"r2", "pearson", "spearman"})


class RegionMetric(TypedDict):
    """One row of the metrics table, without what identifies the trial."""

    region: str
    metric: str
    value: float  # NaN where undefined
    n: int  # samples in the region


def region_metrics(
    labels: ArrayLike,
    predictions: ArrayLike,
    regions: NDArray[np.str_],
    *,
    bins: ArrayLike | None = None,
) -> list[RegionMetric]:
    """Every metric for all samples and for each shot region; an empty region has its rows too, with `n` zero.

    Args:
        labels: shape `(n,)`, in the label's unit, as the predictions.
        predictions: shape `(n,)`.
        regions: each sample's shot region, from `dirtune.reweighting.density.shot_regions`.
        bins: each sample's label bin, for `balanced_mae`; without them each distinct label is a bin of its own.
    """
    columns = _columns(labels, predictions, labels if bins is None else bins)
    if regions.shape != columns[0].shape:
        raise ValueError(f"regions must be one per label, but got {regions.shape}")
    rows: list[RegionMetric] = []
    for region in REGIONS:
        chosen = np.full(regions.shape, True) if region == "all" else regions == region
        rows += _rows(region, *columns[:, chosen])
    return rows


def _rows(region: str, labels: Array, predictions: Array, bins: Array) -> list[RegionMetric]:
    sums = error_sums(labels, predictions, bins)
    rows: list[RegionMetric] = []
    for name, metric in METRICS.items():
        value = metric(sums) if metric else spearman(labels, predictions)
        rows.append(RegionMetric(region=region, metric=name, value=value, n=sums.n))
    return rows


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan


def _columns(*arrays: ArrayLike) -> Array:
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
