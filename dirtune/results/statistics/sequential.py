"""Seeds added until a comparison is decided, without the errors that repeated looks would add.

A test at 5 % after every new seed errs in far more than 5 % of all studies. So the level is spent: the look at `n` seeds of
at most `N` gets the share `(n - n_before) / N` of it, divided by the number of arms that are compared. By the union bound
the probability of any wrong decision, over all looks and arms, is then at most the level. There are two tests in a look,
the paired t test (helps, hurts) and two one-sided ones (equivalent); they err under different truths and share no level.

Trade-off: boundaries from the joint law of the looks would stop a little sooner; they hold for many seeds, not for five.

Source: Lan and DeMets, "Discrete Sequential Boundaries for Clinical Trials", Biometrika 1983, for spending the level.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dirtune.results.statistics.paired import compare_by_seed, compute_equivalence_p, mean
from dirtune.results.statistics.power import ALPHA
from dirtune.results.statistics.verdict import Decision


@dataclass(frozen=True, kw_only=True)
class LookSchedule:
    """Schedule of the looks: after `first` seeds, then after every `step` more, at most after `most`."""

    first: int
    step: int
    most: int
    comparisons: int
    """Arms that are compared with the reference."""

    def __post_init__(self) -> None:
        if not (2 <= self.first <= self.most and self.step >= 1 and self.comparisons >= 1):
            rule = "`2 <= first <= most`, `step >= 1` and `comparisons >= 1` must hold"
            raise ValueError(f"{rule}, got {self}")

    @property
    def sizes(self) -> list[int]:
        """Number of seeds at each look; the last is `most`."""
        return sorted({*range(self.first, self.most, self.step), self.most})

    def get_level(self, look: int) -> float:
        """Return the level that look number `look`, from 0, may spend."""
        before = self.sizes[look - 1] if look else 0
        return ALPHA * (self.sizes[look] - before) / self.most / self.comparisons


@dataclass(frozen=True, kw_only=True)
class ComparisonState:
    """State of a comparison after the looks that its values allow."""

    decision: Decision
    seeds: int
    """Seeds of the last look; 0 before the first."""
    needed: int | None
    """Seeds that the next look waits for; None if the comparison has ended."""


def run_looks(
    arm: Mapping[int, float],
    reference: Mapping[int, float],
    *,
    seeds: Sequence[int],
    looks: LookSchedule,
    margin: float,
    higher_is_better: bool = False,
) -> ComparisonState:
    """Look at the values, seed by seed, until the comparison is decided or the seeds are used up.

    Values of later seeds are not looked at before their turn, so that the decision does not depend on the order in which
    trainings end.

    Args:
        arm: value by seed.
        reference: value by seed, in the same unit.
        seeds: in the order in which they are used; `looks.most` of them.
        looks: the schedule.
        margin: what counts as no difference, as a share of the reference's mean at the first look.
        higher_is_better: True for correlations and R2, False for errors.
    """
    both = arm.keys() & reference.keys()
    size, seen = 0.0, 0
    for look, wanted in enumerate(looks.sizes):
        turn = seeds[:wanted]
        if not both.issuperset(turn):
            return ComparisonState(decision="undecided", seeds=seen, needed=wanted)
        seen = wanted
        # Fixed at the first look: a margin that moved with the data would be chosen by them.
        size = size or margin * abs(mean(reference[seed] for seed in turn))
        difference = compare_by_seed({s: arm[s] for s in turn}, {s: reference[s] for s in turn})
        level = looks.get_level(look)
        if difference.p < level:
            is_better = (difference.mean > 0) == higher_is_better
            return ComparisonState(decision="helps" if is_better else "hurts", seeds=seen, needed=None)
        # Differences that are all zero have no test.
        is_same = difference.sd == 0 and difference.mean == 0
        if is_same or compute_equivalence_p(difference, margin=size) < level:
            return ComparisonState(decision="equivalent", seeds=seen, needed=None)
    return ComparisonState(decision="undecided", seeds=seen, needed=None)
