"""Interaction of two parts: the effect of both beyond the sum of the effects of each alone."""

from collections.abc import Mapping

from dirtune.results.statistics.paired import PairedDifference, compare_by_seed

Values = Mapping[int, float]
"""Value by seed."""


def compute_interaction(*, both: Values, first: Values, second: Values, neither: Values) -> PairedDifference:
    """Return the two-factor interaction `effect(A and B) - effect(A) - effect(B) = ab - a - b + 0`, seed by seed.

    The contrast of a 2 x 2 factorial design, not halved, in the metric's unit: B's effect with A minus B's effect without
    A, which is zero where effects add up. For an error, a negative interaction is more gain together than the sum. Its
    variance is that of four runs, so that it needs about twice the seeds of a difference of two.

    Args:
        both: value by seed of the arm with A and B.
        first: of the arm with A.
        second: of the arm with B.
        neither: of the arm without both; only seeds that all four have are used.
    """
    with_first = {seed: both[seed] - first[seed] for seed in both.keys() & first.keys()}
    return compare_by_seed(with_first, {seed: second[seed] - neither[seed] for seed in second.keys() & neither.keys()})
