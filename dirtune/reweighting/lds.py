"""Label distribution smoothing (LDS): the label density is convolved with a symmetric kernel before it is inverted.

Samples are evidence for neighboring labels too, so the density that matters to a regressor is
`p~(y') = integral of k(y, y') p(y) dy`; on bins, `c~ = c * k`. The effective counts are smoothed: clipped for the inverse
and, officially, already square-rooted for the inverse root.

Source: Yang et al., "Delving into Deep Imbalanced Regression", ICML 2021; official repository
YyzHarry/imbalanced-regression (`agedb-dir/utils.py`, `agedb-dir/datasets.py`, `sts-b-dir/tasks.py`,
`nyud2-dir/loaddata.py`). Departure: smoothed counts stay fractional, the official ones are cut to integers for the
inverse (`LDS.published_truncation`).
"""

from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen

Kernel = Literal["gaussian", "triang", "laplace"]
Boundary = Literal["constant", "reflect"]


class LDS(Frozen):
    """Label distribution smoothing (Yang et al., ICML 2021); formula and departures: `dirtune.reweighting.lds`.

    NYUD2-DIR: `boundary: reflect, first_bin: 7`; without smoothing there, `size: 1, first_bin: 7`.
    """

    kernel: Kernel = "gaussian"
    size: int = Field(default=5, gt=0)
    """Width of the kernel window, in bins; odd. The papers use 5; 1 smooths nothing."""
    sigma: float = Field(default=2.0, gt=0)
    """Width of the kernel, in bins. The papers use 2; without effect for triang."""
    boundary: Boundary = "constant"
    """Counts beyond the ends. constant: zero, officially for ages and STS-B; reflect: the mirrored counts, officially for
    NYUD2. An end of the label range is mostly an end of the data, hence the default."""
    first_bin: int = Field(default=0, ge=0)
    """Smoothing starts at this bin, and the bins below take its smoothed count. Official: 7 (NYUD2, depths from 0.7 m),
    otherwise 0."""
    root: Literal["before", "after"] = "before"
    """For the scheme sqrt_inverse. before: the roots of the counts are smoothed, as in the official code, the default because
    the published numbers were made with it; after: the root of the smoothed counts, as the paper's density suggests.
    Weights on AgeDB-DIR differ by up to 39 %."""
    published_truncation: bool = False
    """Truncate the smoothed counts to integers, as the official code does for the scheme inverse (without effect otherwise):
    its counts are integers, and scipy's convolution returns the type of its input. Off by default because it is not
    intended; weights on AgeDB-DIR change by up to 7 %."""

    @field_validator("size")
    @classmethod
    def _check_size(cls, size: int) -> int:
        if size % 2 == 0:
            raise ValueError("must be odd, so that the kernel has a center bin")
        return size


def smooth_counts(
    effective: np.typing.NDArray[np.float64], lds: LDS, *, truncate: bool = False
) -> np.typing.NDArray[np.float64]:
    """Convolve effective counts with the kernel from `first_bin` on; shape `(num_bins,)`.

    Args:
        effective: effective counts per bin.
        lds: the kernel and the boundary.
        truncate: True truncates the result to integers.

    Raises:
        InputError: `first_bin` is not one of the bins.
    """
    if lds.first_bin >= len(effective):
        rule = f"must be one of the {len(effective)} label bins"
        raise InputError(Fault(where="training labels", key="lds.first_bin", rule=rule, got=lds.first_bin))
    # As below: a third of a second of a plan or of a recorded sweep, few of which smooth.
    from scipy.ndimage import convolve1d

    window = make_kernel_window(lds.kernel, lds.size, lds.sigma)
    tail = convolve1d(effective[lds.first_bin :], weights=window, mode=lds.boundary)
    smoothed = np.pad(np.asarray(tail, dtype=np.float64), (lds.first_bin, 0), mode="edge")
    return np.trunc(smoothed) if truncate else smoothed


def make_kernel_window(kernel: Kernel, size: int, sigma: float) -> np.typing.NDArray[np.float64]:
    """Return the kernel on `size` bins (odd), scaled to a peak of one; the scale cancels in the weights.

    * gaussian: a unit impulse of `size` bins filtered by scipy's `gaussian_filter1d`. Its mirroring boundary folds the
      tails back, so 5 bins at sigma 2 are `[.858, .946, 1, .946, .858]`, flatter than `exp(-x^2 / 2 sigma^2)`.
    * triang: falls linearly to zero just outside the window; `sigma` has no effect.
    * laplace: `exp(-|x| / sigma)`.

    Args:
        kernel: name of the kernel.
        size: number of bins, odd.
        sigma: width in bins.
    """
    offsets = np.arange(size, dtype=np.float64) - size // 2
    if kernel == "triang":
        # The import takes a second, and only this kernel needs it.
        from scipy.signal.windows import triang

        return np.asarray(triang(size), dtype=np.float64)
    if kernel == "laplace":
        return np.exp(-np.abs(offsets) / sigma)
    from scipy.ndimage import gaussian_filter1d

    # As in the official code; the tails are folded back at the boundary.
    folded = gaussian_filter1d((offsets == 0).astype(np.float64), sigma=sigma)
    return np.asarray(folded / folded.max(), dtype=np.float64)
