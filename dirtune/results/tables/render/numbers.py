"""Digits of numbers in tables: as many decimals in all cells as the means need, and powers of ten for those of other sizes."""

import math
from collections.abc import Iterable

LEAST_DECIMALS, MOST_DECIMALS = 2, 5
DIGITS = 3
"""Significant digits of the smallest mean."""
_FAR = 1000.0
_LARGE = 1e7


def count_decimals(values: Iterable[float]) -> int:
    """Return the decimals that show three digits of the smallest value, as papers print.

    A value that is more than a thousand times smaller than the median would give all others its decimals, and is a power of
    ten instead (`format_number`).
    """
    sizes = sorted(abs(value) for value in values if math.isfinite(value) and value != 0)
    # An exact zero has no leading digit that decimals could show.
    median = sizes[len(sizes) // 2] if sizes else 1.0
    smallest = next((size for size in sizes if size >= median / _FAR), median)
    return min(MOST_DECIMALS, max(LEAST_DECIMALS, DIGITS - 1 - math.floor(math.log10(smallest))))


def count_interval_decimals(values: Iterable[float], least: int) -> int:
    """Return the decimals that show two digits of the largest of a difference and the ends of its interval."""
    sizes = [abs(value) for value in values if math.isfinite(value) and value != 0]
    needed = 1 - math.floor(math.log10(max(sizes))) if sizes else least
    return min(MOST_DECIMALS, max(least, needed))


def format_change(mean: float, low: float = math.nan, high: float = math.nan, *, decimals: int) -> str:
    """Return a difference with its interval, with more decimals than the table's where these would show zeros.

    One pair has a difference and no interval.
    """
    own = count_interval_decimals([mean, low, high], decimals)
    text = format_number(mean, own, sign="+")
    return (
        text
        if math.isnan(low)
        else f"{text} [{format_number(low, own, sign='+')}, {format_number(high, own, sign='+')}]"
    )


def format_number(value: float, decimals: int, *, sign: str = "", digits: int = 1) -> str:
    """Return a number with fixed decimals, or with a power of ten if it has too few or too many digits for them.

    Args:
        value: the number.
        decimals: of all numbers of the table.
        sign: "+" writes the sign of a positive number.
        digits: significant digits that the decimals must show.
    """
    # One digit is visible as soon as it does not round to zero.
    visible = (0.5 if digits == 1 else 1.0) * 10.0 ** (digits - 1 - decimals)
    if value == 0 or not math.isfinite(value) or visible <= abs(value) < _LARGE:
        return f"{value:{sign}.{decimals}f}"
    return f"{value:{sign}.{DIGITS - 1}e}"
