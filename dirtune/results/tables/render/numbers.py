"""Digits of numbers in tables: one number of decimals per column, chosen by what the column compares.

A column of means shows three digits of its smallest mean and two of its usual spread; a column of changes shows two digits
of the usual change, and one decimal at least below 100. A value that is much smaller than its neighbors is rounded to their
decimals. Powers of ten are for whole columns with a number that has too few or too many digits, and for single means that are
more than a thousand times smaller or larger than the others.
"""

import math
from collections.abc import Iterable

MOST_DECIMALS = 5
DIGITS = 3
"""Significant digits of the smallest mean."""
SPREAD_DIGITS = 2
"""Significant digits of the median spread, and of the median change."""
_FAR = 1000.0
_NOISE = 1e-5
_LARGE = 1e7


def count_decimals(means: Iterable[float], spreads: Iterable[float] = ()) -> int:
    """Return the decimals of a column of means with their spreads; more than `MOST_DECIMALS` means powers of ten.

    A mean that is more than a thousand times smaller than the median would give all others its decimals, and is a power of
    ten instead (`format_mean`).
    """
    means = [mean for mean in means if math.isfinite(mean)]
    every_size = _sort_sizes(means)
    # Larger means are powers of ten, whatever the decimals are, such as that of an arm that has diverged.
    means = [mean for mean in means if abs(mean) < _LARGE] or means
    sizes = _sort_sizes(means)
    # An exact zero has no leading digit that decimals could show.
    median = sizes[len(sizes) // 2] if sizes else 1.0
    smallest = next((size for size in sizes if size >= median / _FAR), median)
    needed = [DIGITS - 1 - math.floor(math.log10(smallest))]
    # Below that a spread is the rounding error of equal values.
    if by_size := [size for size in _sort_sizes(spreads) if size >= median * _NOISE]:
        needed.append(SPREAD_DIGITS - 1 - math.floor(math.log10(by_size[len(by_size) // 2])))
    decimals = min(MOST_DECIMALS, max(0, *needed))
    # Different means without a spread to compare them by must not be equal texts.
    difference = max(means, default=0.0) - min(means, default=0.0)
    if difference >= median * _NOISE and len({f"{mean:.{decimals}f}" for mean in means}) == 1:
        decimals = min(MOST_DECIMALS, SPREAD_DIGITS - 1 - math.floor(math.log10(difference)))
    # A column has one form.
    usual = [size for size in every_size if median / _FAR <= size <= median * _FAR]
    return MOST_DECIMALS + 1 if any(_needs_power(size, decimals) for size in usual) else decimals


def count_change_decimals(changes: Iterable[tuple[float, float, float]]) -> int:
    """Return the decimals of a column of differences with their intervals; more than `MOST_DECIMALS` means powers of ten.

    Args:
        changes: mean, low and high of each row; the latter are NaN without an interval.
    """
    sizes = _sort_sizes(max((abs(end) for end in change if math.isfinite(end)), default=0.0) for change in changes)
    if not sizes:
        return 1
    median = sizes[len(sizes) // 2]
    return max(SPREAD_DIGITS - 1 - math.floor(math.log10(median)), 1 if median < 100 else 0)


def format_mean(value: float, decimals: int, *, extra: int = 0) -> str:
    """Return a mean with fixed decimals, or with a power of ten if it has too few or too many digits for them.

    Args:
        value: the mean.
        decimals: of the column.
        extra: further digits, for comparisons with written numbers.
    """
    if _needs_power(value, decimals):
        return _format_power(value, extra=extra)
    return f"{value:.{min(decimals, MOST_DECIMALS) + extra}f}"


def format_spread(value: float, mean: float, decimals: int, *, extra: int = 0) -> str:
    """Return the spread of a mean, in its notation."""
    is_power = _needs_power(mean, decimals) or abs(value) >= _LARGE
    return (
        _format_power(value, extra=extra) if is_power and value else f"{value:.{min(decimals, MOST_DECIMALS) + extra}f}"
    )


def format_change(mean: float, low: float = math.nan, high: float = math.nan, *, decimals: int, extra: int = 0) -> str:
    """Return a difference with its interval, all in one notation; one pair has a difference and no interval."""
    ends = [mean] if math.isnan(low) else [mean, low, high]
    is_power = decimals > MOST_DECIMALS or any(math.isfinite(end) and abs(end) >= _LARGE for end in ends)
    first, *interval = (
        _format_power(end, "+", extra=extra)
        if is_power and end and math.isfinite(end)
        else f"{end:+.{min(decimals, MOST_DECIMALS) + extra}f}"
        for end in ends
    )
    return f"{first} [{', '.join(interval)}]" if interval else first


def _sort_sizes(values: Iterable[float]) -> list[float]:
    return sorted(abs(value) for value in values if math.isfinite(value) and value != 0)


def _needs_power(mean: float, decimals: int) -> bool:
    if decimals > MOST_DECIMALS:
        return mean != 0 and math.isfinite(mean)
    is_visible = 10.0 ** (DIGITS - 1 - decimals) <= abs(mean) < _LARGE
    # Without decimals a mean of 57 has two digits, which its spread does not need more of
    return mean != 0 and math.isfinite(mean) and not is_visible and not 1 <= abs(mean) < _LARGE


def _format_power(value: float, sign: str = "", *, extra: int) -> str:
    return f"{value:{sign}.{DIGITS - 1 + extra}e}"
