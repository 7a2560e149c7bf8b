"""Label distribution smoothing (LDS): the label density is convolved with a symmetric kernel before it is inverted.

Neighbouring labels share their samples' evidence, so the density that matters to a regressor is
`p~(y') = integral of k(y, y') p(y) dy`; on bins, `c~ = c * k`. What is smoothed are the effective counts: clipped for
the inverse and already square-rooted for the inverse root, so that SQINV+LDS uses `k * sqrt(n)`, not `sqrt(k * n)`.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`agedb-dir/utils.py`, `agedb-dir/datasets.py`, `sts-b-dir/tasks.py`). Departures:
1. smoothed counts stay fractional, the official ones are cut to integers for the inverse (`truncate`); 2. beyond the
first and last bin there are zeros, as officially for ages and STS-B (depth mirrors there, which is not offered).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d, gaussian_filter1d
from scipy.signal.windows import triang

Kernel = Literal["gaussian", "triang", "laplace"]


def kernel_window(kernel: Kernel, size: int, sigma: float) -> NDArray[np.float64]:
    """The kernel on `size` bins (odd), scaled to a peak of one; the scale cancels in the weights.

    * gaussian: a unit impulse of `size` bins filtered by scipy's `gaussian_filter1d`. Its mirroring boundary folds the
      tails back, so 5 bins at sigma 2 are `[.858, .946, 1, .946, .858]`, flatter than `exp(-x^2 / 2 sigma^2)`.
    * triang: falls linearly to zero just outside the window; `sigma` has no effect.
    * laplace: `exp(-|x| / sigma)`.

    Args:
        kernel: which one.
        size: number of bins, odd.
        sigma: width in bins.
    """
    offsets = np.arange(size, dtype=np.float64) - size // 2
    if kernel == "triang":
        return np.asarray(triang(size), dtype=np.float64)
    if kernel == "laplace":
        return np.exp(-np.abs(offsets) / sigma)
    folded = gaussian_filter1d((offsets == 0).astype(np.float64), sigma=sigma)
    return np.asarray(folded / folded.max(), dtype=np.float64)


def smoothed_counts(
    effective: NDArray[np.float64], window: NDArray[np.float64], *, truncate: bool = False
) -> NDArray[np.float64]:
    """Effective counts convolved with a kernel window, zeros beyond the ends; shape `(num_bins,)`.

    Args:
        effective: effective counts per bin.
        window: odd length, symmetric.
        truncate: cut the result to integers. The official code does so for the inverse, because its counts are
            integers and scipy's convolution answers in the type it was given; weights on AgeDB-DIR change by up to 7 %.
    """
    smoothed = np.asarray(convolve1d(effective, weights=window, mode="constant"), dtype=np.float64)
    return np.trunc(smoothed) if truncate else smoothed
