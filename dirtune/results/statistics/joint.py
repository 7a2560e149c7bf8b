"""One comparison over seeds *and* over test samples: a claim must hold over both.

An interval over seeds alone is about this test set; with a few hundred few-shot samples, which samples they are matters as
much as the seed. The samples of one test set are the same for every seed: the two factors are *crossed*, and a sample on
which the arm is better for every seed is one sample, not one per seed. With `D[s, i]` sample `i`'s part in the difference of
seed `s` (`dirtune.results.statistics.influence`), `S` seeds, `N` samples, and the mean squares `A` between seeds, `B` between
samples and `E` of the residual, there are two t tests of the mean difference:

    over seeds:              sd(mean over i of D) / sqrt(S) = sqrt(A / (S N)),      S - 1 degrees of freedom
    over seeds and samples:  sqrt((A + max(B - E, 0)) / (S N)),                     (S - 1) ((A + max(B - E, 0)) / A)^2

The second alone errs with few seeds, where `B - E` is often estimated as zero; so the larger p of the two counts, and the
larger interval is shown. In simulations of 1 to 20 equal arms, 3 to 10 seeds and 74 to 1,000 samples (`benchmarks/coverage.py`),
at most 5.9 % of studies have a false word about new samples by the larger p, 15 % by the second test alone, and 86 % by the
seeds alone. The larger 95 % interval covers 94 to 98 %.

Samples that belong together (the images of one person) are one unit: their parts are added up first.

Where a study repeats searches, each search's mean over its seeds takes the place of a seed. Where it has several random
splits of the data, a split's test samples are part of its luck, and the test over splits is about new ones already
(`compare_over_splits`).

Source: Hillis, "A comparison of denominator degrees of freedom methods for multiple observer ROC analysis", Statistics in
Medicine, 2007, for the second test: readers there are seeds here, cases are samples.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dirtune.randomness import get_repetition
from dirtune.results.statistics import paired

Array = NDArray[np.float64]

Limit = Literal["seeds", "searches", "splits", "test samples"]
"""The factor that contributes more to the uncertainty of a difference."""


@dataclass(frozen=True, kw_only=True)
class JointDifference:
    """An arm minus its reference, with the larger interval and p of two tests."""

    over_seeds: paired.PairedDifference
    """For new seeds on these test samples."""
    over_both: paired.PairedDifference | None
    """For new seeds on new test samples; None where the samples' part is not known."""
    units: int = 0
    """Test samples, or groups of them, from which their part is estimated."""
    unit: Literal["seeds", "searches", "splits"] = "seeds"
    """The unit of the test over seeds; splits have test samples of their own."""

    @property
    def mean(self) -> float:
        return self.over_seeds.mean

    @property
    def sd(self) -> float:
        """Standard deviation of the differences by seed."""
        return self.over_seeds.sd

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.over_seeds.n

    @property
    def unpaired_seeds(self) -> tuple[int, ...]:
        return self.over_seeds.unpaired_seeds

    @property
    def tests(self) -> list[paired.PairedDifference]:
        """The comparisons over seeds and, where the samples' part is known, over both."""
        return [self.over_seeds] if self.over_both is None else [self.over_seeds, self.over_both]

    @property
    def wider(self) -> paired.PairedDifference:
        """The comparison with the larger interval."""
        seeds, both = self.over_seeds, self.over_both
        # NaN compares as false: a comparison without an interval (one seed) is not wider.
        return both if both is not None and both.high - both.low > seeds.high - seeds.low else seeds

    @property
    def low(self) -> float:
        return self.wider.low

    @property
    def high(self) -> float:
        return self.wider.high

    @property
    def p(self) -> float:
        """The larger p of both; NaN where a test is missing that could be made with a spread."""
        return _get_larger_p(each.p for each in self.tests)

    @property
    def is_exactly_zero(self) -> bool:
        """True if both arms have the same value at every seed and no part of a sample differs."""
        return all(each.error == 0 and each.mean == 0 for each in self.tests)

    @property
    def is_about_new_samples(self) -> bool:
        """True if the test counts which test samples there are."""
        return self.over_both is not None or self.unit == "splits"

    @property
    def limit(self) -> Limit | None:
        """The factor with the larger part in the uncertainty; None where that is not known."""
        if self.unit == "splits":
            return "splits" if self.over_seeds.error > 0 else None
        if self.over_both is None or not self.over_both.error > 0:
            return None
        return "test samples" if self.over_both.error > math.sqrt(2) * self.over_seeds.error else self.unit

    def with_confidence(self, confidence: float) -> "JointDifference":
        """Return the same difference with intervals of another confidence."""
        over_both = None if self.over_both is None else paired.make_interval(self.over_both, confidence)
        return replace(self, over_seeds=paired.make_interval(self.over_seeds, confidence), over_both=over_both)


@dataclass(frozen=True, kw_only=True)
class Repeated:
    """Repetitions of a study, each with seeds of its own, as the unit of tests."""

    unit: Literal["searches", "splits"]
    overlap: float = 0.0
    """Share of its test samples that a split has in common with another one."""


def average_by_repetition(values: Mapping[int, float]) -> dict[int, float]:
    """Return the mean of the seeds of every repetition."""
    grouped: dict[int, list[float]] = {}
    for seed in sorted(values):
        grouped.setdefault(get_repetition(seed), []).append(values[seed])
    return {repetition: paired.mean(own) for repetition, own in grouped.items()}


