"""Influence of every test sample on a metric, from which the uncertainty of new test samples is computed.

A metric of one model is written as a mean over samples, `value = mean(influence)`, that is exact for means of errors and
linear in small changes of the samples' weights for everything else: the infinitesimal jackknife, the limit of the
resampling that leaves samples out. So the same sums of squares serve every metric (`dirtune.results.statistics.joint`).

Source: Efron, "The Jackknife, the Bootstrap and Other Resampling Plans", SIAM 1982, chapter 6.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.metrics import compute_angular_errors

Array = NDArray[np.float64]

TINY = float(np.finfo(np.float64).tiny)
ZERO_ERROR = 1e-10
"""Replaces an error that is exactly zero, as in `dirtune.metrics.gmean`."""


def compute_influence(metric: str, labels: ArrayLike, predictions: ArrayLike, bins: ArrayLike | None = None) -> Array:
    """Return the influence of every sample on a metric, shape `(n,)`; their mean is the metric.

    Args:
        metric: a name of `INFLUENCES`.
        labels: shape `(n,)`, or `(n, L)` for labels of L dimensions, whose metrics are those of
            `dirtune.metrics.compute_metrics`.
        predictions: of the labels' shape.
        bins: each sample's label bin, which balanced_mae needs.

    Returns:
        NaN for all samples where the metric is undefined.
    """
    truth, predicted = (np.asarray(each, dtype=np.float64) for each in (labels, predictions))
    if truth.ndim == 1:
        truth, predicted = truth[:, None], predicted[:, None]
    # Undefined values are NaN, without a warning.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        return INFLUENCES[metric](truth, predicted, None if bins is None else np.asarray(bins))


def _of_mae(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    influence: Array = np.abs(predictions - labels).mean(axis=1)
    return influence


def _of_mse(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    influence: Array = np.square(predictions - labels).mean(axis=1)
    return influence


def _of_rmse(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    squares = np.square(predictions - labels).mean(axis=1)
    mean = squares.mean()
    influence: Array = np.sqrt(mean) + 0.5 / np.sqrt(np.maximum(mean, TINY)) * (squares - mean)
    return influence


def _of_gmean(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    errors = np.abs(predictions - labels)
    logs = np.log(np.where(errors == 0, ZERO_ERROR, errors)).mean(axis=1)
    influence: Array = np.exp(logs.mean()) * (1 + logs - logs.mean())
    return influence


def _of_balanced_mae(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    errors = np.abs(predictions - labels).mean(axis=1)
    _, positions, counts = np.unique(labels[:, 0] if bins is None else bins, return_inverse=True, return_counts=True)
    by_bin = np.bincount(positions, errors) / counts
    weights = len(errors) / (len(counts) * counts)
    influence: Array = by_bin.mean() + weights[positions] * (errors - by_bin[positions])
    return influence


def _of_r2(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    squares, spreads = np.square(predictions - labels), np.square(labels - labels.mean(axis=0))
    error, spread = squares.mean(axis=0), _nan_if_constant(labels, spreads.mean(axis=0))
    ratio = error / spread
    by_dimension = 1 - ratio - (squares - error) / spread + ratio * (spreads / spread - 1)
    influence: Array = by_dimension.mean(axis=1)
    return influence


def _of_pearson(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    first, second = (
        (each - each.mean(axis=0)) / _nan_if_constant(each, each.std(axis=0)) for each in (labels, predictions)
    )
    correlation = (first * second).mean(axis=0)
    by_dimension = correlation + first * second - correlation * (first**2 + second**2) / 2
    influence: Array = by_dimension.mean(axis=1)
    return influence


def _of_spearman(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    pairs = zip(labels.T, predictions.T, strict=True)
    influence: Array = np.mean([_compute_rank_influence(*pair) for pair in pairs], axis=0)
    return influence


def _of_angular_error(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    return compute_angular_errors(labels, predictions)


def _compute_rank_influence(first: Array, second: Array) -> Array:
    """Return the influence on Spearman's correlation; a sample moves the ranks of the others, too."""
    x, y = _rank(first), _rank(second)
    covariance, of_covariance = _compute_product_influence(x, y)
    scatters = [_compute_product_influence(each, each) for each in (x, y)]
    (scatter_x, of_x), (scatter_y, of_y) = scatters
    scale = np.sqrt(scatter_x * scatter_y) if scatter_x > 0 and scatter_y > 0 else np.nan
    correlation = covariance / scale
    influence: Array = correlation + of_covariance / scale - correlation / 2 * (of_x / scatter_x + of_y / scatter_y)
    return influence


def _rank(values: Array) -> tuple[Array, NDArray[np.int64]]:
    """Return the ranks as shares of the samples around zero, ties sharing their mean, and the position of each value."""
    _, positions, counts = np.unique(values, return_inverse=True, return_counts=True)
    below = np.cumsum(counts) - counts
    return ((below + counts / 2) / len(values) - 0.5)[positions], positions


def _compute_product_influence(
    x: tuple[Array, NDArray[np.int64]], y: tuple[Array, NDArray[np.int64]]
) -> tuple[float, Array]:
    """Return the mean product of two rankings, and every sample's influence on it, with mean zero."""
    product = (x[0] * y[0]).mean()
    # One more sample raises the rank of every value above it.
    through_x, through_y = (_sum_above(own[1], other[0]) / len(own[0]) for own, other in ((x, y), (y, x)))
    return float(product), x[0] * y[0] + through_x + through_y - 3 * product


def _sum_above(positions: NDArray[np.int64], weights: Array) -> Array:
    """Return for every sample the weights of those above it, and half of those equal to it."""
    sums = np.bincount(positions, weights)
    above: Array = np.cumsum(sums[::-1])[::-1] - sums / 2
    return above[positions]


def _nan_if_constant(values: Array, spread: Array) -> Array:
    # By the extremes, because the rounded spread of equal numbers may be tiny instead of zero.
    return np.where(values.min(axis=0) == values.max(axis=0), np.nan, spread)


INFLUENCES: dict[str, Callable[[Array, Array, NDArray[np.int64] | None], Array]] = {
    "mae": _of_mae,
    "mse": _of_mse,
    "rmse": _of_rmse,
    "gmean": _of_gmean,
    "balanced_mae": _of_balanced_mae,
    "r2": _of_r2,
    "pearson": _of_pearson,
    "spearman": _of_spearman,
    "angular_error": _of_angular_error,
}
"""Metrics whose differences have an interval over test samples."""
