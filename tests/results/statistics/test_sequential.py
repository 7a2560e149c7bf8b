from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.margin import Margin
from dirtune.results.statistics.sequential import ComparisonState, LookSchedule, compute_factors, run_looks

LOOKS = LookSchedule(first=3, step=1, most=12, comparisons=1)
SEEDS = range(12)
MARGIN = Margin.parse("2%")


def run_comparison(
    differences: list[float],
    *,
    looks: LookSchedule = LOOKS,
    level: float = 10.0,
    margin: Margin | None = MARGIN,
    **options,
) -> ComparisonState:
    """State of the comparison after these differences to a reference that is `level` at every seed."""
    reference = dict.fromkeys(range(len(differences)), level)
    arm = {seed: level + difference for seed, difference in enumerate(differences)}
    return run_looks(arm, reference, seeds=SEEDS, looks=looks, margin=margin, **options)


def find_crossings(drawn: np.ndarray, looks: LookSchedule, *, comparisons: int | None = None) -> np.ndarray:
    """Seeds at the first look whose two-sided p is below its level, for every row; zero without one. Plain t tests."""
    stopped = np.zeros(len(drawn), dtype=int)
    for n in looks.sizes:
        seen = drawn[:, :n]
        t = seen.mean(axis=1) / (seen.std(axis=1, ddof=1) / math.sqrt(n))
        level = looks.get_levels(n, comparisons=comparisons).difference
        crossing = (2 * stats.t.sf(np.abs(t), n - 1) < level) & (stopped == 0)
        stopped[crossing] = n
    return stopped


def test_the_looks_end_at_the_last_seed_and_begin_where_there_can_be_a_word() -> None:
    assert LookSchedule(first=4, step=3, most=12, comparisons=2).sizes == (4, 7, 10, 12)
    assert LookSchedule(first=2, step=1, most=5, comparisons=2).sizes == (3, 4, 5)


def test_a_single_look_has_the_whole_level_and_several_rise_with_the_cube_of_the_share() -> None:
    assert LookSchedule(first=8, step=1, most=8, comparisons=2).get_levels(8).difference == pytest.approx(
        0.025, rel=0.02
    )
    levels = [LOOKS.get_levels(n).difference for n in LOOKS.sizes]
    assert levels == pytest.approx([levels[-1] * (n / 12) ** 3 for n in LOOKS.sizes])
    assert 0.02 < levels[-1] < 0.05 < sum(levels)


@pytest.mark.parametrize("wrong", [{"first": 1}, {"first": 13}, {"step": 0}, {"comparisons": 0}, {"most": 2}])
def test_looks_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        LookSchedule(**({"first": 3, "step": 1, "most": 12, "comparisons": 1} | wrong))


def test_before_the_first_look_more_seeds_are_needed() -> None:
    assert run_comparison([-5.0, -5.1]) == ComparisonState(decision="open", seeds=0, needed=3)


def test_a_clear_difference_is_settled_at_the_first_look() -> None:
    assert run_comparison([-5.0, -5.1, -4.9]) == ComparisonState(decision="helps", seeds=3, needed=None)
    assert run_comparison([5.0, 5.1, 4.9]).decision == "hurts"
    assert run_comparison([5.0, 5.1, 4.9], higher_is_better=True).decision == "helps"


def test_a_difference_is_settled_where_the_t_test_first_falls_below_its_level() -> None:
    drawn = np.random.default_rng(4).normal(-1.0, 1.0, 12)
    (size,) = find_crossings(drawn[None], LOOKS)

    assert run_comparison(drawn.tolist()) == ComparisonState(decision="helps", seeds=size, needed=None)
    assert 3 < size < 12


def test_arms_that_are_equal_or_nearly_so_are_the_same_and_need_a_margin() -> None:
    assert run_comparison([0.0, 0.0, 0.0]) == ComparisonState(decision="same", seeds=3, needed=None)
    assert run_comparison([0.001, -0.001, 0.0005]).decision == "same"
    assert run_comparison([0.001, -0.001, 0.0005], margin=None).decision == "open"


def test_what_stays_open_goes_on_to_the_last_seed_and_ends() -> None:
    noise = np.random.default_rng(0).normal(0.1, 1.0, 12).tolist()
    assert run_comparison(noise[:8]) == ComparisonState(decision="open", seeds=8, needed=9)
    assert run_comparison(noise) == ComparisonState(decision="open", seeds=12, needed=None)


