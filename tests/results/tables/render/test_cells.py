from __future__ import annotations

import math

import pytest
from scipy import stats

from dirtune.results.analysis.claims import Claim
from dirtune.results.statistics.joint import Limit, compare_jointly
from dirtune.results.statistics.verdict import Decision, Verdict
from dirtune.results.tables.marks import SPREADS
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.render.cells import (
    format_change,
    format_mean,
    format_metric,
    format_published,
    format_word,
)
from dirtune.results.tables.table import ArmRow, ArmTable, Cell


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


def test_published_numbers_keep_their_digits_and_regain_their_zeros() -> None:
    values = {"all": 6.9, "many": 7.044, "few": 0.82}
    row = PublishedRow(arm="a", method="m", origin="o", dataset="agedb", metric="mae", values=values)

    assert [format_published(row, region, 2) for region in values] == ["6.90", "7.044", "0.82"]
    assert format_published(row, "few", 3) == "0.820"
    assert format_published(row, "medium", 3) == format_published(None, "all", 2) == "-"


VALUES = {0: 4.0, 1: 4.4, 2: 4.1}


def make_row(*, early: bool = False, verdict: Verdict | None = None, reference_mean: float = 5.0) -> ArmRow:
    difference = compare_jointly(VALUES, dict.fromkeys(VALUES, 5.0))
    cell = Cell(
        values=VALUES,
        mean=4.2,
        sd=0.2,
        n=3,
        difference=difference,
        reference_mean=reference_mean,
        verdict=verdict,
        is_early=early,
    )
    return ArmRow(arm="a", levels={}, cells={"few": cell}, chosen={}, tried={}, planned=None, unfinished={}, missing=())


def make_part(metric: str, row: ArmRow) -> ArmTable:
    claim = Claim(metric=metric, region="few", margin=None)
    names = ("study", "question", "unit", "split", "selection", "description", "objective", "data")
    texts = dict.fromkeys(names, "")
    return ArmTable(
        **texts,
        metric=metric,
        regions=("few",),
        reference="b",
        claim=claim,
        samples={},
        seeds=(),
        rows=(row,),
        arms=("a", "b"),
        fingerprints=(),
        orphans=0,
    )


def test_a_change_is_in_percent_of_the_reference_and_that_of_a_correlation_is_not() -> None:
    row = make_row()
    ends = stats.ttest_1samp([value - 5.0 for value in VALUES.values()], 0.0).confidence_interval(0.95)

    assert format_change(row, "few", make_part("mae", row)) == f"-16.7 [{20 * ends.low:+.1f}, {20 * ends.high:+.1f}]"
    assert format_change(row, "few", make_part("r2", row)) == f"-0.83 [{ends.low:+.2f}, {ends.high:+.2f}]"
    assert format_change(None, "few", make_part("mae", row)) == "-"


def test_a_change_of_an_arm_that_stopped_early_is_marked() -> None:
    row = make_row(early=True)

    assert format_change(row, "few", make_part("mae", row)).endswith("] early")


def test_nothing_is_a_share_of_a_reference_of_zero() -> None:
    row = make_row(reference_mean=0.0)

    assert format_change(row, "few", make_part("mae", row)) == "-"


@pytest.mark.parametrize(
    ("decision", "negligible", "limit", "text"),
    [
        ("helps", False, "seeds", "helps"),
        ("hurts", True, "seeds", "hurts, within the margin"),
        ("same", True, "seeds", "same"),
        ("open", False, "seeds", "open (seeds)"),
        ("open", False, "test samples", "open (test samples)"),
        ("open", False, None, "open"),
    ],
)
def test_a_word_names_what_limits_it_and_a_harm_below_the_margin(
    decision: Decision, negligible: bool, limit: Limit | None, text: str
) -> None:
    verdict = Verdict(decision=decision, margin=0.1, is_negligible=negligible, p_equivalence=1.0, limit=limit)

    assert format_word(make_row(verdict=verdict), "few") == text
    assert format_word(make_row(), "few") == format_word(None, "few") == "-"
