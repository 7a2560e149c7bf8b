"""Number of seeds that a paired comparison needs: power of the paired t test and of the test of equivalence.

Plan on the smallest difference that matters, not on the one that was observed: the power at the observed difference is
only the p value in other words, and a difference that was noticed because it was large is smaller the next time (Hoenig
and Heisey, "The Abuse of Power", The American Statistician, 2001). The standard deviation must come from somewhere, and
from few seeds it is rough: from five, the true one is between 0.6 and 2.9 times the estimate, so the number of seeds
between 0.4 and 8 times. Read it as an order of magnitude.

Source: Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988, section 2.3.5; Schuirmann, Journal of
Pharmacokinetics and Biopharmaceutics, 1987, for equivalence.
"""

import math
from collections.abc import Callable

import numpy as np

# scipy.stats takes three times as long to import.
from scipy.special import gammaincinv, nctdtr, ndtr, ndtri, stdtrit

ALPHA, POWER = 0.05, 0.8
MOST_SEEDS = 100_000
"""A larger number of seeds is reported as None."""
GRID = 128
"""Points in the distribution of the standard deviation."""


def compute_detection_power(n: int, *, sd: float, effect: float, alpha: float = ALPHA) -> float:
    """Return the probability that the two-sided paired t test of `n` seeds sees a true difference.

    `P(|T| > t)` with `T` of the noncentral t distribution, `n - 1` degrees of freedom, noncentrality
    `|effect| sqrt(n) / sd`, and `t` the two-sided critical value at `alpha`.

    Args:
        n: seeds, at least two.
        sd: true standard deviation of the differences, in the metric's unit, above zero.
        effect: true difference, in the metric's unit.
        alpha: level of the test; divided by the number of arms, a bound for Holm's correction.
    """
    shift, critical = abs(effect) * math.sqrt(n) / sd, stdtrit(n - 1, 1 - alpha / 2)
    return float(1 - nctdtr(n - 1, shift, critical) + nctdtr(n - 1, shift, -critical))


def compute_equivalence_power(n: int, *, sd: float, margin: float, alpha: float = ALPHA) -> float:
    """Return the probability that two one-sided t tests of `n` seeds show equivalence of arms that are equal.

    Given the observed standard deviation `s`, the mean must be within `margin - t s / sqrt(n)` of zero; the probability of
    that is averaged over the distribution of `s`, `sd sqrt(chi2(n - 1) / (n - 1))`, at 128 equally likely points.

    Args:
        n: seeds, at least two.
        sd: true standard deviation of the differences, in the metric's unit, above zero.
        margin: the largest difference that counts as none, in the metric's unit.
        alpha: level of each one-sided test.
    """
    freedom = n - 1
    # Midpoints of equally likely intervals: an average without numerical integration.
    shares = (np.arange(GRID) + 0.5) / GRID
    spreads = sd * np.sqrt(2 * gammaincinv(freedom / 2, shares) / freedom)
    room = margin * math.sqrt(n) - stdtrit(freedom, 1 - alpha) * spreads
    # With a large observed spread the room is negative: no mean, not even zero, would show equivalence.
    return float(np.maximum(2 * ndtr(room / sd) - 1, 0).mean())


def count_seeds_to_detect(*, sd: float, effect: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which the paired t test sees a true difference with this power.

    Arguments and units as in `compute_detection_power`.

    Returns:
        None where there is nothing to see or to estimate (no effect, no spread, a NaN), or above 100,000.
    """
    quantile = ndtri(1 - alpha / 2) + ndtri(power)
    return _find_smallest(
        lambda n: compute_detection_power(n, sd=sd, effect=effect, alpha=alpha) >= power,
        quantile=quantile,
        sd=sd,
        effect=effect,
    )


def count_seeds_for_equivalence(*, sd: float, margin: float, alpha: float = ALPHA, power: float = POWER) -> int | None:
    """Return the smallest number of seeds with which equal arms are shown to be equivalent with this power.

    Arguments and units as in `compute_equivalence_power`; None as in `count_seeds_to_detect`.
    """
    quantile = ndtri(1 - alpha) + ndtri((1 + power) / 2)
    return _find_smallest(
        lambda n: compute_equivalence_power(n, sd=sd, margin=margin, alpha=alpha) >= power,
        quantile=quantile,
        sd=sd,
        effect=margin,
    )


def _find_smallest(is_enough: Callable[[int], bool], *, quantile: float, sd: float, effect: float) -> int | None:
    """Return the smallest number of seeds that is enough; None if it is above `MOST_SEEDS` or cannot be estimated."""
    # If the standard deviation were known, this many would do: a lower bound that is a few seeds away.
    start = float((quantile * sd / effect) ** 2) if sd > 0 and abs(effect) > 0 else math.inf
    if not start <= MOST_SEEDS:
        return None
    n = max(2, math.floor(start))
    while not is_enough(n):
        n += 1
    return n
