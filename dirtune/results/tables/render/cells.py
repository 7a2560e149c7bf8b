"""Text of one cell: a mean with its spread, a change with its interval, a word, a published number; and of headings.

The number of decimals follows from what a column compares, and is the same in all its cells (`numbers`).
"""

import math

from dirtune.results.statistics.margin import NO_SHARES
from dirtune.results.tables.comparison import ABSENT
from dirtune.results.tables.marks import Spread
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.render import numbers
from dirtune.results.tables.table import ArmRow, ArmTable, Cell

CORRELATION_DECIMALS = 2
"""Least decimals of a difference of correlations, which are at most one."""
METRIC_LABELS = {
    "mae": ("MAE", "{}"),
    "balanced_mae": ("balanced MAE", "{}"),
    "rmse": ("RMSE", "{}"),
    "mse": ("MSE", "{}²"),
    "gmean": ("GM", "{}"),
    "r2": ("R²", ""),
    "pearson": ("Pearson r", ""),
    "spearman": ("Spearman rho", ""),
    # In degrees whatever the label's unit.
    "angular_error": ("angular error [degrees]", ""),
}
"""Names as papers print them, and the unit as a template of the label's."""


def format_metric(metric: str, unit: str) -> str:
    """Return a metric with its unit, for headings and axes."""
    name, template = METRIC_LABELS.get(metric, (metric, ""))
    return f"{name} [{template.format(unit)}]" if unit and template else name


def count_decimals(table: ArmTable, region: str, spread: Spread) -> int:
    """Return the decimals of a column of means, or of floors while there are no means."""
    cells = [row.cells[region] for row in table.rows if row.cells[region].n]
    means = [cell.mean for cell in cells] or [floor.values.get(region, math.nan) for floor in table.floors]
    return numbers.count_decimals(means, (spread.compute(cell) for cell in cells if cell.n > 1))


def format_mean(cell: Cell, spread: Spread, usual: int, decimals: int, *, extra: int = 0) -> str:
    """Return mean ± spread, and the number of seeds where it is not the usual one."""
    if not cell.n:
        return ABSENT
    size = spread.compute(cell)
    text = numbers.format_mean(cell.mean, decimals, extra=extra)
    text += "" if math.isnan(size) else f" ± {numbers.format_spread(size, cell.mean, decimals, extra=extra)}"
    # Means over different seeds are not comparable, so the exception is marked at the cell.
    return text + ("" if cell.n == usual else f" (n={cell.n})")


def format_change(row: ArmRow | None, region: str, part: ArmTable, *, extra: int = 0) -> str:
    """Return the difference to the reference with its interval, in percent of the reference unless that means nothing."""
    change = None if row is None else _get_change(row.cells[region], part)
    if row is None or change is None:
        return ABSENT
    others = (_get_change(each.cells[region], part) for each in part.rows)
    decimals = numbers.count_change_decimals(each for each in others if each is not None)
    if not is_relative(part):
        decimals = max(decimals, CORRELATION_DECIMALS)
    return f"{numbers.format_change(*change, decimals=decimals, extra=extra)}{' early' if row.cells[region].is_early else ''}"


def _get_change(cell: Cell, part: ArmTable) -> tuple[float, float, float] | None:
    """Return the difference to the reference with the ends of its interval, in the unit that is shown."""
    found = cell.difference
    if found is None or not found.n or (is_relative(part) and not cell.reference_mean):
        return None
    if not is_relative(part):
        return found.mean, found.low, found.high
    mean, low, high = (100 * (each / abs(cell.reference_mean)) for each in (found.mean, found.low, found.high))
    return mean, low, high


def is_relative(part: ArmTable) -> bool:
    """Return True if changes are shown in percent of the reference; a share of a correlation means nothing."""
    return part.metric not in NO_SHARES


def format_word(row: ArmRow | None, region: str) -> str:
    """Return the word of a cell, with what limits an open one."""
    found = None if row is None else row.cells[region].verdict
    return ABSENT if found is None else str(found)


def format_floor(value: float, decimals: int, *, extra: int = 0) -> str:
    """Return the value of a floor, which has no spread."""
    return ABSENT if math.isnan(value) else numbers.format_mean(value, decimals, extra=extra)


def format_published(row: PublishedRow | None, region: str, decimals: int) -> str:
    """Return a published number with the digits of its source, or more where the table has more."""
    value = None if row is None else row.values.get(region)
    if value is None:
        return ABSENT
    # A number does not keep the final zeros of its source.
    text = str(value)
    if decimals > numbers.MOST_DECIMALS:
        return numbers.format_mean(value, decimals)
    return text if "e" in text else f"{value:.{max(decimals, len(text.partition('.')[2]))}f}"
