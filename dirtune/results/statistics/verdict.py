"""What a paired comparison says in one word: helps, hurts, equivalent or undecided.

A word is a claim, so each has a test behind it at the same level. helps, hurts: the difference is not zero, by Holm's
corrected p, and the interval agrees. equivalent: the difference is smaller than a margin that is said beforehand, by two
one-sided tests. Everything else is undecided, which is not "no effect": too few seeds look the same as no effect, and the
verdict says how many more would tell the two apart.

Trade-off: a proven difference is called by its sign however small it is, and `is_negligible` says that it lies within
the margin. Adding seeds until a verdict changes breaks the level of every test; add the number once, then stop.

Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics, 1987, for equivalence; the margin is a convention of
this project.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from dirtune.results.statistics.bootstrap import Interval
from dirtune.results.statistics.paired import PairedDifference
from dirtune.results.statistics.paired_tests import equivalence
from dirtune.results.statistics.power import ALPHA, POWER, seeds_to_detect, seeds_to_equate

Decision = Literal["helps", "hurts", "equivalent", "undecided"]

# Of the reference's mean
MARGIN_SHARE = 0.02


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One arm against its reference, in one region and metric."""

    decision: Decision
    margin: float
    """What counts as no difference, in the metric's unit."""
    is_negligible: bool
    """Shown to lie within the margin, whatever its sign."""
    p_equivalence: float
    """Of two one-sided tests, times the number of comparisons; NaN where there is no spread."""
    further_seeds: int | None
    """0: no more needed, or planned for; none: cannot be estimated."""


def verdict(
    difference: PairedDifference,
    *,
    reference_mean: float,
    p_holm: float,
    comparisons: int = 1,
    higher_is_better: bool = False,
    margin: float | None = None,
    interval: Interval | None = None,
) -> Verdict:
    """Judge the difference of an arm to its reference.

    Args:
        difference: arm minus reference, paired by seed.
        reference_mean: the reference's mean over the same seeds, in the metric's unit.
        p_holm: the difference's p, corrected over all comparisons of the family.
        comparisons: their number; the test of equivalence is multiplied by it (Bonferroni), and seeds are planned for it.
        higher_is_better: for correlations and R2; errors are lower-is-better.
        margin: what counts as no difference, in the metric's unit; none: 2 % of the reference's mean.
        interval: of the same difference, such as `two_way_interval`, which speaks of new test samples too; it must agree
            with a claim, that is exclude zero or lie within the margin. None: the difference's own, over seeds.

    Returns:
        `further_seeds` is how many to add so that, with 80 % power at the corrected level and the observed standard
        deviation, a true difference of the margin is seen and arms that are equal are shown to be equivalent. It is zero
        for a decided comparison; and also for an undecided one that has as many already, whose difference then lies
        between zero and the margin. Differences that are all zero are equivalent without a test.

    Raises:
        ValueError: the margin is negative, or there are no comparisons.
    """
    margin = MARGIN_SHARE * abs(reference_mean) if margin is None else margin
    if margin < 0 or comparisons < 1:
        raise ValueError(f"`margin >= 0, comparisons >= 1` must hold, got {margin=}, {comparisons=}")
    p = equivalence(difference, margin=margin)
    p_equivalence = p if math.isnan(p) else min(1.0, p * comparisons)
    is_same = difference.n > 1 and difference.sd == 0 and difference.mean == 0
    agrees = interval is None or max(-interval.low, interval.high) <= margin
    is_negligible = agrees and (is_same or p_equivalence < ALPHA)
    decision: Decision = "equivalent" if is_negligible else "undecided"
    if p_holm < ALPHA and _excludes_zero(interval or difference):
        decision = "helps" if (difference.mean > 0) == higher_is_better else "hurts"
    return Verdict(
        decision=decision,
        margin=margin,
        is_negligible=is_negligible,
        p_equivalence=p_equivalence,
        further_seeds=_further(difference, margin, comparisons) if decision == "undecided" else 0,
    )


def _excludes_zero(interval: PairedDifference | Interval) -> bool:
    return interval.low > 0 or interval.high < 0


def _further(difference: PairedDifference, margin: float, comparisons: int) -> int | None:
    alpha = ALPHA / comparisons
    to_detect = seeds_to_detect(sd=difference.sd, effect=margin, alpha=alpha, power=POWER)
    to_equate = seeds_to_equate(sd=difference.sd, margin=margin, alpha=alpha, power=POWER)
    if to_detect is None or to_equate is None:
        return None
    return max(0, max(to_detect, to_equate) - difference.n)
