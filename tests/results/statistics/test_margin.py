from __future__ import annotations

import pytest

from dirtune.errors import InputError
from dirtune.results.statistics.margin import Margin


@pytest.mark.parametrize(
    ("text", "number", "is_share", "description"),
    [
        ("2%", 0.02, True, "2 % of the reference's mean"),
        (" 1.5 %", 0.015, True, "1.5 % of the reference's mean"),
        ("0.5", 0.5, False, "0.5 in the metric's unit"),
        (".5", 0.5, False, "0.5 in the metric's unit"),
        (str(0.00005), 0.00005, False, "5e-05 in the metric's unit"),
    ],
)
def test_margins_are_read(text: str, number: float, is_share: bool, description: str) -> None:
    margin = Margin.parse(text)

    assert (margin.number, margin.is_share, str(margin)) == (pytest.approx(number), is_share, description)


@pytest.mark.parametrize("text", ["", "two", "-2%", "-0.5", "2%%", "nan", "1e999x", "1e999", "inf", "0", "0%"])
def test_what_is_no_margin_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="margin: must be a share of the reference's mean"):
        Margin.parse(text)


@pytest.mark.parametrize("metric", ["r2", "pearson", "spearman"])
def test_a_share_of_a_correlation_is_refused(metric: str) -> None:
    with pytest.raises(InputError, match=f"a share of {metric} says nothing where it is near zero"):
        Margin.parse("2%", metric=metric)
    assert Margin.parse("0.02", metric=metric).compute_size(0.9) == 0.02


def test_a_share_is_of_the_size_of_the_mean() -> None:
    assert Margin.parse("2%").compute_size(-50.0) == pytest.approx(1.0)
