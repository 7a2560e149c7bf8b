"""The arms of one column against their reference: differences by seed, corrected p, and what they say in one word.

One family of tests is one column, that is one metric in one region: Holm's correction and the verdicts are over its arms,
shown or not. What counts as no difference is a margin that belongs to the request, so that it is said before the numbers are
seen and stands in every file that a table is put into.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dirtune.errors import Fault, InputError
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.statistics.paired import PairedDifference, holm, mean, paired_difference
from dirtune.results.statistics.verdict import MARGIN_SHARE, Verdict, verdict

DEFAULT_MARGIN = f"{100 * MARGIN_SHARE:g}%"
_MARGIN = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(%?)")


@dataclass(frozen=True, kw_only=True)
class Margin:
    """What counts as no difference: a share of the reference's mean, or a size in the metric's unit."""

    text: str
    """As it was asked for."""
    number: float
    is_share: bool

    @classmethod
    def read(cls, text: str) -> Margin:
        """From `2%` or `0.5`.

        Raises:
            InputError: it is neither a percentage nor a number, or it is negative.
        """
        found = _MARGIN.fullmatch(text.strip())
        if found is None:
            rule = "must be a share of the reference's mean such as 2%, or a number in the metric's unit such as 0.5"
            raise InputError(Fault(where="margin", rule=rule, got=text))
        is_share = found[2] == "%"
        return cls(text=text, number=float(found[1]) / (100 if is_share else 1), is_share=is_share)

    def at(self, reference_mean: float) -> float:
        """Its size in the metric's unit."""
        return self.number * abs(reference_mean) if self.is_share else self.number

    def __str__(self) -> str:
        if self.is_share:
            return f"{100 * self.number:g} % of the reference's mean"
        return f"{self.number:g} in the metric's unit"


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One arm in one column."""

    difference: PairedDifference
    p_holm: float
    """NaN without a test."""
    verdict: Verdict | None
    """None without a pair."""


def judged(
    arms: Mapping[str, Mapping[int, float]], reference: Mapping[int, float], *, metric: str, margin: Margin
) -> dict[str, Judged]:
    """Compare every arm with the reference, corrected over all of them.

    Args:
        arms: value by seed, by arm, in the metric's unit; without the reference.
        reference: value by seed.
        metric: says whether the larger value is the better one.
        margin: what counts as no difference.
    """
    differences = {arm: paired_difference(values, reference) for arm, values in arms.items()}
    corrected = holm({arm: difference.p for arm, difference in differences.items()})
    comparisons = sum(not math.isnan(p) for p in corrected.values())
    found = {}
    for arm, difference in differences.items():
        level = mean(reference[seed] for seed in reference.keys() & arms[arm].keys())
        said = None
        if difference.n:
            said = verdict(
                difference,
                reference_mean=level,
                p_holm=corrected[arm],
                comparisons=max(1, comparisons),
                higher_is_better=metric in HIGHER_IS_BETTER,
                margin=margin.at(level),
            )
        found[arm] = Judged(difference=difference, p_holm=corrected[arm], verdict=said)
    return found
