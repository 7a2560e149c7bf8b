"""Seeded, small versions of `benchmarks/coverage.py`.

The bounds are three or more standard errors (1.1 % at 400 repetitions of a 95 % interval) from what the benchmark gives.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.coverage import (
    LUCKS,
    METRICS,
    draw_parts,
    find_any_word,
    judge,
    measure_by_metric,
    measure_false_same,
    measure_false_words,
    measure_found,
    measure_over_samples,
    measure_over_seeds,
    measure_searched,
    measure_sequential,
    measure_sequential_words,
    measure_splits,
    measure_whole_tables,
)
from dirtune.results.analysis.claims import Claim
from dirtune.results.tables.verdicts import ColumnArm, judge_arms

REPETITIONS = 400


@pytest.mark.parametrize("luck", LUCKS)
def test_over_five_seeds_students_t_covers_and_the_bootstraps_do_not(luck: str) -> None:
    found = measure_over_seeds(luck, 5, repetitions=300, resamples=199)

    assert 0.89 < found["Student's t"].share < 0.985
    assert 0.75 < found["percentile"].share < 0.9
    assert 0.75 < found["BCa"].share < 0.9


@pytest.mark.parametrize("suits", [0.0, 0.3])
def test_the_larger_interval_covers_new_seeds_on_new_samples(suits: float) -> None:
    found = measure_over_samples("normal", suits, 5, repetitions=REPETITIONS)

    assert 0.91 < found["larger of both, new samples"].share < 0.995


def test_seeds_alone_do_not_cover_new_samples_where_samples_suit_an_arm() -> None:
    found = measure_over_samples("normal", 0.3, 10, repetitions=REPETITIONS)

    assert found["seeds, these samples"].share > 0.91
    assert found["seeds, new samples"].share < 0.8


def test_the_larger_interval_covers_for_every_metric() -> None:
    found = measure_by_metric("normal", 0.3, 5, repetitions=80, populations=2)

    assert set(found) == set(METRICS)
    assert {metric: coverage.share > 0.87 for metric, coverage in found.items()} == dict.fromkeys(found, True)


def test_the_vectorized_tests_are_those_of_a_table() -> None:
    random = np.random.default_rng(1)
    for seeds, samples, suits in ((3, 20, 0.5), (5, 74, 0.0), (10, 30, 0.3)):
        parts = draw_parts(random, (6, 4, seeds, samples), suits=suits)
        p = np.maximum(*judge(parts).compute_p())
        for study, found in enumerate(find_any_word(p)):
            values = dict.fromkeys(range(seeds), 1.0)
            arms = {
                str(arm): ColumnArm(values=dict(enumerate(1 + own.mean(axis=1).round(15))), parts=own, configurations=1)
                for arm, own in enumerate(parts[study])
            }
            reference = ColumnArm(values=values, parts=None, configurations=1)
            verdicts = judge_arms(arms, reference, claim=Claim(metric="mae", region="all", margin=None))
            assert [verdict.difference.p for verdict in verdicts.values()] == pytest.approx(p[study], rel=1e-6)
            assert any(each.verdict.decision in ("helps", "hurts") for each in verdicts.values()) == found


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_equal_arms_have_a_false_word_about_new_samples_in_one_study_of_twenty(seeds: int) -> None:
    found = measure_false_words(5, seeds, 74, studies=600)

    assert found["joint"].value <= 0.07
    # What the seeds alone would say
    assert found["seeds"].value > {3: 0.07, 5: 0.2, 10: 0.55}[seeds]


@pytest.mark.parametrize(("arms", "seeds"), [(1, 3), (1, 10), (20, 3)])
def test_the_level_holds_for_one_arm_and_for_twenty(arms: int, seeds: int) -> None:
    assert measure_false_words(arms, seeds, 74, studies=500)["joint"].value <= 0.07


def test_a_table_with_a_claim_keeps_the_level_and_one_with_words_everywhere_does_not() -> None:
    found = measure_whole_tables(2, 5, studies=200)

    error = math.sqrt(0.05 * 0.95 / 200)
    assert found["claim, joint"].value < 0.05 + 3 * error
    assert found["every column, seeds"].value > 0.3
    assert found["claim, joint"].value < found["every column, joint"].value < found["every column, seeds"].value


@pytest.mark.parametrize("seeds", [5, 10])
def test_an_arm_at_the_margin_is_called_the_same_in_one_study_of_twenty(seeds: int) -> None:
    found = measure_false_same(seeds, 162, studies=2_000)

    assert found["joint"].value <= 0.07
    assert found["joint"].value < found["seeds"].value


@pytest.mark.parametrize("arms", [1, 5])
def test_sequential_studies_keep_the_level_and_most_of_the_power(arms: int) -> None:
    none, some = (measure_sequential(effect, arms=arms, most=10, studies=2_000) for effect in (0.0, 1.0))

    error = math.sqrt(0.05 * 0.95 / 2_000)
    assert none["any arm"].value == pytest.approx(0.05, abs=3.5 * error)
    assert some["any arm"].value > 0.9 * some["any arm, fixed seeds"].value
    assert some["seeds"] < 10


def test_sequential_words_about_new_samples_keep_the_level() -> None:
    assert measure_sequential_words(5, 74, studies=200).value <= 0.05


def test_one_search_tells_identical_methods_apart_and_three_do_not() -> None:
    one, three = (measure_searched(1.0, 6, studies=2_000, repeats=repeats) for repeats in (1, 3))

    assert one.value > 0.2
    assert three.value == pytest.approx(0.05, abs=0.02)
    assert measure_searched(0.0, 6, studies=2_000).value == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize(("share", "splits"), [(0.2, 5), (1 / 3, 10)])
def test_splits_that_share_rows_are_no_independent_runs(share: float, splits: int) -> None:
    found = measure_splits(share, splits, trained=0.0, studies=1_000)

    assert found["corrected"].value <= 0.07
    assert found["as if independent"].value > 0.1


def test_two_pairs_find_nothing_and_ten_find_an_effect_of_more_than_a_standard_deviation() -> None:
    two, ten = (measure_found(1.25, seeds, arms=5, studies=1_000) for seeds in (2, 10))

    assert two.value < 0.06
    assert ten.value > 0.65
