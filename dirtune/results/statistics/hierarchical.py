"""Differences of two arms over seeds *and* test samples: does an arm help on new seeds and on new test data?

An interval over seeds alone speaks of this test set; with a few hundred few-shot samples, which samples they are matters
as much as the seed. Here errors of single samples come in, of the same samples in both arms, so that a hard sample is hard
for both and cancels. The samples of one test set are the same for every seed: the two factors are *crossed*, and a sample
on which the arm is better for every seed is one sample, not as many as there are seeds. Drawing samples anew within every
resampled seed (`samples="own"`) forgets that, and is right only where each seed has a test split of its own.

How many "95 %" intervals contain the difference on new seeds and new samples, in %, each ± 1.1 or less, over five and ten
seeds with normal, skewed and heavy-tailed luck (`benchmarks/coverage.py`: 200 samples of heavy-tailed difficulty, MAE):

    a sample suits an arm    two-way t    bootstrap, shared    bootstrap, own    Student's t over seeds
    not at all               95 to 96     98 to 99             96 to 97          94 to 96
    by 0.3 of its error      95 to 96     96 to 97             72 to 83          58 to 81

So the two-way t interval is the one to report as 95 %; the bootstrap of shared samples is longer than it needs to be ("at
least 95 %"), and the last two are no intervals for new samples of a common test set. For these samples alone, Student's t
over seeds held 94 to 96 % throughout.

Source: Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis", Statistics in
Medicine, 2007, for `two_way_interval`: readers there are seeds here, cases are samples; Owen, "The pigeonhole bootstrap",
Annals of Applied Statistics, 2007, for resampling two crossed factors, and why it is too long rather than too short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Scipy.stats takes three times as long to import
from scipy.special import stdtrit

from dirtune.results.statistics.bootstrap import TAILS, Interval, quantiles
from dirtune.results.statistics.paired import CONFIDENCE

Array = NDArray[np.float64]
# By seed: prediction - label, the samples in one order
Errors = Mapping[int, ArrayLike]
Samples = Literal["shared", "own"]

# Random counts held at a time
BLOCK = 2**22
TINY = float(np.finfo(np.float64).tiny)
# Stands for an error that is exactly zero, as in `dirtune.metrics.gmean`
ZERO_ERROR = 1e-10


@dataclass(frozen=True, kw_only=True)
class ErrorMetric:
    """A metric of the form `f(mean g(error))`: so a resample is a weighted mean, and small changes are linear."""

    of_error: Callable[[Array], Array]
    """G."""
    of_mean: Callable[[Array], Array]
    """F."""
    slope: Callable[[Array], Array]
    """F'."""


ERROR_METRICS = {
    "mae": ErrorMetric(of_error=np.abs, of_mean=np.positive, slope=np.ones_like),
    "mse": ErrorMetric(of_error=np.square, of_mean=np.positive, slope=np.ones_like),
    "rmse": ErrorMetric(of_error=np.square, of_mean=np.sqrt, slope=lambda mean: 0.5 / np.sqrt(np.maximum(mean, TINY))),
    "gmean": ErrorMetric(
        of_error=lambda error: np.log(np.where(error == 0, ZERO_ERROR, np.abs(error))), of_mean=np.exp, slope=np.exp
    ),
}


def two_way_interval(arm: Errors, reference: Errors, *, metric: str = "mae") -> Interval:
    """Arm minus reference with a t interval over new seeds and new test samples; the one to report.

    With `D[s, i]` sample `i`'s part in the difference of seed `s` (its metric linearised around the seed's mean, which
    is exact for mae and mse), `S` seeds and `N` samples, and the mean squares `A` between seeds, `B` between samples and
    `E` of what is left:

        mean(D) ± t(0.975, f) sqrt((A + max(B - E, 0)) / (S N)),    f = (S - 1) ((A + max(B - E, 0)) / A)^2

    Args:
        arm: errors by seed, each of shape `(N,)`, in the label's unit; only seeds that both have are used.
        reference: the same samples in the same order.
        metric: of `ERROR_METRICS`; the interval is in its unit.

    Returns:
        NaN ends for fewer than two seeds or samples.

    Raises:
        ValueError: the metric is unknown, or the seeds differ in their number of samples.
    """
    chosen = _metric_named(metric)
    values = _same_samples(_paired(arm, reference, chosen))
    parts = _linear_parts(values, chosen)
    centre = float(parts.mean()) if parts.size else math.nan
    if min(parts.shape) < 2:
        return Interval(estimate=centre, low=math.nan, high=math.nan, kind="two-way t")
    seeds_apart, scatter = _mean_squares(parts)
    growth = scatter / seeds_apart if seeds_apart > 0 else math.inf
    quantile = float(stdtrit((len(parts) - 1) * growth**2, (1 + CONFIDENCE) / 2))
    half = quantile * math.sqrt(scatter / parts.size)
    return Interval(estimate=centre, low=centre - half, high=centre + half, kind="two-way t")


