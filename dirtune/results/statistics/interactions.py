"""What two parts do together beyond the sum of what each does alone."""

from __future__ import annotations

from collections.abc import Mapping

from dirtune.results.statistics.paired import PairedDifference, paired_difference

# By seed
Values = Mapping[int, float]


def interaction(*, both: Values, first: Values, second: Values, neither: Values) -> PairedDifference:
    """The two-factor interaction `effect(A and B) - effect(A) - effect(B) = ab - a - b + 0`, seed by seed.

    The contrast of a 2 x 2 factorial design, not halved, in the metric's unit. It says how far B's effect with A is from
    B's effect without A: zero where they add up. For an error, a negative one is more gain together than the sum. Its
    variance is that of four runs, so that it needs about twice the seeds of a difference of two.

    Args:
        both: value by seed of the arm with A and B.
        first: of the arm with A.
        second: of the arm with B.
        neither: of the arm without both; only seeds that all four have are used.
    """
    with_first = _less(both, first)
    return paired_difference(with_first, _less(second, neither))


def _less(values: Values, others: Values) -> dict[int, float]:
    return {seed: values[seed] - others[seed] for seed in values.keys() & others.keys()}
