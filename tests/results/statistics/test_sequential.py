from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dirtune.results.statistics.sequential import ComparisonState, LookSchedule, run_looks

LOOKS = LookSchedule(first=3, step=1, most=12, comparisons=1)
SEEDS = range(12)


def run_comparison(
    differences: list[float], *, looks: LookSchedule = LOOKS, level: float = 10.0, **options
) -> ComparisonState:
    """State of the comparison after these differences to a reference that is `level` at every seed."""
    reference = dict.fromkeys(range(len(differences)), level)
    arm = {seed: level + difference for seed, difference in enumerate(differences)}
    return run_looks(arm, reference, seeds=SEEDS, looks=looks, margin=0.02, **options)


def test_the_looks_end_at_the_last_seed_and_spend_the_level_once() -> None:
    looks = LookSchedule(first=4, step=3, most=12, comparisons=2)
    assert looks.sizes == [4, 7, 10, 12]
    assert [looks.get_level(k) for k in range(4)] == pytest.approx([0.025 * k / 12 for k in (4, 3, 3, 2)])
    assert sum(looks.get_level(k) for k in range(4)) * 2 == pytest.approx(0.05)


@pytest.mark.parametrize("wrong", [{"first": 1}, {"first": 13}, {"step": 0}, {"comparisons": 0}])
def test_looks_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        LookSchedule(**({"first": 3, "step": 1, "most": 12, "comparisons": 1} | wrong))


def test_before_the_first_look_more_seeds_are_needed() -> None:
    assert run_comparison([-5.0, -5.1]) == ComparisonState(decision="undecided", seeds=0, needed=3)


def test_a_clear_difference_is_decided_at_the_first_look() -> None:
    assert run_comparison([-5.0, -5.1, -4.9]) == ComparisonState(decision="helps", seeds=3, needed=None)
    assert run_comparison([5.0, 5.1, 4.9]).decision == "hurts"
    assert run_comparison([5.0, 5.1, 4.9], higher_is_better=True).decision == "helps"


def test_a_difference_is_decided_where_the_t_test_first_falls_below_what_may_be_spent() -> None:
    drawn = (np.random.default_rng(4).normal(-1.0, 1.0, 12)).tolist()
    found = run_comparison(drawn)
    for look, size in enumerate(LOOKS.sizes):
        if stats.ttest_1samp(drawn[:size], 0.0).pvalue < LOOKS.get_level(look):
            break
    assert found == ComparisonState(decision="helps", seeds=size, needed=None)
    assert size > 3


def test_arms_that_are_equal_or_nearly_so_are_equivalent() -> None:
    assert run_comparison([0.0, 0.0, 0.0]) == ComparisonState(decision="equivalent", seeds=3, needed=None)
    assert run_comparison([0.001, -0.001, 0.0005]).decision == "equivalent"


def test_what_stays_undecided_goes_on_to_the_last_seed_and_ends() -> None:
    noise = np.random.default_rng(0).normal(0.1, 1.0, 12).tolist()
    assert run_comparison(noise[:8]) == ComparisonState(decision="undecided", seeds=8, needed=9)
    assert run_comparison(noise) == ComparisonState(decision="undecided", seeds=12, needed=None)


def test_a_decision_is_not_taken_back_by_later_seeds_and_does_not_wait_for_them() -> None:
    first = [-5.0, -5.1, -4.9]
    assert run_comparison([*first, 50.0, -60.0]) == run_comparison(first)


def test_a_gap_in_the_seeds_is_waited_for() -> None:
    arm = dict.fromkeys((0, 1, 3, 4, 5), 5.0)
    found = run_looks(arm, dict.fromkeys(range(6), 10.0), seeds=SEEDS, looks=LOOKS, margin=0.02)
    assert found == ComparisonState(decision="undecided", seeds=0, needed=3)


def test_equal_arms_differ_significantly_in_at_most_five_percent_of_studies_and_by_naive_looks_in_more() -> None:
    generator, studies = np.random.default_rng(11), 1500
    wrong = naive = 0
    for _ in range(studies):
        drawn = generator.normal(0.0, 1.0, 12)
        wrong += run_comparison(drawn.tolist(), level=1e-6).decision in ("helps", "hurts")
        looks = [stats.ttest_1samp(drawn[:size], 0.0).pvalue for size in LOOKS.sizes]
        naive += min(looks) < 0.05
    assert wrong / studies < 0.05
    assert naive / studies > 0.12


def test_a_difference_at_the_margin_is_called_equivalent_in_at_most_five_percent_of_studies() -> None:
    generator, studies = np.random.default_rng(12), 1500
    wrong = sum(
        run_comparison(generator.normal(0.2, 0.15, 12).tolist()).decision == "equivalent" for _ in range(studies)
    )
    assert wrong / studies < 0.05
