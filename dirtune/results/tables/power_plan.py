"""Seeds and test samples that a study's claim needs to find an effect, estimated from the records of its arms.

The effect is named by the user, not observed; the spread is that of the paired seeds and of the test samples. Both are rough, so
the numbers are coarse steps with a range.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.statistics import power
from dirtune.results.statistics.joint import JointDifference
from dirtune.results.statistics.margin import Margin
from dirtune.results.tables.table import make_arm_table


@dataclass(frozen=True, kw_only=True)
class ArmNeeds:
    """Needs of one arm; all None if they cannot be estimated."""

    arm: str
    to_detect: tuple[power.Needs, power.Needs, power.Needs] | None
    """With the estimated spread, and with the smallest and the largest that the seeds leave possible."""
    to_equate: power.Needs | None
    """To show that an arm that is equal to the reference differs by less than the effect."""
    reason: str = ""
    """For having no estimate."""


@dataclass(frozen=True, kw_only=True)
class PowerPlan:
    """Needs of all arms of a study."""

    claim: str
    """The column that they are about."""
    effect: Margin
    comparisons: int
    """Arms over which tests are corrected."""
    samples: int
    """Test samples of the column."""
    arms: tuple[ArmNeeds, ...]

    def __str__(self) -> str:
        lines = [
            f"to find that {self.claim} changes by {self.effect}, with {100 * power.POWER:g} % power, corrected over {self.comparisons} "
            "arms; in brackets: for the smallest and the largest likely spread",
        ]
        for each in self.arms:
            if each.to_detect is None or each.to_equate is None:
                lines.append(f"{each.arm}: {each.reason}")
                continue
            middle, low, high = each.to_detect
            ends = [power.SEED_STEPS[-1] if needs.seeds is None else needs.seeds for needs in (low, high)]
            over = "over " if high.seeds is None else ""
            interval = "" if middle.samples is None else f" ({ends[0]} to {over}{ends[1]})"
            lines.append(
                f"{each.arm}: {self._format_needs(middle)}{interval}; to show that an equal arm changes less: "
                f"{self._format_needs(each.to_equate)}"
            )
        return "\n".join(lines)

    def _format_needs(self, needs: power.Needs) -> str:
        seeds = f"over {power.SEED_STEPS[-1]} seeds" if needs.seeds is None else f"about {needs.seeds} seeds"
        if needs.samples is None:
            return f"over {power.SAMPLE_STEPS[-1]} times as many test samples; more seeds do not help"
        if needs.samples == 1:
            return seeds
        return f"{seeds} and {needs.samples} times as many test samples, about {needs.samples * self.samples}"


def plan_power(root: str | Path, study: str, effect: str) -> PowerPlan:
    """Estimate the seeds and test samples that a study needs.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        effect: the smallest change that matters: a share of the reference's mean (`5%`), or a number in the metric's unit.

    Raises:
        InputError: the effect is unreadable, the study has no reference, no arm has enough pairs, or as `make_arm_table`.
    """
    table = make_arm_table(root, study)
    claim = table.claim
    parsed = Margin.parse(effect, metric=claim.metric)
    if table.reference is None:
        raise InputError(Fault(where=f"study {study}", rule="has no reference to compare with"))
    if table.repetition is not None:
        rule = f"compares its arms over {table.repetition}; plan from a study of one split and one search, whose seeds are counted"
        raise InputError(Fault(where=f"study {study}", rule=rule))
    others = [row for row in table.rows if row.arm != table.reference]
    found = []
    for row in others:
        cell = row.cells[claim.region]
        size = parsed.compute_size(cell.reference_mean)
        found.append(_estimate(row.arm, cell.difference, size, len(others), table.no_predictions))
    plan = PowerPlan(
        claim=f"{claim.metric} in region {claim.region}",
        effect=parsed,
        comparisons=len(others),
        samples=table.samples.get(claim.region, 0),
        arms=tuple(found),
    )
    if all(each.to_detect is None for each in plan.arms):
        reasons = "; ".join(f"{each.arm}: {each.reason}" for each in plan.arms)
        raise InputError(Fault(where=f"study {study}", rule=f"has no arm that a plan can be made from ({reasons})"))
    return plan


def _estimate(
    arm: str, difference: JointDifference | None, effect: float, comparisons: int, no_predictions: str
) -> ArmNeeds:
    pairs = 0 if difference is None else difference.n
    reason = f"needs {power.MIN_PAIRS} pairs of seeds, has {pairs}" if pairs < power.MIN_PAIRS else ""
    if difference is None or difference.over_both is None or not difference.sd * difference.sd > 0:
        reason = reason or no_predictions or "no stored predictions, or no spread"
    if reason or difference is None or difference.over_both is None:
        return ArmNeeds(arm=arm, to_detect=None, to_equate=None, reason=reason)
    both, seeds = difference.over_both.error, difference.over_seeds.error
    variance = both * both - seeds * seeds
    alpha = power.ALPHA / comparisons

    def can_detect(seeds: int, spread: power.Spread) -> bool:
        return power.compute_joint_power(seeds, spread=spread, effect=effect, alpha=alpha) >= power.POWER

    def can_equate(seeds: int, spread: power.Spread) -> bool:
        return power.compute_joint_equivalence_power(seeds, spread=spread, margin=effect, alpha=alpha) >= power.POWER

    def find(has_power: Callable[[int, power.Spread], bool], sd: float) -> power.Needs:
        return power.find_needs(has_power, power.Spread(sd=sd, sample_variance=max(variance, 0.0)))

    low, high = power.bound_sd(difference.sd, pairs)
    return ArmNeeds(
        arm=arm,
        to_detect=(find(can_detect, difference.sd), find(can_detect, low), find(can_detect, high)),
        to_equate=find(can_equate, difference.sd),
    )
