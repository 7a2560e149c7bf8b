"""Floors in a figure: the constant that is usually the best one, and the learned predictor, as thin lines."""

import math

from dirtune.results.tables.floors import FloorRow, format_floor
from dirtune.results.tables.table import ArmTable

DRAWN = ("median", "boosting")
"""Names of the floors that figures draw; six lines would hide the arms."""
FLOOR_STYLES = ("dashed", "dotted")


def select_floors(table: ArmTable) -> tuple[FloorRow, ...]:
    """Return the floors that a figure draws; none if the arms have different shot rules, and so different floors."""
    found = tuple(row for name in DRAWN for row in table.floors if row.name == name)
    return found if len(found) == len({row.name for row in found}) else ()


def format_floors(table: ArmTable, beyond: str = "not drawn beyond the axis") -> str:
    """Return the sentence of a caption on the lines of the floors, with a leading space; empty without floors.

    Args:
        table: with the floors.
        beyond: how a floor outside of the axis is shown.
    """
    shown = [row for row in select_floors(table) if not all(map(math.isnan, row.values.values()))]
    if not shown:
        return ""
    lines = ", ".join(
        f"{style}: {format_floor(row.name)}" for row, style in zip(select_floors(table), FLOOR_STYLES, strict=False)
    )
    return f" Lines: predictions without a training run ({lines}; {beyond})."
