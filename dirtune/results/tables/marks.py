"""Marks of a table: the number after ±, and bold. Named rules, each printed with its description.

`better` is the default for bold because it is the one claim that a study makes in advance: its reference arm and the column
are named before anything is run. `best`, the usual mark in papers, picks the arm to compare with by the numbers that are
then tested, and with few seeds marks nearly everything.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dirtune.metrics import HIGHER_IS_BETTER, UNDIRECTED_METRICS
from dirtune.results.statistics.paired import apply_holm, compare_by_seed, compute_standard_error
from dirtune.results.tables.table import Cell

SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A number for the uncertainty of a cell."""

    label: str
    """In a heading, after ±."""
    description: str
    compute: Callable[[Cell], float]
    """NaN where there is none."""


@dataclass(frozen=True, kw_only=True)
class Bold:
    """A rule for bold: takes the cells of a column by arm, and their metric; returns the arms that are bold."""

    description: str
    choose: Callable[[Mapping[str, Cell], str], frozenset[str]]


def get_sd(cell: Cell) -> float:
    """Return the sample standard deviation over seeds."""
    return cell.sd


def compute_error(cell: Cell) -> float:
    """Return the standard error of the mean over seeds."""
    return compute_standard_error(list(cell.units.values()))


def compute_half_interval(cell: Cell) -> float:
    """Return half the width of the 95 % Student t interval of the mean over seeds."""
    # The interval of a mean is that of its difference to zero.
    found = compare_by_seed(cell.units, dict.fromkeys(cell.units, 0.0))
    return (found.high - found.low) / 2


def choose_better(cells: Mapping[str, Cell], metric: str) -> frozenset[str]:
    """Return the arms whose word is helps without a caveat; only the claim's column has words."""
    return frozenset(
        arm
        for arm, cell in cells.items()
        if cell.verdict is not None and cell.verdict.decision == "helps" and not cell.verdict.caveats
    )


def choose_best(cells: Mapping[str, Cell], metric: str) -> frozenset[str]:
    """Return the arm with the best mean, and those that are not significantly different; none of a single seed.

    None either of a metric that is better neither high nor low.
    """
    if metric in UNDIRECTED_METRICS:
        return frozenset()
    sign = -1.0 if metric in HIGHER_IS_BETTER else 1.0
    # A single seed cannot be tested against another arm, so it can neither be the best nor equal to it.
    means = {arm: sign * cell.mean for arm, cell in cells.items() if cell.n > 1}
    if not means:
        return frozenset()
    top = min(means, key=lambda arm: means[arm])
    tests = {arm: compare_by_seed(cells[arm].units, cells[top].units).p for arm in means if arm != top}
    alike = {arm for arm, p in apply_holm(tests).items() if p >= SIGNIFICANT}
    # Equal means whose differences have no spread have no test either.
    ties = {arm for arm, level in means.items() if level == means[top] and math.isnan(tests.get(arm, 1))}
    return frozenset({top} | alike | ties)


def choose_none(cells: Mapping[str, Cell], metric: str) -> frozenset[str]:
    """Return no arm."""
    return frozenset()


SPREADS = {
    "sd": Spread(label="sd", description="the standard deviation over seeds", compute=get_sd),
    "se": Spread(
        label="se", description="the standard error of the mean over seeds, sd / sqrt(n)", compute=compute_error
    ),
    "ci95": Spread(
        label="95 % interval",
        description="half the width of the mean's 95 % Student t interval over seeds",
        compute=compute_half_interval,
    ),
}

BOLD = {
    "better": Bold(description="better than the reference (its word is helps, without a but)", choose=choose_better),
    "best": Bold(
        description="the best mean of the rows shown, and every arm that is not significantly different from it by the "
        f"paired t test by seed, Holm-corrected over them, at {SIGNIFICANT}",
        choose=choose_best,
    ),
    "none": Bold(description="not used", choose=choose_none),
}
