"""DenseWeight: weights that fall with the density of the labels around a sample's own, estimated without bins.

Source: Steininger et al., "Density-based weighting for imbalanced regression", Machine Learning 110, 2021; official
repository SteiMi/denseweight. Departures from its code: 1. the density is scaled by its extremes over the training
labels, as in the paper; the code takes the extremes over a grid that extends beyond the labels and into their gaps;
2. densities between grid points are interpolated, where the code takes the point to the left, of 4,096 over the whole
range; the grid here is finer where the kernel is narrow. Weighted MSE with these weights is the paper's DenseLoss.
"""

import numpy as np

_STEPS_PER_BANDWIDTH = 256
# A normal kernel eight standard deviations out is below 1e-14 of its peak.
_KERNEL_REACH = 8
# Error of a density by the grid, relative to the largest density; smaller differences mean nothing.
_ACCURACY = 1e-5


def compute_dense_weights(
    labels: np.typing.NDArray[np.floating], *, alpha: float, epsilon: float = 1e-6
) -> np.typing.NDArray[np.float64]:
    """Compute `w_i = max(1 - alpha p'_i, epsilon)`, divided by its mean; shape of `labels`.

    `p'` is the kernel density of the labels, scaled to 0 at the rarest and to 1 at the densest training label. If all labels
    are equally dense, every weight is one.

    Args:
        labels: of all training samples, shape `(samples,)`.
        alpha: 0: every weight is one; 1: the weight of the densest label is epsilon; above 1, that of more labels is.
        epsilon: the smallest weight, before the division by the mean. Published: 1e-6.
    """
    density = estimate_density(labels)
    spread = np.ptp(density)
    if spread <= _ACCURACY * density.max():
        return np.ones_like(density)
    weights = np.maximum(1 - alpha * (density - density.min()) / spread, epsilon)
    return np.asarray(weights / weights.mean(), dtype=np.float64)


def estimate_density(labels: np.typing.NDArray[np.floating]) -> np.typing.NDArray[np.float64]:
    """Estimate `p_i = 1 / (n h) sum_j phi((y_i - y_j) / h)` with the normal density phi; shape of `labels`.

    The bandwidth is Silverman's `h = 1.06 sd n^(-1/5)`, with the standard deviation of the population. The sum is
    evaluated on a grid of h / 256: each label is divided between its two neighbors, the grid is convolved with phi, and the
    result interpolated. That is exact to 1e-5 of the largest density and takes tens of milliseconds for 200,000 distinct
    labels, where the sum itself takes minutes. Equal labels have the density 1 by definition.
    """
    # The import takes a second, and only this function needs it.
    from scipy.signal import fftconvolve

    values = np.asarray(labels, dtype=np.float64)
    bandwidth = 1.06 * values.std() * len(values) ** -0.2
    if bandwidth == 0:
        return np.ones_like(values)
    positions = (values - values.min()) / bandwidth * _STEPS_PER_BANDWIDTH
    # A label between two grid points is divided between them in proportion to its distance.
    left = positions.astype(np.int64)
    right_share = positions - left
    num_points = int(left.max()) + 2
    on_left = np.bincount(left, 1 - right_share, minlength=num_points)
    on_right = np.bincount(left + 1, right_share, minlength=num_points)
    counts = np.asarray(on_left + on_right, dtype=np.float64)
    reach = _KERNEL_REACH * _STEPS_PER_BANDWIDTH
    offsets = np.arange(-reach, reach + 1) / _STEPS_PER_BANDWIDTH
    window = np.asarray(np.exp(-0.5 * offsets**2) / np.sqrt(2 * np.pi), dtype=np.float64)
    summed = fftconvolve(counts, window, mode="same")
    at_labels = np.interp(positions, np.arange(num_points), summed)
    return np.asarray(at_labels / (len(values) * bandwidth), dtype=np.float64)
