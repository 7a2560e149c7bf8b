"""Texts in CSV files that spreadsheets would run as formulas, and their harmless form: an apostrophe before them."""

from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


def defuse(value: Any) -> Any:
    """Return a text that a spreadsheet would run as a formula with an apostrophe before it; other values as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA_STARTS) else value


def restore(cell: str) -> str:
    """Return the text that `defuse` was called with."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA_STARTS) else cell
