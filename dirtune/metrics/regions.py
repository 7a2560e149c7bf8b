"""`region_metrics`: every metric of a set of predictions, for all samples and for each shot region.

The metrics of a label of several dimensions are taken over its elements, as the losses are: mae, mse, rmse and gmean are
those of all numbers together, `zero_errors` counts numbers, and `balanced_mae` balances over the cells of the label's
grid. The correlations and r2, which compare a dimension with itself, are averaged over the dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.metrics.formulas import METRICS, spearman
from dirtune.metrics.moments import Array
from dirtune.metrics.own import OWN_METRICS
from dirtune.metrics.sums import error_sums

SHOT_REGIONS = ("many", "medium", "few")
REGIONS = ("all", *SHOT_REGIONS)
"""Column `region` of the table `metrics`."""


class RegionMetric(TypedDict):
    """One row of the metrics table, without what identifies the trial."""

    region: str
    metric: str
    value: float
    """NaN where undefined."""
    n: int
    """Samples in the region."""


def region_metrics(
    labels: ArrayLike,
    predictions: ArrayLike,
    regions: NDArray[np.str_],
    *,
    bins: ArrayLike | None = None,
    own: Sequence[str] = (),
) -> list[RegionMetric]:
    """Every metric for all samples and for each shot region; an empty region has its rows too, with `n` zero.

    Args:
        labels: shape `(n,)`, or `(n, L)` for labels of L dimensions; in the label's unit, as the predictions.
        predictions: of the labels' shape.
        regions: each sample's shot region, from `dirtune.reweighting.density.shot_regions`.
        bins: each sample's label bin, for `balanced_mae`; without them each distinct label is a bin of its own, in each
            dimension.
        own: further metrics, of `OWN_METRICS`.
    """
    pair = [np.asarray(values, dtype=np.float64) for values in (labels, predictions)]
    if pair[0].shape != pair[1].shape or pair[0].ndim not in {1, 2}:
        shapes = [values.shape for values in pair]
        raise ValueError(f"labels and predictions must have one shape (n,) or (n, L), but got {shapes}")
    if regions.shape != pair[0].shape[:1]:
        raise ValueError(f"regions must be one per label, but got {regions.shape}")
    rows: list[RegionMetric] = []
    for region in REGIONS:
        chosen = np.full(regions.shape, True) if region == "all" else regions == region
        values = metric_values(
            [*METRICS, *own], pair[0][chosen], pair[1][chosen], None if bins is None else np.asarray(bins)[chosen]
        )
        n = int(np.count_nonzero(chosen))
        rows += [RegionMetric(region=region, metric=name, value=value, n=n) for name, value in values.items()]
    return rows


def metric_values(
    names: Iterable[str], labels: Array, predictions: Array, bins: ArrayLike | None = None
) -> dict[str, float]:
    """Metrics by name, of `METRICS` and `OWN_METRICS`, over all samples; the arrays are those of `region_metrics`."""
    pairs = list(zip(_dimensions(labels), _dimensions(predictions), strict=True))
    sums = [error_sums(*pair, bins) for pair in pairs]
    values = {}
    for name in names:
        if name in OWN_METRICS:
            values[name] = OWN_METRICS[name](labels, predictions)
            continue
        metric = METRICS[name]
        each = [metric(of_one) for of_one in sums] if metric else [spearman(*pair) for pair in pairs]
        values[name] = across_dimensions(name, each)
    return values


def _dimensions(values: Array) -> list[Array]:
    return [values] if values.ndim == 1 else list(values.T)


def across_dimensions(name: str, values: Sequence[float]) -> float:
    """One value of a metric from its values for each dimension of the labels; NaN where one of them is."""
    if len(values) == 1:
        return values[0]
    return _ACROSS.get(name, _mean)(values)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(_mean([value * value for value in values]))


def _geometric_mean(values: Sequence[float]) -> float:
    return math.prod(values) ** (1 / len(values))


_ACROSS: dict[str, Callable[[Sequence[float]], float]] = {
    "rmse": _root_mean_square,
    "gmean": _geometric_mean,
    "zero_errors": sum,
}
