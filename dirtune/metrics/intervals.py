"""Metrics of predicted distributions: a prediction with a standard deviation for each sample, by shot region.

    nll           mean negative log-likelihood of the label, in the label's unit
    crps          mean continuous ranked probability score, in the label's unit; of a prediction without spread the absolute error
    coverage_90   share of the labels within the central interval of 90 %
    width_90      mean width of that interval, in the label's unit
    uce           mean over ten bins of the deviation of |mean absolute error - mean deviation|, weighted by their samples

The distribution is the head's, normal or Laplace (`dirtune.models.heads`). `uce` is UVOTE's (Jiang et al., GCPR 2024, `utils.py:
measureUCE`); its ten bins of equal width lie between the smallest and the largest deviation of the region.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from dirtune.metrics.extra import EXTRA_METRICS
from dirtune.metrics.formulas import METRICS
from dirtune.metrics.regions import REGIONS, RegionMetric
from dirtune.metrics.sums import Array

LEVEL = 0.9
UCE_BINS = 10
_NORMAL_QUANTILE = 1.6448536269514722
"""Half the width of a central interval of 90 %, in deviations of a normal distribution."""
_LAPLACE_QUANTILE = math.log(1 / (1 - LEVEL)) / math.sqrt(2)


def compute_deviation_metrics(
    labels: Array, predictions: Array, deviations: Array, regions: NDArray[np.str_], *, distribution: str
) -> list[RegionMetric]:
    """Compute every metric for all samples and for each shot region; NaN in an empty one.

    Args:
        labels: shape `(n,)`, in the label's unit, as all others.
        predictions: locations of the distributions.
        deviations: their standard deviations, positive.
        regions: each sample's shot region.
        distribution: "normal" or "laplace".
    """
    rows: list[RegionMetric] = []
    for region in REGIONS:
        chosen = np.full(regions.shape, True) if region == "all" else regions == region
        n = int(np.count_nonzero(chosen))
        errors = np.abs(labels - predictions)[chosen]
        # A deviation that has underflowed to zero has its limits: an infinite likelihood, and the absolute error as its score.
        spread = np.maximum(deviations[chosen], np.finfo(np.float64).tiny)
        for name, metric in DEVIATION_METRICS.items():
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                value = float(metric(errors, spread, distribution)) if n else math.nan
            rows.append(RegionMetric(region=region, metric=name, value=value, n=n))
    return rows


def nll(errors: Array, deviations: Array, distribution: str) -> float:
    """Compute the mean negative log-likelihood of labels at these distances from their predictions."""
    if distribution == "laplace":
        scales = deviations / math.sqrt(2)
        return float(np.mean(errors / scales + np.log(2 * scales)))
    return float(np.mean(np.log(deviations) + 0.5 * math.log(2 * math.pi) + 0.5 * (errors / deviations) ** 2))


def crps(errors: Array, deviations: Array, distribution: str) -> float:
    """Compute the mean continuous ranked probability score (Gneiting and Raftery 2007, Laplace: Jordan et al. 2019)."""
    if distribution == "laplace":
        scales = deviations / math.sqrt(2)
        return float(np.mean(errors + scales * np.exp(-errors / scales) - 0.75 * scales))
    scores = errors / deviations
    density = np.exp(-0.5 * scores**2) / math.sqrt(2 * math.pi)
    # 2 Phi(z) - 1
    central = np.array([math.erf(score / math.sqrt(2)) for score in scores])
    return float(np.mean(errors * central + deviations * (2 * density - 1 / math.sqrt(math.pi))))


def coverage_90(errors: Array, deviations: Array, distribution: str) -> float:
    """Compute the share of labels within the central interval of 90 %."""
    return float(np.mean(errors <= get_quantile(distribution) * deviations))


def width_90(errors: Array, deviations: Array, distribution: str) -> float:
    """Compute the mean width of the central interval of 90 %."""
    return float(np.mean(2 * get_quantile(distribution) * deviations))


def uce(errors: Array, deviations: Array, distribution: str) -> float:
    """Compute the uncertainty calibration error: of the mean deviation as a forecast of the mean absolute error, by bin."""
    edges = np.linspace(deviations.min(), deviations.max(), UCE_BINS + 1)
    bins = np.clip(np.searchsorted(edges, deviations, side="left") - 1, 0, UCE_BINS - 1)
    gaps = np.abs(np.bincount(bins, errors, UCE_BINS) - np.bincount(bins, deviations, UCE_BINS))
    return float(gaps.sum() / len(errors))


def get_quantile(distribution: str) -> float:
    """Return half the width of the central interval of 90 %, in standard deviations."""
    return _LAPLACE_QUANTILE if distribution == "laplace" else _NORMAL_QUANTILE


UNDIRECTED_METRICS = ("coverage_90", "width_90")
"""Metrics that are better neither high nor low: coverage should be 0.9, and a width is good only with its coverage."""

DEVIATION_METRICS: Mapping[str, Callable[[Array, Array, str], float]] = {
    "coverage_90": coverage_90,
    "crps": crps,
    "nll": nll,
    "uce": uce,
    "width_90": width_90,
}


def check_directed(metric: str) -> str:
    """Return a metric by which trials can be selected and arms compared.

    Raises:
        ValueError: it is unknown, or neither more nor less of it is better.
    """
    if metric in UNDIRECTED_METRICS:
        raise ValueError("is better neither high nor low, so that nothing can be selected by it; use crps or nll")
    known = METRICS.keys() | EXTRA_METRICS.keys() | DEVIATION_METRICS.keys() - {*UNDIRECTED_METRICS}
    if metric not in known:
        raise ValueError(f"must be one of {', '.join(sorted(known))}")
    return metric
