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


def compute_mae_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the mean absolute error, each sample's own: `mean over dimensions |prediction - label|`."""
    influence: Array = np.abs(predictions - labels).mean(axis=1)
    return influence


def compute_mse_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the mean squared error, each sample's own."""
    influence: Array = np.square(predictions - labels).mean(axis=1)
    return influence


def compute_rmse_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the root of the mean squared error, linear in each sample's squared error `s`.

    With the mean squared error `m`, it is `sqrt(m) + (s - m) / (2 sqrt(m))`.
    """
    squares = np.square(predictions - labels).mean(axis=1)
    mean = squares.mean()
    influence: Array = np.sqrt(mean) + 0.5 / np.sqrt(np.maximum(mean, TINY)) * (squares - mean)
    return influence


def compute_gmean_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the geometric mean `g` of the errors, `g (1 + log |error| - mean log |error|)`."""
    errors = np.abs(predictions - labels)
    logs = np.log(np.where(errors == 0, ZERO_ERROR, errors)).mean(axis=1)
    influence: Array = np.exp(logs.mean()) * (1 + logs - logs.mean())
    return influence


def compute_balanced_mae_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the mean over the label bins that occur of each bin's mean absolute error."""
    errors = np.abs(predictions - labels).mean(axis=1)
    _, positions, counts = np.unique(labels[:, 0] if bins is None else bins, return_inverse=True, return_counts=True)
    by_bin = np.bincount(positions, errors) / counts
    weights = len(errors) / (len(counts) * counts)
    influence: Array = by_bin.mean() + weights[positions] * (errors - by_bin[positions])
    return influence


def compute_r2_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the coefficient of determination, the mean over the label's dimensions."""
    squares, spreads = np.square(predictions - labels), np.square(labels - labels.mean(axis=0))
    error, spread = squares.mean(axis=0), _nan_if_constant(labels, spreads.mean(axis=0))
    ratio = error / spread
    by_dimension = 1 - ratio - (squares - error) / spread + ratio * (spreads / spread - 1)
    influence: Array = by_dimension.mean(axis=1)
    return influence


def compute_pearson_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on Pearson's correlation `r`: `r + x y - r (x^2 + y^2) / 2` of standardized values."""
    first, second = (
        (each - each.mean(axis=0)) / _nan_if_constant(each, each.std(axis=0)) for each in (labels, predictions)
    )
    correlation = (first * second).mean(axis=0)
    by_dimension = correlation + first * second - correlation * (first**2 + second**2) / 2
    influence: Array = by_dimension.mean(axis=1)
    return influence


def compute_spearman_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on Spearman's correlation, the mean over the label's dimensions."""
    pairs = zip(labels.T, predictions.T, strict=True)
    influence: Array = np.mean([_compute_rank_influence(*pair) for pair in pairs], axis=0)
    return influence


def compute_angular_error_influence(labels: Array, predictions: Array, bins: NDArray[np.int64] | None) -> Array:
    """Compute the influence on the mean angle between the directions of gaze, each sample's own."""
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
    "mae": compute_mae_influence,
    "mse": compute_mse_influence,
    "rmse": compute_rmse_influence,
    "gmean": compute_gmean_influence,
    "balanced_mae": compute_balanced_mae_influence,
    "r2": compute_r2_influence,
    "pearson": compute_pearson_influence,
    "spearman": compute_spearman_influence,
    "angular_error": compute_angular_error_influence,
}
"""Metrics whose differences have an interval over test samples."""