def hierarchical_interval(
    arm: Errors,
    reference: Errors,
    *,
    metric: str = "mae",
    samples: Samples = "shared",
    resamples: int = 1_999,
    seed: int = 0,
) -> Interval:
    """Arm minus reference with a percentile interval from resampling seeds, and then samples, the same for both arms.

    Args:
        arm: errors by seed, in the label's unit; only seeds that both have are used.
        reference: the same samples in the same order.
        metric: of `ERROR_METRICS`; computed per seed, then averaged over seeds.
        samples: shared: one draw of samples serves all seeds of a resample, for one test set. own: each drawn seed draws
            its own samples, for test splits that differ by seed; their sizes may differ too.
        resamples: number of resamples; the time is proportional to them times the samples (own: times the seeds).
        seed: of the resampling.

    Returns:
        NaN ends for fewer than two seeds.

    Raises:
        ValueError: the metric is unknown, or arrays that must have equal shapes have not.
    """
    chosen, random = _metric_named(metric), np.random.default_rng(seed)
    kind = f"bootstrap of seeds and {samples} samples"
    values = _paired(arm, reference, chosen)
    centre = float(np.mean(_differences(values, chosen))) if values else math.nan
    if len(values) < 2:
        return Interval(estimate=centre, low=math.nan, high=math.nan, kind=kind)
    if samples == "shared":
        drawn = _shared_draws(_same_samples(values), chosen, resamples, random)
    else:
        drawn = _own_draws(values, chosen, resamples, random)
    low, high = quantiles(drawn, TAILS)
    return Interval(estimate=centre, low=float(low), high=float(high), kind=kind)


def _metric_named(name: str) -> ErrorMetric:
    if name not in ERROR_METRICS:
        raise ValueError(f"unknown metric {name!r}; known: {', '.join(sorted(ERROR_METRICS))}")
    return ERROR_METRICS[name]


def _paired(arm: Errors, reference: Errors, metric: ErrorMetric) -> list[Array]:
    """`g` of the errors of both arms, shape `(2, samples)`, for every seed that both have."""
    pairs = []
    for seed in sorted(arm.keys() & reference.keys()):
        ours, theirs = (np.asarray(side[seed], dtype=np.float64) for side in (arm, reference))
        if ours.ndim != 1 or ours.shape != theirs.shape or not ours.size:
            shapes = f"{ours.shape} and {theirs.shape}"
            raise ValueError(f"both arms need errors of the same samples, got {shapes} ({seed=})")
        pairs.append(metric.of_error(np.stack([ours, theirs])))
    return pairs


def _same_samples(values: list[Array]) -> Array:
    """The pairs of all seeds, shape `(seeds, 2, samples)`."""
    sizes = sorted({value.shape[1] for value in values})
    if len(sizes) > 1:
        raise ValueError(f"every seed must have the same samples, got {sizes} of them")
    return np.stack(values) if values else np.empty((0, 2, 0))


def _linear_parts(values: Array, metric: ErrorMetric) -> Array:
    """Each sample's part in each seed's difference, shape `(seeds, samples)`; a row's mean is the seed's difference."""
    if not values.size:
        return np.empty((0, 0))
    means = values.mean(axis=-1, keepdims=True)
    parts = metric.of_mean(means) + metric.slope(means) * (values - means)
    difference: Array = parts[:, 0] - parts[:, 1]
    return difference


def _mean_squares(parts: Array) -> tuple[float, float]:
    """`A` and `A + max(B - E, 0)`."""
    seeds, samples = parts.shape
    by_seed = parts.mean(axis=1, keepdims=True) - parts.mean()
    by_sample = parts.mean(axis=0, keepdims=True) - parts.mean()
    rest = parts - parts.mean() - by_seed - by_sample
    between_seeds = samples * float(np.square(by_seed).sum()) / (seeds - 1)
    between_samples = seeds * float(np.square(by_sample).sum()) / (samples - 1)
    left = float(np.square(rest).sum()) / ((seeds - 1) * (samples - 1))
    return between_seeds, between_seeds + max(between_samples - left, 0.0)


def _differences(values: list[Array], metric: ErrorMetric) -> list[float]:
    """Metric of the arm minus metric of the reference, by seed."""
    both = [metric.of_mean(value.mean(axis=-1)) for value in values]
    return [float(ours - theirs) for ours, theirs in both]


def _shared_draws(values: Array, metric: ErrorMetric, resamples: int, random: np.random.Generator) -> Array:
    """Resampled differences: seeds and samples drawn apart from each other."""
    seeds, _, samples = values.shape
    drawn = []
    for size in _blocks(resamples, samples):
        means = _weights(random, size, samples) @ values.reshape(-1, samples).T
        both = metric.of_mean(means).reshape(size, seeds, 2)
        drawn.append((_weights(random, size, seeds) * (both[..., 0] - both[..., 1])).sum(axis=1))
    return np.concatenate(drawn)


def _own_draws(values: list[Array], metric: ErrorMetric, resamples: int, random: np.random.Generator) -> Array:
    """Resampled differences: seeds drawn first, then for every drawn one its samples."""
    chosen = random.integers(len(values), size=(resamples, len(values)))
    drawn = np.empty(chosen.shape)
    for seed, value in enumerate(values):
        places = np.argwhere(chosen == seed)
        start = 0
        for size in _blocks(len(places), value.shape[1]):
            rows, columns = places[start : start + size].T
            both = metric.of_mean(_weights(random, size, value.shape[1]) @ value.T)
            drawn[rows, columns] = both[:, 0] - both[:, 1]
            start += size
    means: Array = drawn.mean(axis=1)
    return means


def _weights(random: np.random.Generator, size: int, n: int) -> Array:
    """How often each of `n` is drawn in `n` draws with replacement, over `n`; shape `(size, n)`."""
    drawn = random.integers(n, size=(size, n), dtype=np.int32)
    # One count of everything: half the time of a multinomial
    rows = np.arange(0, size * n, n)[:, None]
    weights: Array = np.bincount((drawn + rows).ravel(), minlength=size * n).reshape(size, n) / n
    return weights


def _blocks(total: int, width: int) -> Iterator[int]:
    """`total` in parts of which each has at most `BLOCK` numbers in rows of `width`."""
    rows = max(1, BLOCK // width)
    yield from (min(rows, total - start) for start in range(0, total, rows))
