from __future__ import annotations

import math

import pytest

from dirtune.results.statistics.verdict import Decision, Verdict
from dirtune.results.tables.celltext import difference_text, mean_text, metric_label, published_text, verdict_text
from dirtune.results.tables.marks import SPREADS
from dirtune.results.tables.published import PublishedRow
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
def test_metrics_are_labelled_with_their_unit(metric: str, unit: str, label: str) -> None:
    assert metric_label(metric, unit) == label


def test_a_mean_without_spread_stands_alone_and_none_is_a_dash() -> None:
    one, no = (Cell(values={0: 4.0}, mean=4.0, sd=math.nan, n=1), Cell(values={}, mean=math.nan, sd=math.nan, n=0))

    assert mean_text(one, SPREADS["sd"], 1, 2) == "4.00"
    assert mean_text(one, SPREADS["se"], 3, 2) == "4.00 (n=1)"
    assert mean_text(no, SPREADS["sd"], 0, 2) == "-"
    assert difference_text(None, "all", 2) == "-"


def test_published_numbers_keep_their_digits_and_regain_their_zeros() -> None:
    values = {"all": 6.9, "many": 7.044, "few": 0.82}
    row = PublishedRow(arm="a", method="m", origin="o", dataset="agedb", metric="mae", values=values)

    assert [published_text(row, region, 2) for region in values] == ["6.90", "7.044", "0.82"]
    assert published_text(row, "few", 3) == "0.820"
    assert published_text(row, "medium", 3) == published_text(None, "all", 2) == "-"


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
def test_an_undecided_cell_says_how_many_seeds_it_needs(decision: Decision, seeds: int | None, text: str) -> None:
    verdict = Verdict(decision=decision, margin=0.1, is_negligible=False, p_equivalence=1.0, further_seeds=seeds)
    cell = Cell(values={0: 4.0}, mean=4.0, sd=math.nan, n=1, verdict=verdict)
    row = ArmRow(arm="a", levels={}, cells={"few": cell}, chosen={}, tried={}, planned=None, unfinished={}, holes=())

    assert verdict_text(row, "few") == text
    assert verdict_text(None, "few") == "-"
