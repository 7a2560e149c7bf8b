"""Means, spreads and paired comparisons over seeds: pure functions on plain numbers.

A study has few seeds (three to eleven), so every interval is Student's t, and two arms are compared seed by seed: the
same seed gives both the same start and the same sample order, and their common luck cancels in the difference. What
cannot be estimated is NaN, never an exception: one seed has no spread.

Student's t is the default because no other interval over seeds does better. Of 95 % intervals over five and ten seeds
95 to 96 % contain the truth where the seeds' luck is normal or heavy-tailed, 92 to 93 % where it is skewed in one arm only;
the bootstraps of `dirtune.results.statistics.bootstrap` are shorter than they claim, or longer (`benchmarks/coverage.py`; each figure
± 0.6). All of them speak of new seeds on the same test samples; for new samples too see `dirtune.results.statistics.hierarchical`.

Source: Student's paired t test; S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian
Journal of Statistics, 1979; Agarwal et al., "Deep Reinforcement Learning at the Edge of the Statistical Precipice",
NeurIPS 2021 (google-research/rliable, `metrics.py`), for the interquartile mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Scipy.stats takes three times as long to import
from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
# Percent that contain the truth, least and most; see above
SIMULATED_COVERAGE = (92, 96)
# Share of the values that the interquartile mean leaves out at each end
TRIMMED = 0.25


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """An arm minus its reference over the seeds that both have."""

    mean: float
    sd: float
    """Of the differences."""
    n: int
    """Pairs."""
    low: float
    """Ends of the 95 % Student t interval; NaN for fewer than two pairs."""
    high: float
    p: float
    """Two-sided paired t test; NaN for fewer than two pairs or differences that are all equal."""
    holes: tuple[int, ...]
    """Seeds that only one of the two has, and that were not used."""


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean; NaN of nothing."""
    array = np.fromiter(values, dtype=np.float64)
    return float(array.mean()) if array.size else math.nan


def sd(values: Iterable[float]) -> float:
    """Sample standard deviation, `sqrt(sum (x - mean)^2 / (n - 1))`; NaN of fewer than two values."""
    array = np.fromiter(values, dtype=np.float64)
    # NaN where a value is infinite
    with np.errstate(invalid="ignore"):
        return float(array.std(ddof=1)) if array.size > 1 else math.nan


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean, `sd / sqrt(n)`; NaN of fewer than two values."""
    return sd(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def iqm(values: Iterable[float]) -> float:
    """Interquartile mean: the mean without the `floor(n / 4)` smallest and as many largest values; NaN of nothing.

    In the values' unit. Below four values it is the plain mean. One diverged run in four or more does not move it, as it
    would the mean, and it wastes less than the median does.
    """
    # NaN, if any, is sorted to the end
    array = np.sort(np.fromiter(values, dtype=np.float64))
    cut = int(TRIMMED * array.size)
    return math.nan if np.isnan(array).any() else mean(array[cut : array.size - cut])


def paired_values(arm: Mapping[int, float], reference: Mapping[int, float]) -> NDArray[np.float64]:
    """`d_s = arm_s - reference_s` over the seeds that both have, in the order of the seeds."""
    return np.array([arm[seed] - reference[seed] for seed in sorted(arm.keys() & reference.keys())])


def paired_difference(arm: Mapping[int, float], reference: Mapping[int, float]) -> PairedDifference:
    """Compare two arms seed by seed: `d_s = arm_s - reference_s`, `mean(d) ± t(0.975, n - 1) * sd(d) / sqrt(n)`.

    Args:
        arm: value by seed.
        reference: value by seed, in the same unit.
    """
    differences = paired_values(arm, reference).tolist()
    freedom = len(differences) - 1
    centre, error = mean(differences), standard_error(differences)
    half = _t_quantile(freedom) * error
    return PairedDifference(
        mean=centre,
        sd=sd(differences),
        n=len(differences),
        low=centre - half,
        high=centre + half,
        p=_t_test(centre, error, freedom),
        holes=tuple(sorted(arm.keys() ^ reference.keys())),
    )


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's correction for several comparisons at once: the k-th smallest of m becomes `max(p_(i) * (m - i + 1), i <= k)`.

    Args:
        p_values: by name of the comparison; a NaN is no test, is not counted, and stays NaN.
    """
    tested = sorted((p, name) for name, p in p_values.items() if not math.isnan(p))
    corrected = dict.fromkeys(p_values, math.nan)
    largest = 0.0
    for rank, (p, name) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        corrected[name] = largest
    return corrected


def _t_quantile(freedom: int) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) if freedom > 0 else math.nan


def _t_test(centre: float, error: float, freedom: int) -> float:
    if freedom < 1 or error == 0:
        return math.nan
    return float(2 * stdtr(freedom, -abs(centre / error)))
