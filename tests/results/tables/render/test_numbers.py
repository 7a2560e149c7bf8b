"""Run with `pytest tests/results/tables/render/test_numbers.py`."""

from __future__ import annotations

import math

import pytest

from dirtune.results.tables.check import _is_supported
from dirtune.results.tables.render.numbers import (
    MOST_DECIMALS,
    count_change_decimals,
    count_decimals,
    format_change,
    format_mean,
    format_spread,
)


@pytest.mark.parametrize(
    ("means", "spreads", "decimals"),
    [
        ([7.5, 12.0], [], 2),
        ([12.0, 57.4], [], 1),
        ([1234.5], [], 0),
        ([0.82, 7.5], [], 3),
        ([0.05, 0.06], [], 4),
        ([0.00123, 0.0013], [], 5),
        ([8e-6, 1.3e-4], [], 6),
        ([0.0, 5.0], [], 2),
        ([-0.5], [], 3),
        ([math.nan, math.inf, 5.0], [math.nan], 2),
        ([], [], 2),
        # One arm of another size does not decide for the others.
        ([5.1, 5.2, 5.3, 0.0001], [], 2),
        ([5.1, 5.2, 4e33], [], 2),
        ([5.1, 4e33], [0.2, 1e33], 2),
        # Means are not equal texts because they have no spread.
        ([5.1234, 5.1231], [0.0, 0.0], 5),
        ([0.99991, 0.99992], [1e-6, 1e-6], 5),
        ([123456.7, 123456.2], [], 0),
        ([5.0, 5.0 + 1e-9], [], 2),
        # Two digits of the usual spread.
        ([57.4, 60.1], [0.31, 0.28], 2),
        ([2.01, 2.02, 2.03], [0.00388, 0.0041, 0.21], 4),
        # Rounding errors of equal values are no spread.
        ([5.0, 5.0], [4e-16, 0.0], 2),
    ],
)
def test_decimals_show_three_digits_of_the_means_and_two_of_the_spread(
    means: list[float], spreads: list[float], decimals: int
) -> None:
    assert count_decimals(means, spreads) == decimals


@pytest.mark.parametrize(
    ("means", "texts"),
    [
        ([8332512.0, 1.1e7], ["8.33e+06", "1.10e+07"]),
        ([0.0012, 0.0008, 0.0], ["1.20e-03", "8.00e-04", "0.00000"]),
        ([8332512.0, 9332512.0], ["8332512", "9332512"]),
        ([8332512.0, 8332513.0, 4e33], ["8332512", "8332513", "4.00e+33"]),
        ([5.1, 5.2, 1e-4], ["5.10", "5.20", "1.00e-04"]),
    ],
)
def test_a_column_has_one_form_but_for_means_of_another_order(means: list[float], texts: list[str]) -> None:
    decimals = count_decimals(means)
    assert [format_mean(mean, decimals) for mean in means] == texts
    is_power = decimals > MOST_DECIMALS
    assert all(("e" in format_spread(abs(mean) / 100, mean, decimals)) == is_power for mean in means[:2])


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (7.5, 2, "7.50"),
        (0.82, 3, "0.820"),
        (57.43, 1, "57.4"),
        (1234567.0, 0, "1234567"),
        (4e33, 2, "4.00e+33"),
        (8.04e-6, 5, "8.04e-06"),
        (0.0001, 2, "1.00e-04"),
        (0.0, 5, "0.00000"),
        (-3.21e-7, 2, "-3.21e-07"),
        (math.inf, 2, "inf"),
    ],
)
def test_means_of_every_size_have_three_digits_and_few_characters(value: float, decimals: int, text: str) -> None:
    assert format_mean(value, decimals) == text


@pytest.mark.parametrize(
    ("spread", "mean", "text"),
    [(0.3, 5.0, "0.30"), (0.006, 5.0, "0.01"), (0.004, 5.0, "0.00"), (0.0, 5.0, "0.00"), (2e-6, 8e-5, "2.00e-06")],
)
def test_a_spread_has_the_notation_of_its_mean(spread: float, mean: float, text: str) -> None:
    assert format_spread(spread, mean, 2) == text


@pytest.mark.parametrize(
    ("changes", "decimals"),
    [
        ([(-8.2, -12.0, -4.4), (0.27, -0.31, 0.86), (31.8, 28.3, 35.2)], 1),
        ([(0.27, -0.31, 0.86)], 2),
        ([(2.2, 0.1, 4.4)], 1),
        ([(120.0, 90.0, 150.0)], 0),
        ([(0.5, math.nan, math.nan)], 2),
        ([(0.0, 0.0, 0.0)], 1),
        ([(3.2e-7, -1.1e-7, 7.5e-7)], 8),
        ([], 1),
    ],
)
def test_a_column_of_changes_shows_two_digits_of_the_usual_one(
    changes: list[tuple[float, float, float]], decimals: int
) -> None:
    assert count_change_decimals(changes) == decimals


@pytest.mark.parametrize(
    ("change", "decimals", "text"),
    [
        ((-1.25, -2.0, -0.5), 2, "-1.25 [-2.00, -0.50]"),
        # Rounded as its neighbors are, and no power of ten among decimals.
        ((-0.0479, -0.0511, 0.002), 1, "-0.0 [-0.1, +0.0]"),
        ((3.2e-7, -1.1e-7, 7.5e-7), 8, "+3.20e-07 [-1.10e-07, +7.50e-07]"),
        ((2e35, 1e35, 3e35), 1, "+2.00e+35 [+1.00e+35, +3.00e+35]"),
        ((0.0, 0.0, 0.0), 2, "+0.00 [+0.00, +0.00]"),
        ((0.5, math.nan, math.nan), 2, "+0.50"),
    ],
)
def test_a_change_and_its_interval_have_one_notation(
    change: tuple[float, float, float], decimals: int, text: str
) -> None:
    assert format_change(*change, decimals=decimals) == text


@pytest.mark.parametrize("mean", [8.04e-6, 1.3e-4, 4.2e33, 0.0512, 7.449, 57.0, -2.5e-9])
def test_a_written_number_supports_itself_and_no_other_one(mean: float) -> None:
    decimals = count_decimals([mean], [mean / 7])
    written = f"{format_mean(mean, decimals)} ± {format_spread(mean / 7, mean, decimals)}"
    other = f"{format_mean(mean * 1.02, decimals)} ± {format_spread(mean / 7, mean, decimals)}"
    assert _is_supported(written, written)
    assert not _is_supported(other, written)
    # As an author may shorten it
    assert _is_supported(f"{mean:.1e}", written)