def compare_over_splits(
    arm: Mapping[int, float], reference: Mapping[int, float], overlap: float
) -> paired.PairedDifference:
    """Compare two arms over random splits of one data set by the corrected resampled t test.

    Splits share test samples, so that their differences are correlated: with a share `r` of common test samples, the variance
    of the mean of `n` splits is `(1 / n + r / (1 - r)) s^2`, `s^2` the variance of the differences by split.

    Source: Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning, 2003, whose `r` is the share of the
    test set; the observed share is that where the strata have unequal ones.

    Args:
        arm: value by split.
        reference: value by split.
        overlap: `r`. One means that all splits have the same test samples, which tell nothing on others.
    """
    found = paired.compare_by_seed(arm, reference)
    growth = 1 + found.n * overlap / (1 - overlap) if overlap < 1 else math.nan
    return paired.make_interval(replace(found, error=found.error * math.sqrt(growth)), paired.CONFIDENCE)


def compare_jointly(
    arm: Mapping[int, float],
    reference: Mapping[int, float],
    parts: Array | None = None,
    repeated: Repeated | None = None,
) -> JointDifference:
    """Compare two arms seed by seed, and over their test samples where these are known.

    Of a study with several splits or searches, these are compared by the means of their seeds.

    Args:
        arm: value by seed.
        reference: value by seed, in the same unit.
        parts: each sample's part in each seed's difference, shape `(seeds, units)`, of some of the paired seeds; in each
            search's difference, if searches are repeated; not used with several splits.
        repeated: None if seeds are the unit.
    """
    unit: Literal["seeds", "searches", "splits"] = "seeds"
    if repeated is not None:
        unpaired, unit = tuple(sorted(arm.keys() ^ reference.keys())), repeated.unit
        common = arm.keys() & reference.keys()
        arm, reference = (average_by_repetition({seed: each[seed] for seed in common}) for each in (arm, reference))
        if repeated.unit == "splits":
            over_splits = compare_over_splits(arm, reference, repeated.overlap)
            return JointDifference(
                over_seeds=replace(over_splits, unpaired_seeds=unpaired), over_both=None, unit="splits"
            )
        over_seeds = replace(paired.compare_by_seed(arm, reference), unpaired_seeds=unpaired)
    else:
        over_seeds = paired.compare_by_seed(arm, reference)
    variance = math.nan if parts is None else estimate_sample_variance(parts)
    if parts is None or math.isnan(variance) or math.isnan(over_seeds.error):
        return JointDifference(over_seeds=over_seeds, over_both=None, unit=unit)
    return JointDifference(
        over_seeds=over_seeds, over_both=add_variance(over_seeds, variance), units=parts.shape[1], unit=unit
    )


def estimate_sample_variance(parts: Array) -> float:
    """Return the variance that the choice of the test samples adds to the mean difference, `max(B - E, 0) / (S N)`.

    Args:
        parts: shape `(seeds, units)`. Some of the seeds are enough: the variance is that of the samples' mean effect, to
            which more seeds add nothing.

    Returns:
        NaN for fewer than two seeds or two units, or where a part is not finite.
    """
    seeds, samples = parts.shape
    if min(seeds, samples) < 2:
        return math.nan
    with np.errstate(invalid="ignore", over="ignore"):
        centered = parts - parts.mean(axis=1, keepdims=True)
        by_sample = centered.mean(axis=0)
        between = seeds * float(np.square(by_sample).sum()) / (samples - 1)
        residual = float(np.square(centered - by_sample).sum()) / ((seeds - 1) * (samples - 1))
    # Not `max`, which would hide a NaN.
    return float(np.maximum(between - residual, 0.0)) / parts.size


def add_variance(over_seeds: paired.PairedDifference, variance: float) -> paired.PairedDifference:
    """Return the comparison over seeds and samples, for a variance that the samples add to the mean difference."""
    # Not a power, for which Python raises an error where the result is infinite
    own = over_seeds.error * over_seeds.error
    total = own + variance
    # Seeds that agree exactly leave the samples alone, whose t distribution is taken for the normal one.
    growth = total / own if own > 0 else math.inf
    found = paired.PairedDifference(
        mean=over_seeds.mean,
        sd=over_seeds.sd,
        n=over_seeds.n,
        error=math.sqrt(total),
        df=over_seeds.df * growth * growth,
        low=math.nan,
        high=math.nan,
        p=math.nan,
        unpaired_seeds=over_seeds.unpaired_seeds,
    )
    return paired.make_interval(found, paired.CONFIDENCE)


def sum_groups(parts: Array, groups: NDArray[np.int64]) -> Array:
    """Add up the parts of samples that belong together, so that the mean over groups is the mean over samples.

    The groups of a new test set may have other sizes. So each group contributes the deviations of its samples from the mean,
    the linear form of a ratio.

    Args:
        parts: shape `(seeds, samples)`.
        groups: number of each sample's group, from 0 without gaps, shape `(samples,)`.
    """
    means = parts.mean(axis=1, keepdims=True)
    count = int(groups.max()) + 1
    sums = np.stack([np.bincount(groups, row, count) for row in parts - means])
    result: Array = means + sums * (count / parts.shape[1])
    return result


def compute_joint_equivalence_p(difference: JointDifference, *, margin: float) -> float:
    """Return the larger p of the two one-sided tests over seeds, and over seeds and samples; NaN without a spread."""
    return _get_larger_p(paired.compute_equivalence_p(each, margin=margin) for each in difference.tests)


def _get_larger_p(p_values: Iterable[float]) -> float:
    """Return the largest p; NaN, as a test that could not be made is not passed, if one is."""
    return max(p_values, key=lambda p: (math.isnan(p), p))
