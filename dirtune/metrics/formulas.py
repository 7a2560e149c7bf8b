"""Metrics of every data set, computed from `ErrorSums` of one label dimension.

Spearman's correlation needs the ranks among all samples, which no sums can give: its entry in `METRICS` is None and
`spearman` takes the arrays. Undefined values (no sample, fewer than two, constant input) are NaN, never an exception or a
warning.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression: `agedb-dir/train.py`, `sts-b-dir/util.py`) for mae,
mse, gmean, pearson, spearman; Ren et al., "Balanced MSE for Imbalanced Visual Regression", CVPR 2022, for balanced_mae;
Zhao et al., AAAI 2025, for r2. Departures: 1. an empty region is NaN (officially an exception on ages, zero on STS-B);
2. `gmean` treats zero errors alike for all data sets, and `zero_errors` counts them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Set

import numpy as np
from numpy.typing import NDArray

from dirtune.metrics.sums import ErrorSums, as_rows, sum_errors
from dirtune.registry import Registry


def mae(sums: ErrorSums) -> float:
    """Compute the mean absolute error, `mean |prediction - label|`, in the label's unit."""
    return _divide(sums.absolute, sums.n)


def mse(sums: ErrorSums) -> float:
    """Compute the mean squared error, in the label's unit squared."""
    return _divide(sums.squared, sums.n)


def rmse(sums: ErrorSums) -> float:
    """Compute the root of the mean squared error over all samples, in the label's unit."""
    return math.sqrt(mse(sums))


def gmean(sums: ErrorSums, *, epsilon: float = 1e-10) -> float:
    """Compute the geometric mean of the absolute errors, `exp(mean log |error|)`, in the label's unit.

    Args:
        sums: of the samples.
        epsilon: replaces errors that are exactly zero. The default is the official STS-B code's: one exact hit in 2,000
            lowers the result by about 1 % instead of making it zero. The official code for ages has none, which is
            `epsilon=0`: any exact hit gives zero. `zero_errors` is their number in both cases.
    """
    if sums.zeros and epsilon == 0:
        return 0.0
    # 0 * log 0 would be NaN without a zero error.
    replaced = sums.zeros * math.log(epsilon) if sums.zeros else 0.0
    return math.exp(_divide(sums.logs + replaced, sums.n))


def zero_errors(sums: ErrorSums) -> float:
    """Count the predictions that equal their label exactly; zero without a sample."""
    return float(sums.zeros)


def balanced_mae(sums: ErrorSums) -> float:
    """Compute the mean over the label bins that occur of each bin's mean absolute error, in the label's unit."""
    return _divide(float((sums.bin_absolute / sums.bin_counts).sum()), len(sums.bins))


def r2(sums: ErrorSums) -> float:
    """Compute the coefficient of determination, `1 - MSE / Var(label)`, population variance; undefined for equal labels."""
    moments = sums.moments
    # By the extremes, because the rounded scatter of equal labels may be tiny instead of zero.
    if moments.n < 2 or moments.low[0] == moments.high[0]:
        return math.nan
    return 1.0 - _divide(sums.squared, float(moments.scatter[0, 0]))


def pearson(sums: ErrorSums) -> float:
    """Compute Pearson's correlation of predictions and labels, in -1..1; undefined where either is constant."""
    return sums.moments.correlation


def spearman(labels: np.typing.ArrayLike, predictions: np.typing.ArrayLike) -> float:
    """Compute Spearman's rank correlation, in -1..1 (ties share their mean rank); both arguments have shape `(n,)`."""
    pair = as_rows(labels, predictions)
    # NaN would have a rank like any number.
    if np.isnan(pair).any():
        return math.nan
    return pearson(sum_errors(*map(_rank, pair)))


def _rank(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ranks from 1, shape `(n,)`, as `scipy.stats.rankdata`, which takes a second and 40 MB to import."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    mean_ranks: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return mean_ranks[inverse]


METRICS: Registry[Callable[[ErrorSums], float] | None] = Registry(
    "metric",
    {
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
    },
)


class Directions(Set[str]):
    """Metrics for which more is better.

    Args:
        names: those of dirtune itself; plug-ins and recorded studies add theirs.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._own = frozenset(names)
        self._noted: dict[str, bool] = {}

    @classmethod
    def _from_iterable(cls, it: Iterable[str]) -> frozenset[str]:  # type: ignore[override]
        return frozenset(it)

    def __contains__(self, name: object) -> bool:
        return name in self._own or (isinstance(name, str) and self._noted.get(name, False))

    def __iter__(self) -> Iterator[str]:
        return iter([*self._own, *(name for name, is_higher in self._noted.items() if is_higher)])

    def __len__(self) -> int:
        return len([*self])

    def note(self, name: str, *, higher_is_better: bool) -> None:
        """Note the direction of a metric of a plug-in, as it is registered or as a study has recorded it."""
        self._noted[name] = higher_is_better


HIGHER_IS_BETTER = Directions({"r2", "pearson", "spearman", "delta1", "delta2", "delta3", "tolerance"})
"""Metrics for which more is better, among all in tables: the deltas are of `dirtune.metrics.depth`, tolerance is of
`dirtune.diagnostics`."""


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
