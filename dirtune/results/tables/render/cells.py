"""Text of one cell: a mean with its spread, a change with its interval, a word, a published number; and of headings.

The number of decimals of a table follows from its smallest mean, and is the same in all its cells (`numbers`).
"""

import math

from dirtune.results.statistics.margin import NO_SHARES
from dirtune.results.tables.comparison import ABSENT
from dirtune.results.tables.marks import Spread
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.render import numbers
from dirtune.results.tables.table import ArmRow, ArmTable, Cell

PERCENT_DECIMALS = 1
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


def count_decimals(table: ArmTable) -> int:
    """Return the decimals that show three digits of the smallest mean, as papers print."""
    return numbers.count_decimals(cell.mean for row in table.rows for cell in row.cells.values())


def format_mean(cell: Cell, spread: Spread, usual: int, decimals: int) -> str:
    """Return mean ± spread, and the number of seeds where it is not the usual one."""
    if not cell.n:
        return ABSENT
    size = spread.compute(cell)
    text = numbers.format_number(cell.mean, decimals, digits=numbers.DIGITS)
    text += "" if math.isnan(size) else f" ± {numbers.format_number(size, decimals)}"
    # Means over different seeds are not comparable, so the exception is marked at the cell.
    return text + ("" if cell.n == usual else f" (n={cell.n})")


def format_change(row: ArmRow | None, region: str, part: ArmTable) -> str:
    """Return the difference to the reference with its interval, in percent of the reference unless that means nothing."""
    cell = None if row is None else row.cells[region]
    found = None if cell is None else cell.difference
    if cell is None or found is None or not found.n:
        return ABSENT
    scale, decimals = 1.0, count_decimals(part)
    if is_relative(part):
        if not cell.reference_mean:
            return ABSENT
        scale, decimals = 100 / abs(cell.reference_mean), PERCENT_DECIMALS
    change = (scale * each for each in (found.mean, found.low, found.high))
    return f"{numbers.format_change(*change, decimals=decimals)}{' early' if cell.is_early else ''}"


def is_relative(part: ArmTable) -> bool:
    """Return True if changes are shown in percent of the reference; a share of a correlation means nothing."""
    return part.metric not in NO_SHARES


def format_word(row: ArmRow | None, region: str) -> str:
    """Return the word of a cell, with what limits an open one."""
    found = None if row is None else row.cells[region].verdict
    return ABSENT if found is None else str(found)


def format_floor(value: float, decimals: int) -> str:
    """Return the value of a floor, which has no spread."""
    return ABSENT if math.isnan(value) else numbers.format_number(value, decimals, digits=numbers.DIGITS)


def format_published(row: PublishedRow | None, region: str, decimals: int) -> str:
    """Return a published number with the digits of its source, or more where the table has more."""
    value = None if row is None else row.values.get(region)
    if value is None:
        return ABSENT
    # A number does not keep the final zeros of its source.
    text = str(value)
    return text if "e" in text else f"{value:.{max(decimals, len(text.partition('.')[2]))}f}"
