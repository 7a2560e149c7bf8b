"""`compute_region_metrics`: every metric of a set of predictions, for all samples and for each shot region.

The metrics of a label of several dimensions are taken over its elements, as the losses are: mae, mse, rmse and gmean are
those of all numbers together, `zero_errors` counts numbers, and `balanced_mae` balances over the cells of the label's
grid. The correlations and r2, which compare a dimension with itself, are averaged over the dimensions.
"""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import TypedDict

import numpy as np

from dirtune.metrics.extra import EXTRA_METRICS
from dirtune.metrics.formulas import METRICS, spearman
from dirtune.metrics.sums import Array, sum_errors
from dirtune.part_errors import make_part_error, name_part
from dirtune.signatures import describe_value

SHOT_REGIONS = ("many", "medium", "few")
REGIONS = ("all", *SHOT_REGIONS)
"""Column `region` of the table `metrics`."""


class RegionMetric(TypedDict):
    """One row of the table `metrics`, without the columns that identify the trial."""

    region: str
    metric: str
    value: float
    """NaN where undefined."""
    n: int
    """Number of samples in the region."""


def compute_region_metrics(
    labels: np.typing.ArrayLike,
    predictions: np.typing.ArrayLike,
    regions: np.typing.NDArray[np.str_],
    *,
    bins: np.typing.ArrayLike | None = None,
    extra: Sequence[str] = (),
) -> list[RegionMetric]:
    """Compute every metric for all samples and for each shot region; an empty region has its rows too, with `n` zero.

    Args:
        labels: shape `(n,)`, or `(n, L)` for labels of L dimensions; in the label's unit, as the predictions.
        predictions: of the labels' shape.
        regions: each sample's shot region, from `dirtune.reweighting.density.shot_regions`.
        bins: each sample's label bin, for `balanced_mae`; None means that each distinct label is a bin of its own, in each
            dimension.
        extra: further metrics, of `EXTRA_METRICS`.
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
        values = compute_metrics(
            [*METRICS, *extra], pair[0][chosen], pair[1][chosen], None if bins is None else np.asarray(bins)[chosen]
        )
        n = int(np.count_nonzero(chosen))
        rows += [RegionMetric(region=region, metric=name, value=value, n=n) for name, value in values.items()]
    return rows


def compute_metrics(
    names: Iterable[str], labels: Array, predictions: Array, bins: np.typing.ArrayLike | None = None
) -> dict[str, float]:
    """Compute metrics by name, of `METRICS` and `EXTRA_METRICS`; the arrays are those of `compute_region_metrics`."""
    dimensions = [(labels, predictions)] if labels.ndim == 1 else zip(labels.T, predictions.T, strict=True)
    pairs = list(dimensions)
    # Once for all metrics: each of them but spearman is a cheap function of the sums.
    sums = [sum_errors(*pair, bins) for pair in pairs]
    values = {}
    for name in names:
        if name in EXTRA_METRICS:
            values[name] = _compute_extra_metric(name, labels, predictions)
            continue
        metric = METRICS[name]
        each = [metric(of_one) for of_one in sums] if metric else [spearman(*pair) for pair in pairs]
        values[name] = merge_dimensions(name, each)
    return values


def _compute_extra_metric(name: str, labels: Array, predictions: Array) -> float:
    metric = EXTRA_METRICS[name]
    with name_part("metric", name, metric):
        value = metric(labels, predictions)
    # Texts are refused, which `float` would read; arrays and tensors without dimensions are numbers.
    if not isinstance(value, Real) and getattr(value, "shape", None) != ():
        raise make_part_error("metric", name, metric, "must return a number", describe_value(value))
    return float(value)


def merge_dimensions(name: str, values: Sequence[float]) -> float:
    """Return one value of a metric from its values for each dimension of the labels; NaN if one of them is."""
    if len(values) == 1:
        return values[0]
    # The value over all elements: a mean of means is one, a mean of roots or of geometric means is not.
    match name:
        case "rmse":
            return math.sqrt(sum(value * value for value in values) / len(values))
        case "gmean":
            return math.prod(values) ** (1 / len(values))
        case "zero_errors":
            return sum(values)
        case _:
            return sum(values) / len(values)
