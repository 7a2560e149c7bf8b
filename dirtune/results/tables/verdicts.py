"""Comparison of the arms of one column with their reference: differences, corrected p values, verdicts.

One family of tests is one column, that is one metric in one region: Holm's correction and the verdicts are over its arms,
shown or not. The margin that counts as no difference belongs to the request, so that it is fixed before the numbers are
seen and is part of every file that a table is written to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dirtune.errors import Fault, InputError
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.statistics.paired import PairedDifference, apply_holm, compare_by_seed, mean
from dirtune.results.statistics.verdict import MARGIN_SHARE, Verdict, make_verdict

DEFAULT_MARGIN = f"{100 * MARGIN_SHARE:g}%"
_MARGIN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)")


@dataclass(frozen=True, kw_only=True)
class Margin:
    """Margin of equivalence: a share of the reference's mean, or a size in the metric's unit."""

    text: str
    """As it was asked for."""
    number: float
    is_share: bool

    @classmethod
    def parse(cls, text: str) -> Margin:
        """Parse `2%` or `0.5`.

        Raises:
            InputError: it is neither a percentage nor a number, or it is negative.
        """
        found = _MARGIN.fullmatch(text.strip())
        if found is None:
            rule = "must be a share of the reference's mean such as 2%, or a number in the metric's unit such as 0.5"
            raise InputError(Fault(where="margin", rule=rule, got=text))
        is_share = found[2] == "%"
        return cls(text=text, number=float(found[1]) / (100 if is_share else 1), is_share=is_share)

    def compute_size(self, reference_mean: float) -> float:
        """Return the margin in the metric's unit."""
        # The mean of a correlation may be negative, a margin may not.
        return self.number * abs(reference_mean) if self.is_share else self.number

    def __str__(self) -> str:
        if self.is_share:
            return f"{100 * self.number:g} % of the reference's mean"
        return f"{self.number:g} in the metric's unit"


@dataclass(frozen=True, kw_only=True)
class ArmVerdict:
    """Comparison of one arm in one column."""

    difference: PairedDifference
    p_holm: float
    """NaN without a test."""
    verdict: Verdict | None
    """None without a pair."""


def compare_arms(
    arms: Mapping[str, Mapping[int, float]],
    reference: Mapping[int, float],
    *,
    metric: str,
    margin: Margin,
    differences: Mapping[str, PairedDifference] | None = None,
) -> dict[str, ArmVerdict]:
    """Compare every arm with the reference, corrected over all of them.

    Args:
        arms: value by seed, by arm, in the metric's unit; without the reference.
        reference: value by seed.
        metric: determines whether the larger value is the better one.
        margin: the largest difference that counts as none.
        differences: by arm, where they are not over seeds; None means paired by seed.
    """
    if differences is None:
        differences = {arm: compare_by_seed(values, reference) for arm, values in arms.items()}
    corrected = apply_holm({arm: difference.p for arm, difference in differences.items()})
    comparisons = sum(not math.isnan(p) for p in corrected.values())
    found = {}
    for arm, difference in differences.items():
        # Over the paired seeds only, so that the margin belongs to the same runs as the difference.
        level = mean(reference[seed] for seed in reference.keys() & arms[arm].keys())
        verdict = None
        if difference.n:
            verdict = make_verdict(
                difference,
                reference_mean=level,
                p_holm=corrected[arm],
                # No arm may have a test, and p values must not be multiplied by zero.
                comparisons=max(1, comparisons),
                higher_is_better=metric in HIGHER_IS_BETTER,
                margin=margin.compute_size(level),
            )
        found[arm] = ArmVerdict(difference=difference, p_holm=corrected[arm], verdict=verdict)
    return found
