"""Run with `pytest tests/results/tables/render/test_numbers.py`."""

from __future__ import annotations

import math

import pytest

from dirtune.results.tables.check import _is_supported
from dirtune.results.tables.render.numbers import count_decimals, format_change, format_number


@pytest.mark.parametrize(
    ("values", "decimals"),
    [
        ([7.5, 12.0], 2),
        ([1234.5], 2),
        ([0.82, 7.5], 3),
        ([0.05, 0.06], 4),
        ([0.00123, 0.0013], 5),
        ([8e-6, 1.3e-4], 5),
        ([0.0, 5.0], 2),
        ([-0.5], 3),
        ([math.nan, math.inf, 5.0], 2),
        ([], 2),
        # One arm of another size does not decide for the others.
        ([5.1, 5.2, 5.3, 0.0001], 2),
        ([5.1, 5.2, 4e33], 2),
    ],
)
def test_decimals_show_three_digits_of_the_smallest_mean_of_usual_size(values: list[float], decimals: int) -> None:
    assert count_decimals(values) == decimals


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (7.5, 2, "7.50"),
        (0.82, 3, "0.820"),
        (1234567.0, 2, "1234567.00"),
        (4e33, 2, "4.00e+33"),
        (8.04e-6, 5, "8.04e-06"),
        (0.0001, 2, "1.00e-04"),
        (0.0, 5, "0.00000"),
        (-3.21e-7, 2, "-3.21e-07"),
        (math.inf, 2, "inf"),
    ],
)
def test_means_of_every_size_have_three_digits_and_few_characters(value: float, decimals: int, text: str) -> None:
    assert format_number(value, decimals, digits=3) == text


@pytest.mark.parametrize(("value", "text"), [(0.3, "0.30"), (0.006, "0.01"), (0.004, "4.00e-03"), (0.0, "0.00")])
def test_a_spread_is_zero_only_if_it_is(value: float, text: str) -> None:
    assert format_number(value, 2) == text


@pytest.mark.parametrize(
    ("change", "decimals", "text"),
    [
        ((-1.25, -2.0, -0.5), 2, "-1.25 [-2.00, -0.50]"),
        ((0.002, -0.0011, 0.0051), 2, "+0.0020 [-0.0011, +0.0051]"),
        ((3.2e-7, -1.1e-7, 7.5e-7), 2, "+3.20e-07 [-1.10e-07, +7.50e-07]"),
        ((2e35, 1e35, 3e35), 1, "+2.00e+35 [+1.00e+35, +3.00e+35]"),
        ((0.0, 0.0, 0.0), 2, "+0.00 [+0.00, +0.00]"),
        ((0.5, math.nan, math.nan), 2, "+0.50"),
    ],
)
def test_changes_show_digits_of_what_is_compared(change: tuple[float, float, float], decimals: int, text: str) -> None:
    assert format_change(*change, decimals=decimals) == text


@pytest.mark.parametrize("mean", [8.04e-6, 1.3e-4, 4.2e33, 0.0512, 7.449, -2.5e-9])
def test_a_written_number_supports_itself_and_no_other_one(mean: float) -> None:
    decimals = count_decimals([mean])
    written = f"{format_number(mean, decimals, digits=3)} ± {format_number(mean / 7, decimals)}"
    other = f"{format_number(mean * 1.02, decimals, digits=3)} ± {format_number(mean / 7, decimals)}"
    assert _is_supported(written, written)
    assert not _is_supported(other, written)
    # As an author may shorten it
    assert _is_supported(f"{mean:.1e}", written)
