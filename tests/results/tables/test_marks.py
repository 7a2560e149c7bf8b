from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.joint import compare_jointly
from dirtune.results.statistics.paired import compute_sd, mean
from dirtune.results.statistics.verdict import Decision, Verdict
from dirtune.results.tables.marks import BOLD, SPREADS, choose_best, choose_better, choose_none
from dirtune.results.tables.table import Cell

REFERENCE = {0: 5.0, 1: 5.3, 2: 4.9, 3: 5.2}
ARMS = {
    "reference": REFERENCE,
    "much": {0: 4.0, 1: 4.35, 2: 3.9, 3: 4.25},
    "like_much": {0: 4.2, 1: 4.2, 2: 4.1, 3: 4.1},
    "worse": {0: 6.0, 1: 6.35, 2: 5.9, 3: 6.25},
}


def make_cell(values: Mapping[int, float]) -> Cell:
    difference = None if values is REFERENCE else compare_jointly(values, REFERENCE)
    return Cell(
        values=values,
        mean=mean(values.values()),
        sd=compute_sd(values.values()),
        n=len(values),
        difference=difference,
    )


@pytest.fixture
def column() -> dict[str, Cell]:
    return {arm: make_cell(values) for arm, values in ARMS.items()}


def test_spreads_agree_with_scipy() -> None:
    values = list(REFERENCE.values())
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)

    assert SPREADS["sd"].compute(make_cell(REFERENCE)) == pytest.approx(np.std(values, ddof=1))
    assert SPREADS["se"].compute(make_cell(REFERENCE)) == pytest.approx(stats.sem(values))
    assert SPREADS["ci95"].compute(make_cell(REFERENCE)) == pytest.approx(half)


def test_one_seed_has_no_spread_of_any_kind() -> None:
    assert all(math.isnan(spread.compute(make_cell({0: 1.0}))) for spread in SPREADS.values())


def test_better_is_what_the_word_says() -> None:
    cells = {
        decision: replace(make_cell(REFERENCE), verdict=make_word(decision))
        for decision in ("helps", "hurts", "same", "open")
    }

    assert choose_better({**cells, "none": make_cell(ARMS["much"])}, "mae") == {"helps"}


def make_word(decision: Decision) -> Verdict:
    return Verdict(decision=decision, margin=None, is_negligible=False, p_equivalence=math.nan, limit="seeds")


def test_best_is_the_best_mean_and_what_the_test_cannot_tell_from_it(column: dict[str, Cell]) -> None:
    p = stats.ttest_rel(list(ARMS["like_much"].values()), list(ARMS["much"].values())).pvalue
    assert p > 0.05

    assert choose_best(column, "mae") == {"much", "like_much"}
    assert choose_best(column, "pearson") == {"worse"}
    # A coverage should be 0.9.
    assert choose_best(column, "coverage_90") == frozenset()


def test_best_corrects_over_the_rows_at_hand() -> None:
    # p = 0.035 is significant alone; with another test of the same p it is 0.070 and is not.
    top, near = {0: 1.0, 1: 1.0, 2: 1.0}, {0: 1.2, 1: 1.3, 2: 1.4}
    p = stats.ttest_rel(list(near.values()), list(top.values())).pvalue
    assert 0.025 < p < 0.05

    assert choose_best({"top": make_cell(top), "near": make_cell(near)}, "mae") == {"top"}
    three = {"top": make_cell(top), "near": make_cell(near), "too": make_cell(dict(near))}
    assert choose_best(three, "mae") == {"top", "near", "too"}


def test_best_marks_nothing_that_no_test_supports() -> None:
    single = {"a": make_cell({0: 1.0}), "b": make_cell({0: 2.0})}
    exact = {"a": make_cell({0: 1.0, 1: 2.0}), "b": make_cell({0: 2.0, 1: 3.0}), "c": make_cell({0: 1.0, 1: 2.0})}

    assert choose_best(single, "mae") == frozenset()
    assert choose_best({}, "mae") == frozenset()
    assert choose_best(exact, "mae") == {"a", "c"}


def test_none_marks_nothing(column: dict[str, Cell]) -> None:
    assert choose_none(column, "mae") == frozenset()


def test_every_rule_describes_itself() -> None:
    assert all(rule.description for rule in (*BOLD.values(), *SPREADS.values()))
