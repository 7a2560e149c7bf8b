"""Word for a comparison: helps, hurts, same or open.

Each word is a claim about new seeds on new test samples, so each has tests behind it at the same level. helps, hurts: the
difference is not zero, by Holm's corrected p of the joint test (`dirtune.results.statistics.joint`). same: the difference is
smaller than a margin that is fixed beforehand, by two one-sided tests. Everything else is open, which is not "no effect":
too few seeds or test samples look the same as no effect.

Trade-off: a proven difference is called by its sign however small it is, and `is_negligible` reports that it is within the
margin. Adding seeds until a word changes breaks the level of every test (`dirtune.results.statistics.sequential` does not).

Source: Schuirmann, Journal of Pharmacokinetics and Biopharmaceutics, 1987, for equivalence.
"""

import math
from dataclasses import dataclass
from typing import Literal

from dirtune.results.statistics import joint, power

Decision = Literal["helps", "hurts", "same", "open"]

MIN_PAIRS = 3
"""Paired seeds below which there is no word: with two, a test finds next to nothing, and what it finds is often of the
wrong sign."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Word for the comparison of one arm with its reference, in one region and metric."""

    decision: Decision
    margin: float | None
    """The largest difference that counts as none, in the metric's unit; None if the study has none."""
    is_negligible: bool
    """The difference was shown to be within the margin, whatever its sign."""
    p_equivalence: float
    """Of the two one-sided tests, times the number of comparisons; NaN without a margin or a spread."""
    limit: joint.Limit | None
    """What the uncertainty is made of; None if there is none."""
    caveats: tuple[str, ...] = ()
    """Why the trainings are no ground for the word (`dirtune.results.analysis.soundness`); empty if they are sound."""

    def __str__(self) -> str:
        return f"{self._get_word()}, but: {'; '.join(self.caveats)}" if self.caveats else self._get_word()

    def _get_word(self) -> str:
        if self.decision == "open":
            return f"open ({self.limit})" if self.limit else "open"
        if self.decision in ("helps", "hurts") and self.is_negligible:
            return f"{self.decision}, within the margin"
        return self.decision


def make_verdict(
    difference: joint.JointDifference,
    *,
    p_holm: float,
    correction: float = 1.0,
    higher_is_better: bool = False,
    margin: float | None = None,
) -> Verdict:
    """Judge the difference of an arm to its reference.

    Args:
        difference: arm minus reference.
        p_holm: the difference's p, corrected over all comparisons of the family.
        correction: factor by which p of the test of equivalence is multiplied, the number of comparisons (Bonferroni).
        higher_is_better: True for correlations and R2, False for errors.
        margin: the largest difference that counts as none, in the metric's unit; without one, no difference is small.

    Returns:
        The verdict. Arms that agree at every seed and sample are the same without a test.

    Raises:
        ValueError: the margin is negative, or the correction is below one.
    """
    if (margin is not None and margin < 0) or correction < 1:
        raise ValueError(f"`margin >= 0, correction >= 1` must hold, got {margin=}, {correction=}")
    p = math.nan if margin is None else joint.compute_joint_equivalence_p(difference, margin=margin)
    p_equivalence = p if math.isnan(p) else min(1.0, p * correction)
    is_negligible = difference.is_exactly_zero or p_equivalence < power.ALPHA
    decision: Decision = "same" if is_negligible else "open"
    if p_holm < power.ALPHA:
        decision = "helps" if (difference.mean > 0) == higher_is_better else "hurts"
    return Verdict(
        decision=decision,
        margin=margin,
        is_negligible=is_negligible,
        p_equivalence=p_equivalence,
        limit=difference.limit,
    )
