"""Words of a column: joint tests of every arm against the reference, corrected over the arms, shown or not.

Only the claim's column has words. Reasons not to have one are part of the result: too few pairs, no stored predictions, or
searches of unequal size, of which the larger finds the better settings by itself.

In a sequential study the seeds were ended by looks at this column. Then the test over seeds and samples must pass the level
of the arm's last look, p values are multiplied accordingly, and the interval is that of the look's level.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.claims import Claim
from dirtune.results.analysis.sequential import SequentialSummary
from dirtune.results.statistics.joint import Array, JointDifference, Repeated, compare_jointly
from dirtune.results.statistics.paired import apply_holm, mean
from dirtune.results.statistics.power import ALPHA
from dirtune.results.statistics.sequential import compute_first_margin
from dirtune.results.statistics.verdict import MIN_PAIRS, Verdict, make_verdict

NO_PREDICTIONS = "no stored predictions to count test samples by"
UNEQUAL_SEARCHES = "another number of configurations than the reference"
FEW_PAIRS = f"fewer than {MIN_PAIRS} pairs"
SAME_SAMPLES = "all splits have the same test samples"


@dataclass(frozen=True, kw_only=True)
class ColumnArm:
    """One arm in one column, before it is judged."""

    values: Mapping[int, float]
    """By seed."""
    parts: Array | None
    """Each sample's part in the difference to the reference, shape `(seeds or searches, units)`; None without predictions."""
    configurations: int
    """Configurations tried per seed, or in the search beforehand."""


@dataclass(frozen=True, kw_only=True)
class ArmVerdict:
    """Comparison of one arm in one column."""

    difference: JointDifference
    p_holm: float = math.nan
    """NaN without a test."""
    verdict: Verdict | None = None
    """None without a word."""
    no_word: str = ""
    """The reason for having none."""
    is_early: bool = False
    """The arm's seeds ended before the last look, so that the difference is too large on average."""


def compare_arms(
    arms: Mapping[str, ColumnArm], reference: ColumnArm, repeated: Repeated | None = None
) -> dict[str, ArmVerdict]:
    """Compare every arm (without the reference) with the reference, without words."""
    return {
        arm: ArmVerdict(difference=compare_jointly(column.values, reference.values, column.parts, repeated))
        for arm, column in arms.items()
    }


def judge_arms(
    arms: Mapping[str, ColumnArm],
    reference: ColumnArm,
    *,
    claim: Claim,
    sequential: SequentialSummary | None = None,
    repeated: Repeated | None = None,
) -> dict[str, ArmVerdict]:
    """Compare every arm with the reference and give each its word.

    Args:
        arms: without the reference.
        reference: its values and configurations.
        claim: metric and margin of the column.
        sequential: the looks at this column, if seeds were added by them.
        repeated: splits or searches, if these are the unit of tests.
    """
    if sequential is not None:
        return {
            arm: _judge_sequential(arm, column, reference, claim=claim, summary=sequential)
            for arm, column in arms.items()
        }
    differences = {arm: found.difference for arm, found in compare_arms(arms, reference, repeated).items()}
    reasons = {arm: _find_reason(column, reference, differences[arm]) for arm, column in arms.items()}
    # Arms without a word are no tests of the family.
    corrected = apply_holm({arm: differences[arm].p for arm, reason in reasons.items() if not reason})
    comparisons = sum(not math.isnan(p) for p in corrected.values())
    found = {}
    for arm, difference in differences.items():
        if reasons[arm]:
            found[arm] = ArmVerdict(difference=difference, no_word=reasons[arm])
            continue
        # Over the paired seeds only, so that the margin belongs to the same runs as the difference.
        level = mean(reference.values[seed] for seed in reference.values.keys() & arms[arm].values.keys())
        verdict = make_verdict(
            difference,
            p_holm=corrected[arm],
            # No arm may have a test, and p values must not be multiplied by zero.
            correction=max(1, comparisons),
            higher_is_better=claim.metric in HIGHER_IS_BETTER,
            margin=None if claim.margin is None else claim.margin.compute_size(level),
        )
        found[arm] = ArmVerdict(difference=difference, p_holm=corrected[arm], verdict=verdict)
    return found


def _find_reason(column: ColumnArm, reference: ColumnArm, difference: JointDifference) -> str:
    """Return why an arm has no word; empty if it has one."""
    if not difference.n:
        return "no pair"
    if difference.n < MIN_PAIRS:
        return FEW_PAIRS
    if column.configurations != reference.configurations:
        return UNEQUAL_SEARCHES
    if difference.unit == "splits" and math.isnan(difference.over_seeds.error):
        return SAME_SAMPLES
    return "" if difference.is_about_new_samples else NO_PREDICTIONS


def _judge_sequential(
    arm: str, column: ColumnArm, reference: ColumnArm, *, claim: Claim, summary: SequentialSummary
) -> ArmVerdict:
    """Judge an arm by its last look."""
    state, looks, seeds = summary.states[arm], summary.rule.looks, summary.rule.seeds
    turn = seeds[: state.seeds]
    used = {seed: value for seed, value in column.values.items() if seed in turn}
    if not state.seeds:
        difference = compare_jointly(column.values, reference.values, column.parts)
        return ArmVerdict(difference=difference, no_word="not looked at yet")
    difference = compare_jointly(used, reference.values, column.parts)
    levels = looks.get_levels(state.seeds)
    # The interval is of this arm alone, as in studies of fixed seeds.
    confidence = 1 - looks.get_levels(state.seeds, comparisons=1).difference
    shown = difference.with_confidence(confidence)
    is_early = state.needed is None and state.seeds < looks.most
    if reason := _find_reason(column, reference, difference):
        return ArmVerdict(difference=shown, no_word=reason, is_early=is_early)
    p = difference.p
    verdict = make_verdict(
        shown,
        # Scaled so that it is compared with the usual level, as the corrected p values of other studies.
        p_holm=(p_holm := p if math.isnan(p) else min(1.0, p * ALPHA / levels.difference)),
        correction=ALPHA / levels.equivalence,
        higher_is_better=claim.metric in HIGHER_IS_BETTER,
        margin=compute_first_margin(claim.margin, reference.values, seeds, looks),
    )
    return ArmVerdict(difference=shown, p_holm=p_holm, verdict=verdict, is_early=is_early)
