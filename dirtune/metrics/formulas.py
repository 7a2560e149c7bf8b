"""The metrics of every data set, computed from `ErrorSums` of one label dimension.

Spearman's correlation needs the ranks among all samples and is the one metric that no sums can give: its entry in
`METRICS` is None and `spearman` takes the arrays. What is undefined (no sample, fewer than two, constant input) is NaN,
never an exception or a warning.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression: `agedb-dir/train.py`, `sts-b-dir/util.py`) for mae,
mse, gmean, pearson, spearman; Ren et al., "Balanced MSE for Imbalanced Visual Regression", CVPR 2022, for balanced_mae;
Zhao et al., AAAI 2025, for r2. Departures: 1. an empty region is NaN (officially an exception on ages, zero on STS-B);
2. `gmean` treats zero errors alike for all data sets, and `zero_errors` counts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from dirtune.metrics.sums import ErrorSums, as_rows, error_sums


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
    moments = sums.moments
    if moments.n < 2 or moments.low[0] == moments.high[0]:
        return math.nan
    return 1.0 - _ratio(sums.squared, float(moments.scatter[0, 0]))


def pearson(sums: ErrorSums) -> float:
    """Pearson's correlation of predictions and labels, in -1..1; undefined where either is constant."""
    return sums.moments.correlation


def spearman(labels: ArrayLike, predictions: ArrayLike) -> float:
    """Spearman's rank correlation of all samples, in -1..1 (ties share their mean rank); both of shape `(n,)`."""
    pair = as_rows(labels, predictions)
    if np.isnan(pair).any():
        return math.nan
    # Here, because it takes a second to import, and who only reads results needs no ranks.
    from scipy.stats import rankdata

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
    # Not a function of sums
    "spearman": None,
}
HIGHER_IS_BETTER = frozenset({"r2", "pearson", "spearman", "delta1", "delta2", "delta3", "tolerance"})
"""Of all that tables show: the deltas are shares of pixels in published results on depth, tolerance is one of
`dirtune.diagnostics`."""


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
