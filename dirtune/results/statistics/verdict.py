"""Verdict of a paired comparison in one word: helps, hurts, equivalent or undecided.

Each word is a claim, so each has a test behind it at the same level. helps, hurts: the difference is not zero, by Holm's
corrected p, and the interval agrees. equivalent: the difference is smaller than a margin that is fixed beforehand, by two
one-sided tests. Everything else is undecided, which is not "no effect": too few seeds look the same as no effect, and the
verdict gives the number of further seeds that would separate the two.

Trade-off: a proven difference is called by its sign however small it is, and `is_negligible` reports that it is within
the margin. Adding seeds until a verdict changes breaks the level of every test; add the number once, then stop.

Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics, 1987, for equivalence; the margin is a convention of
this project.
"""

import math
from dataclasses import dataclass
from typing import Literal

from dirtune.results.statistics.paired import PairedDifference, compute_equivalence_p
from dirtune.results.statistics.power import ALPHA, POWER, count_seeds_for_equivalence, count_seeds_to_detect

Decision = Literal["helps", "hurts", "equivalent", "undecided"]

MARGIN_SHARE = 0.02
"""Share of the reference's mean."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Outcome of the comparison of one arm with its reference, in one region and metric."""

    decision: Decision
    margin: float
    """The largest difference that counts as none, in the metric's unit."""
    is_negligible: bool
    """The difference was shown to be within the margin, whatever its sign."""
    p_equivalence: float
    """Of two one-sided tests, times the number of comparisons; NaN where there is no spread."""
    further_seeds: int | None
    """Zero if no more are needed or planned for; None if the number cannot be estimated."""


def make_verdict(
    difference: PairedDifference,
    *,
    reference_mean: float,
    p_holm: float,
    comparisons: int = 1,
    higher_is_better: bool = False,
    margin: float | None = None,
) -> Verdict:
    """Judge the difference of an arm to its reference.

    Args:
        difference: arm minus reference.
        reference_mean: the reference's mean over the paired seeds, in the metric's unit.
        p_holm: the difference's p, corrected over all comparisons of the family.
        comparisons: their number; the test of equivalence is multiplied by it (Bonferroni), and seeds are planned for it.
        higher_is_better: True for correlations and R2, False for errors.
        margin: the largest difference that counts as none, in the metric's unit; None means 2 % of the reference's mean.

    Returns:
        The verdict, with the number of seeds to add so that, with 80 % power at the corrected level and the observed
        standard deviation, a true difference of the margin is seen and arms that are equal are shown to be equivalent. It
        is zero for a decided comparison, and also for an undecided one that has as many already, whose difference is then
        between zero and the margin; None if the difference is over test samples, of which seeds add none. Differences
        that are all zero are equivalent without a test.

    Raises:
        ValueError: the margin is negative, or there are no comparisons.
    """
    margin = MARGIN_SHARE * abs(reference_mean) if margin is None else margin
    if margin < 0 or comparisons < 1:
        raise ValueError(f"`margin >= 0, comparisons >= 1` must hold, got {margin=}, {comparisons=}")
    p = compute_equivalence_p(difference, margin=margin)
    p_equivalence = p if math.isnan(p) else min(1.0, p * comparisons)
    # Arms that agree at every seed have no spread and so no test.
    is_same = difference.error == 0 and difference.mean == 0
    is_negligible = is_same or p_equivalence < ALPHA
    decision: Decision = "equivalent" if is_negligible else "undecided"
    # Both must agree: p is corrected over the family, the interval is not.
    if p_holm < ALPHA and (difference.low > 0 or difference.high < 0):
        decision = "helps" if (difference.mean > 0) == higher_is_better else "hurts"
    return Verdict(
        decision=decision,
        margin=margin,
        is_negligible=is_negligible,
        p_equivalence=p_equivalence,
        further_seeds=_count_further_seeds(difference, margin, comparisons) if decision == "undecided" else 0,
    )


def _count_further_seeds(difference: PairedDifference, margin: float, comparisons: int) -> int | None:
    """Return the seeds that are missing to see the margin and to show equivalence; None if not estimable."""
    # More seeds do not reduce the part of the test samples in the error.
    if difference.over != "seeds":
        return None
    alpha = ALPHA / comparisons
    to_detect = count_seeds_to_detect(sd=difference.sd, effect=margin, alpha=alpha, power=POWER)
    to_equate = count_seeds_for_equivalence(sd=difference.sd, margin=margin, alpha=alpha, power=POWER)
    if to_detect is None or to_equate is None:
        return None
    return max(0, max(to_detect, to_equate) - difference.n)
