from __future__ import annotations

import math

import pytest

from dirtune.results.statistics.verdict import Decision, Verdict
from dirtune.results.tables.marks import SPREADS
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.render.cells import (
    format_difference,
    format_mean,
    format_metric,
    format_published,
    format_verdict,
)
from dirtune.results.tables.table import ArmRow, Cell


@pytest.mark.parametrize(
    ("metric", "unit", "label"),
    [
        ("mae", "years", "MAE [years]"),
        ("mse", "years", "MSE [years²]"),
        ("pearson", "years", "Pearson r"),
        ("mae", "", "MAE"),
        ("delta1", "m", "delta1"),
    ],
)
def test_metrics_are_labeled_with_their_unit(metric: str, unit: str, label: str) -> None:
    assert format_metric(metric, unit) == label


def test_a_mean_without_spread_has_no_plus_minus_and_no_mean_is_a_dash() -> None:
    one, no = (Cell(values={0: 4.0}, mean=4.0, sd=math.nan, n=1), Cell(values={}, mean=math.nan, sd=math.nan, n=0))

    assert format_mean(one, SPREADS["sd"], 1, 2) == "4.00"
    assert format_mean(one, SPREADS["se"], 3, 2) == "4.00 (n=1)"
    assert format_mean(no, SPREADS["sd"], 0, 2) == "-"
    assert format_difference(None, "all", 2) == "-"


def test_published_numbers_keep_their_digits_and_regain_their_zeros() -> None:
    values = {"all": 6.9, "many": 7.044, "few": 0.82}
    row = PublishedRow(arm="a", method="m", origin="o", dataset="agedb", metric="mae", values=values)

    assert [format_published(row, region, 2) for region in values] == ["6.90", "7.044", "0.82"]
    assert format_published(row, "few", 3) == "0.820"
    assert format_published(row, "medium", 3) == format_published(None, "all", 2) == "-"


@pytest.mark.parametrize(
    ("decision", "seeds", "text"),
    [
        ("helps", 0, "helps"),
        ("equivalent", 0, "equivalent"),
        ("undecided", 12, "undecided (+12)"),
        ("undecided", 0, "undecided (+0)"),
        ("undecided", None, "undecided"),
    ],
)
def test_an_undecided_cell_has_the_number_of_further_seeds(decision: Decision, seeds: int | None, text: str) -> None:
    verdict = Verdict(decision=decision, margin=0.1, is_negligible=False, p_equivalence=1.0, further_seeds=seeds)
    cell = Cell(values={0: 4.0}, mean=4.0, sd=math.nan, n=1, verdict=verdict)
    row = ArmRow(arm="a", levels={}, cells={"few": cell}, chosen={}, tried={}, planned=None, unfinished={}, missing=())

    assert format_verdict(row, "few") == text
    assert format_verdict(None, "few") == "-"
