"""Differences of two arms over test samples, and over seeds *and* test samples.

An interval over seeds alone is about this test set; with a few hundred few-shot samples, which samples they are matters
as much as the seed. Here the errors of single samples are compared, of the same samples in both arms, so that a hard
sample is hard for both and cancels. The samples of one test set are the same for every seed: the two factors are
*crossed*, and a sample on which the arm is better for every seed is one sample, not one per seed.

Coverage of the 95 % intervals in simulations over five and ten seeds and 200 samples of heavy-tailed difficulty, MAE, with
normal, skewed and heavy-tailed luck of the seeds (`benchmarks/coverage.py`, in %, each ± 1.1 or less):

    a sample suits an arm    both, for new      samples, for these     Student's t over seeds,
                             seeds and samples  models, new samples    for new seeds and samples
    not at all               95 to 96           94 to 96               94 to 95
    by 0.3 of its error      95 to 96           95 to 96               61 to 78

Only `both` is an interval for new seeds on new samples. Student's t over seeds is not, although it covers 95 to 96 % for new
seeds on these samples. With mse, rmse and gmean instead of the MAE, `both` covers 93 to 98 %.

Source: Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis", Statistics in
Medicine, 2007, for `both`: readers there are seeds here, cases are samples.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.results.statistics.paired import PairedDifference, make_difference

Array = NDArray[np.float64]

Errors = Mapping[int, ArrayLike]
"""Prediction minus label by seed, in the label's unit; the samples in one order."""

TINY = float(np.finfo(np.float64).tiny)
ZERO_ERROR = 1e-10
"""Replaces an error that is exactly zero, as in `dirtune.metrics.gmean`."""


@dataclass(frozen=True, kw_only=True)
class SampleMetric:
    """A metric of the form `f(mean g(error))`, which is linear in small changes of single errors."""

    of_error: Callable[[Array], Array]
    """`g`."""
    of_mean: Callable[[Array], Array]
    """`f`."""
    slope: Callable[[Array], Array]
    """`f'`."""


SAMPLE_METRICS = {
    "mae": SampleMetric(of_error=np.abs, of_mean=np.positive, slope=np.ones_like),
    "mse": SampleMetric(of_error=np.square, of_mean=np.positive, slope=np.ones_like),
    "rmse": SampleMetric(of_error=np.square, of_mean=np.sqrt, slope=lambda mean: 0.5 / np.sqrt(np.maximum(mean, TINY))),
    "gmean": SampleMetric(
        of_error=lambda error: np.log(np.where(error == 0, ZERO_ERROR, np.abs(error))), of_mean=np.exp, slope=np.exp
    ),
}
"""Metrics whose differences have an interval over samples; correlations and R2 are not of this form."""


def compare_by_sample(
    arm: Errors, reference: Errors, *, over: Literal["samples", "both"], metric: str = "mae"
) -> PairedDifference:
    """Compare two arms by the errors of single test samples.

    With `D[s, i]` sample `i`'s part in the difference of seed `s` (the metric linearized around the seed's mean, which is
    exact for mae and mse), `S` seeds and `N` samples, and the mean squares `A` between seeds, `B` between samples and `E`
    of the residual:

        both:     mean(D) ± t(0.975, f) sqrt((A + max(B - E, 0)) / (S N)),    f = (S - 1) ((A + max(B - E, 0)) / A)^2
        samples:  mean(D) ± t(0.975, N - 1) sd(mean over s of D) / sqrt(N)

    Args:
        arm: errors by seed, each of shape `(N,)`; only seeds that both arms have are used.
        reference: errors of the same samples in the same order.
        over: samples for new test samples and these trained models; both for new seeds on new test samples.
        metric: a name of `SAMPLE_METRICS`.

    Returns:
        A difference without standard error (NaN) for fewer than two samples, or, over both, fewer than two seeds.

    Raises:
        ValueError: the metric is unknown, or the arms or seeds differ in their samples.
    """
    if metric not in SAMPLE_METRICS:
        raise ValueError(f"unknown metric {metric!r}; known: {', '.join(sorted(SAMPLE_METRICS))}")
    parts = _subtract(arm, reference, SAMPLE_METRICS[metric])
    seeds, samples = parts.shape
    error, df = math.nan, 0.0
    if over == "both" and min(seeds, samples) > 1:
        by_seed = parts.mean(axis=1, keepdims=True) - parts.mean()
        by_sample = parts.mean(axis=0, keepdims=True) - parts.mean()
        residual = parts - parts.mean() - by_seed - by_sample
        between_seeds = samples * float(np.square(by_seed).sum()) / (seeds - 1)
        between_samples = seeds * float(np.square(by_sample).sum()) / (samples - 1)
        noise = float(np.square(residual).sum()) / ((seeds - 1) * (samples - 1))
        # The variance of the samples is estimated by B - E, which may come out negative.
        scatter = between_seeds + max(between_samples - noise, 0.0)
        error = math.sqrt(scatter / parts.size)
        # Seeds that agree exactly leave the samples alone, whose t distribution is taken for the normal one.
        growth = scatter / between_seeds if between_seeds > 0 else math.inf
        df = (seeds - 1) * growth * growth
    elif over == "samples" and seeds and samples > 1:
        error = float(parts.mean(axis=0).std(ddof=1)) / math.sqrt(samples)
        df = samples - 1
    return make_difference(
        parts.mean(axis=1).tolist() if samples else [],
        error=error,
        df=df,
        unpaired_seeds=tuple(sorted(arm.keys() ^ reference.keys())),
        over=over,
    )


def _subtract(arm: Errors, reference: Errors, metric: SampleMetric) -> Array:
    """Return each sample's part in each seed's difference, shape `(seeds, samples)`, of the seeds that both arms have."""
    pairs = []
    for seed in sorted(arm.keys() & reference.keys()):
        ours, theirs = (np.asarray(side[seed], dtype=np.float64) for side in (arm, reference))
        if ours.ndim != 1 or ours.shape != theirs.shape or not ours.size:
            shapes = f"{ours.shape} and {theirs.shape}"
            raise ValueError(f"both arms need errors of the same samples, got {shapes} ({seed=})")
        pairs.append(metric.of_error(np.stack([ours, theirs])))
    sizes = sorted({pair.shape[1] for pair in pairs})
    if len(sizes) > 1:
        raise ValueError(f"every seed must have the same samples, got {sizes} of them")
    if not pairs:
        return np.empty((0, 0))
    values = np.stack(pairs)
    means = values.mean(axis=-1, keepdims=True)
    # Linear around each seed's mean, so that the mean of a row is exactly the difference of the metric.
    parts = metric.of_mean(means) + metric.slope(means) * (values - means)
    difference: Array = parts[:, 0] - parts[:, 1]
    return difference
