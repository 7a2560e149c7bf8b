"""Numbers of seeds and test samples that a comparison needs: power of the tests of a difference and of equivalence.

Plan on the smallest difference that matters, not on the one that was observed: the power at the observed difference is
only the p value in other words, and a difference that was noticed because it was large is smaller the next time (Hoenig
and Heisey, "The Abuse of Power", The American Statistician, 2001). The standard deviation must come from somewhere, and
from few seeds it is rough: from five, the true one is between 0.6 and 2.9 times the estimate. So a plan needs five pairs, is
made in coarse steps, and has a range.

Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.3.5; Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics, 1987, for equivalence.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# scipy loads its parts when they are first used, and scipy.stats takes three times as long as scipy.special.
import scipy

ALPHA, POWER = 0.05, 0.8
GRID = 128
"""Points in the distribution of the standard deviation."""
MIN_PAIRS = 5
"""Pairs of seeds from which a plan is made."""
SEED_STEPS = (3, 5, 10, 20, 50, 100)
SAMPLE_STEPS = (1, 2, 5, 10, 20, 50, 100)
"""Multiples of the present test samples."""
RANGE = 0.8
"""Probability that the true standard deviation is inside the range of a plan."""


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Uncertainty of a difference, by its source."""

    sd: float
    """Standard deviation of the differences by seed, in the metric's unit."""
    sample_variance: float
    """Variance that the choice of the present test samples adds to the mean difference."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Numbers with which a comparison has a power of 80 %, in coarse steps."""

    seeds: int | None
    """One of `SEED_STEPS`; None means more than the last."""
    samples: int | None
    """Multiple of the present test samples, one of `SAMPLE_STEPS`; None means more than the last."""


def compute_joint_power(seeds: int, *, spread: Spread, effect: float, alpha: float = ALPHA) -> float:
    """Return the power of the joint test over seeds and test samples (`dirtune.results.statistics.joint`).

    The smaller power of its two tests: over seeds, and over both with `(S - 1) (total / own)^2` degrees of freedom.

    Args:
        seeds: at least two.
        spread: true values, above zero.
        effect: true difference, in the metric's unit.
        alpha: level of the test.
    """
    return min(_compute_t_power(effect, error=error, df=df, alpha=alpha) for error, df in _list_errors(seeds, spread))


def compute_joint_equivalence_power(seeds: int, *, spread: Spread, margin: float, alpha: float = ALPHA) -> float:
    """Return the probability that the joint test shows the equivalence of equal arms; arguments as above."""
    return min(
        _compute_tost_power(margin, error=error, df=df, alpha=alpha) for error, df in _list_errors(seeds, spread)
    )


def find_needs(has_power: Callable[[int, Spread], bool], spread: Spread) -> Needs:
    """Return the fewest test samples, then the fewest seeds, with which a comparison has its power.

    Args:
        has_power: True if a number of seeds is enough for a spread.
        spread: with the present test samples.
    """
    for samples in SAMPLE_STEPS:
        # The samples' variance falls with their number, the seeds' does not.
        thinned = Spread(sd=spread.sd, sample_variance=spread.sample_variance / samples)
        seeds = next((each for each in SEED_STEPS if has_power(each, thinned)), None)
        # More samples help only where more seeds do not.
        if seeds is not None or not has_power(SEED_STEPS[-1], Spread(sd=spread.sd, sample_variance=0.0)):
            return Needs(seeds=seeds, samples=samples)
    return Needs(seeds=SEED_STEPS[-1], samples=None)


def bound_sd(sd: float, pairs: int) -> tuple[float, float]:
    """Return the limits of the true standard deviation, by the chi-square distribution, with probability `RANGE`."""
    half, tail = (pairs - 1) / 2, (1 - RANGE) / 2
    low, high = (sd * math.sqrt(half / scipy.special.gammaincinv(half, share)) for share in (1 - tail, tail))
    return low, high


def _list_errors(seeds: int, spread: Spread) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return standard error and degrees of freedom of both tests."""
    own = spread.sd * spread.sd / seeds
    total = own + spread.sample_variance
    return (math.sqrt(own), seeds - 1), (math.sqrt(total), (seeds - 1) * (total / own) * (total / own))


def _compute_t_power(effect: float, *, error: float, df: float, alpha: float) -> float:
    """Return `P(|T| > t)`, `T` of the noncentral t distribution with noncentrality `|effect| / error`."""
    shift, critical = abs(effect) / error, scipy.special.stdtrit(df, 1 - alpha / 2)
    if not math.isfinite(shift):
        return math.nan
    # scipy's series does not converge for some probabilities below 1e-15.
    below, above = np.nan_to_num(
        [scipy.special.nctdtr(df, shift, critical), scipy.special.nctdtr(df, shift, -critical)]
    )
    return float(1 - below + above)


def _compute_tost_power(margin: float, *, error: float, df: float, alpha: float) -> float:
    """Return the probability that both one-sided t tests of equal arms reject.

    Given the observed standard error `e`, the mean must be within `margin - t e` of zero; the probability of that is averaged
    over the distribution of `e`, `error sqrt(chi2(df) / df)`, at 128 equally likely points.
    """
    # Midpoints of equally likely intervals: an average without numerical integration.
    shares = (np.arange(GRID) + 0.5) / GRID
    spreads = error * np.sqrt(2 * scipy.special.gammaincinv(df / 2, shares) / df)
    room = margin - scipy.special.stdtrit(df, 1 - alpha) * spreads
    # With a large observed spread the room is negative: no mean, not even zero, would show equivalence.
    return float(np.maximum(2 * scipy.special.ndtr(room / error) - 1, 0).mean())