def test_a_decision_is_not_taken_back_by_later_seeds_and_does_not_wait_for_them() -> None:
    first = [-5.0, -5.1, -4.9]
    assert run_comparison([*first, 50.0, -60.0]) == run_comparison(first)


def test_a_gap_in_the_seeds_is_waited_for() -> None:
    arm = dict.fromkeys((0, 1, 3, 4, 5), 5.0)
    found = run_looks(arm, dict.fromkeys(range(6), 10.0), seeds=SEEDS, looks=LOOKS, margin=MARGIN)
    assert found == ComparisonState(decision="open", seeds=0, needed=3)


@pytest.mark.parametrize("comparisons", [1, 5])
def test_equal_arms_are_told_apart_in_five_percent_of_studies_and_by_naive_looks_in_more(comparisons: int) -> None:
    studies = 40_000
    looks = LookSchedule(first=3, step=1, most=12, comparisons=comparisons)
    drawn = np.random.default_rng(11).normal(size=(studies, 12))
    level = 0.05 / comparisons
    error = math.sqrt(level * (1 - level) / studies)

    wrong = (find_crossings(drawn, looks) > 0).mean()
    naive = np.min([stats.ttest_1samp(drawn[:, :n], 0.0, axis=1).pvalue for n in looks.sizes], axis=0) < level

    # The factor itself is a quantile of 200,000 paths.
    assert wrong == pytest.approx(level, abs=3 * error + 0.05 * level)
    assert naive.mean() > 2.5 * level


def test_power_and_saved_seeds_are_those_of_the_exact_boundary() -> None:
    looks = LookSchedule(first=2, step=1, most=10, comparisons=3)
    found = {}
    for effect in (1.0, 4.0):
        stopped = find_crossings(np.random.default_rng(5).normal(effect, 1.0, (20_000, 10)), looks)
        found[effect] = (stopped > 0).mean(), np.where(stopped, stopped, 10).mean()

    assert found[1.0] == pytest.approx((0.52, 9.13), abs=0.03)
    assert found[4.0] == pytest.approx((1.0, 5.19), abs=0.03)


def test_the_interval_of_the_look_covers_over_all_looks() -> None:
    truth, studies = 1.5, 20_000
    drawn = np.random.default_rng(6).normal(truth, 1.0, (studies, 12))
    stopped = find_crossings(drawn, LOOKS)
    missed = 0
    for n in LOOKS.sizes:
        ended = drawn[(stopped == n) | ((n == 12) & (stopped == 0))][:, :n]
        half = stats.t.ppf(1 - LOOKS.get_levels(n, comparisons=1).difference / 2, n - 1)
        error = ended.std(axis=1, ddof=1) / math.sqrt(n)
        missed += np.count_nonzero(np.abs(ended.mean(axis=1) - truth) > half * error)
    assert missed / studies < 0.05


def test_a_difference_at_the_margin_is_called_the_same_in_at_most_five_percent_of_studies() -> None:
    studies = 20_000
    drawn = np.random.default_rng(12).normal(0.2, 0.15, (studies, 12))
    same = np.zeros(studies, dtype=bool)
    for n in LOOKS.sizes:
        error = drawn[:, :n].std(axis=1, ddof=1) / math.sqrt(n)
        t = (drawn[:, :n].mean(axis=1) - 0.2) / error
        other = (drawn[:, :n].mean(axis=1) + 0.2) / error
        p = np.maximum(stats.t.cdf(t, n - 1), stats.t.sf(other, n - 1))
        same |= p < LOOKS.get_levels(n).equivalence
    assert 0.03 < same.mean() < 0.055


def test_one_study_in_words_agrees_with_the_vectorized_looks() -> None:
    drawn = np.random.default_rng(3).normal(-0.7, 1.0, (60, 12))
    stopped = find_crossings(drawn, LOOKS)
    states = [run_comparison(row.tolist(), margin=None) for row in drawn]

    assert [state.seeds if state.decision != "open" else 0 for state in states] == stopped.tolist()
    assert {state.decision for state in states} == {"helps", "open"}


def test_factors_are_rounded_down_so_that_machines_agree() -> None:
    for factor in compute_factors((3, 4, 5), 0.05):
        assert f"{factor:.3g}" == f"{factor:.6g}"
        assert factor < 0.05
