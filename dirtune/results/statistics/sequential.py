"""Seeds added until a comparison is settled, without the errors that repeated looks would add.

A test at 5 % after every new seed errs in far more than 5 % of all studies. So a look at `n` of at most `N` seeds tests at a
level proportional to `(n / N)^3`: early looks stop only for large effects, and the last one has nearly the whole level. The
factor makes the probability of a crossing at any look equal to the level, divided by the number of arms that are compared.
Under normal differences the joint law of the looks' t statistics has no parameter, so the factor is a quantile of simulated
paths, exact for any number of seeds. There are two tests in a look, the paired t test (a difference) and two one-sided ones
(equivalence); they err under different truths and share no level.

A look is about the seeds alone, because test samples are no more at the next one. The word for a comparison whose seeds have
ended needs the test over seeds and samples at the same level (`dirtune.results.tables.verdicts`).

Trade-off: the difference of a comparison that stopped early is too large on average, as it stopped because it was large.
Its interval is that of its look's level, which covers over all looks.

Source: Lan and DeMets, "Discrete Sequential Boundaries for Clinical Trials", Biometrika 1983, for spending the level;
Jennison and Turnbull, "Repeated Confidence Intervals for Group Sequential Clinical Trials", Controlled Clinical Trials, 1984.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

from dirtune.results.statistics import power, verdict
from dirtune.results.statistics.margin import Margin
from dirtune.results.statistics.paired import compare_by_seed, compute_equivalence_p, mean

EXPONENT = 3
"""Of the share of the seeds to which a look's level is proportional."""
PATHS, PATHS_AT_ONCE = 200_000, 20_000
"""Simulated studies from which the boundaries are computed."""


@dataclass(frozen=True, kw_only=True)
class LookLevels:
    """Levels of one look."""

    difference: float
    """Of the two-sided t test."""
    equivalence: float
    """Of each of the two one-sided t tests."""


@dataclass(frozen=True, kw_only=True)
class LookSchedule:
    """Schedule of the looks: after `first` seeds, then after every `step` more, at most after `most`."""

    first: int
    step: int
    most: int
    comparisons: int
    """Arms that are compared with the reference."""

    def __post_init__(self) -> None:
        if not (2 <= self.first <= self.most >= verdict.MIN_PAIRS and self.step >= 1 and self.comparisons >= 1):
            rule = f"`2 <= first <= most`, `most >= {verdict.MIN_PAIRS}`, `step >= 1` and `comparisons >= 1` must hold"
            raise ValueError(f"{rule}, got {self}")

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of seeds at each look; the last is `most`. There is no word, and so no look, below `MIN_PAIRS`."""
        sizes = {*range(self.first, self.most, self.step), self.most}
        return tuple(sorted(size for size in sizes if size >= verdict.MIN_PAIRS))

    def get_levels(self, seeds: int, *, comparisons: int | None = None) -> LookLevels:
        """Return the levels of the look at a number of seeds.

        Args:
            seeds: one of `sizes`.
            comparisons: None means all, so that the levels are those of decisions; 1 is for the interval of a single arm.
        """
        share = (seeds / self.most) ** EXPONENT
        two_sided, one_sided = compute_factors(self.sizes, power.ALPHA / (comparisons or self.comparisons))
        return LookLevels(difference=two_sided * share, equivalence=one_sided * share)


@lru_cache
def compute_factors(sizes: tuple[int, ...], level: float) -> tuple[float, float]:
    """Return the factors of `(n / N)^3` with which a null path crosses the boundary with this probability.

    Args:
        sizes: seeds at each look.
        level: probability that any look rejects, below 1.

    Returns:
        For the two-sided and for a one-sided t test, rounded down to three digits, so that machines agree.
    """
    most = sizes[-1]
    smallest: tuple[list[np.typing.NDArray[np.float64]], ...] = ([], [])
    random = np.random.default_rng(0)
    for _ in range(PATHS // PATHS_AT_ONCE):
        drawn = random.normal(size=(PATHS_AT_ONCE, most))
        sums, squares = drawn.cumsum(axis=1), (drawn * drawn).cumsum(axis=1)
        ratios = np.ones((2, PATHS_AT_ONCE))
        for n in sizes:
            total, share = sums[:, n - 1], (n / most) ** EXPONENT
            variance = (squares[:, n - 1] - total * total / n) / (n - 1)
            t = total / np.sqrt(n * variance)
            # The factor is at most the level, so a path counts only where its p is below the share of it.
            for side, (value, bound) in enumerate(((-np.abs(t), level * share / 2), (t, level * share))):
                far = np.flatnonzero(value < scipy.special.stdtrit(n - 1, bound))
                ratios[side, far] = np.minimum(
                    ratios[side, far], (2 - side) * scipy.special.stdtr(n - 1, value[far]) / share
                )
        for side in (0, 1):
            smallest[side].append(ratios[side])
    both = [float(np.quantile(np.concatenate(side), level)) for side in smallest]
    # Paths that never come near have the ratio 1.
    factors = [min(factor, level) for factor in both]
    units = [10.0 ** (math.floor(math.log10(factor)) - 2) for factor in factors]
    two_sided, one_sided = (math.floor(factor / unit) * unit for factor, unit in zip(factors, units, strict=True))
    return two_sided, one_sided


@dataclass(frozen=True, kw_only=True)
class ComparisonState:
    """State of a comparison over the seeds after the looks that its values allow."""

    decision: verdict.Decision
    """About these test samples."""
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
    margin: Margin | None,
    higher_is_better: bool = False,
) -> ComparisonState:
    """Look at the values, seed by seed, until the comparison is settled or the seeds are used up.

    Values of later seeds are not looked at before their turn, so that the decision does not depend on the order in which
    trainings end.

    Args:
        arm: value by seed.
        reference: value by seed, in the same unit.
        seeds: in the order in which they are used; `looks.most` of them.
        looks: the schedule.
        margin: what counts as no difference; a share is of the reference's mean at the first look. None means that no
            comparison ends because it is small.
        higher_is_better: True for correlations and R2, False for errors.
    """
    both = arm.keys() & reference.keys()
    seen = 0
    for wanted in looks.sizes:
        turn = seeds[:wanted]
        if not both.issuperset(turn):
            return ComparisonState(decision="open", seeds=seen, needed=wanted)
        seen = wanted
        difference = compare_by_seed({s: arm[s] for s in turn}, {s: reference[s] for s in turn})
        levels = looks.get_levels(wanted)
        if difference.p < levels.difference:
            is_better = (difference.mean > 0) == higher_is_better
            return ComparisonState(decision="helps" if is_better else "hurts", seeds=seen, needed=None)
        # Differences that are all zero have no test.
        is_same = difference.sd == 0 and difference.mean == 0
        size = compute_first_margin(margin, reference, seeds, looks)
        if is_same or (size is not None and compute_equivalence_p(difference, margin=size) < levels.equivalence):
            return ComparisonState(decision="same", seeds=seen, needed=None)
    return ComparisonState(decision="open", seeds=seen, needed=None)


def compute_first_margin(
    margin: Margin | None, reference: Mapping[int, float], seeds: Sequence[int], looks: LookSchedule
) -> float | None:
    """Return the margin in the metric's unit, of the reference's mean at the first look, or None without one."""
    if margin is None:
        return None
    # Fixed at the first look: a margin that moved with the data would be chosen by them.
    return margin.compute_size(mean(reference[seed] for seed in seeds[: looks.sizes[0]] if seed in reference))
