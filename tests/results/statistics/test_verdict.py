from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from dirtune.results.statistics.paired import PairedDifference, apply_holm, compare_by_seed, compute_equivalence_p
from dirtune.results.statistics.power import (
    compute_detection_power,
    compute_equivalence_power,
    count_seeds_for_equivalence,
    count_seeds_to_detect,
)
from dirtune.results.statistics.verdict import Verdict, make_verdict

SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def draw_difference(mean: float, spread: float) -> PairedDifference:
    """Five seeds against a reference of 100."""
    return compare_by_seed(dict(enumerate(100 + mean + spread * SPREAD)), dict.fromkeys(range(5), 100.0))


def judge(found: PairedDifference, **given) -> Verdict:
    return make_verdict(found, **{"reference_mean": 100.0, "p_holm": found.p, **given})


@pytest.mark.parametrize(
    ("mean", "spread", "lower_is_better", "higher_is_better"),
    [
        (-5.0, 1.0, "helps", "hurts"),
        (5.0, 1.0, "hurts", "helps"),
        (0.1, 1.0, "equivalent", "equivalent"),
        (-5.0, 10.0, "undecided", "undecided"),
        (0.0, 10.0, "undecided", "undecided"),
    ],
)
def test_the_decision_follows_the_difference_and_which_way_is_better(
    mean: float, spread: float, lower_is_better: str, higher_is_better: str
) -> None:
    found = draw_difference(mean, spread)

    assert judge(found).decision == lower_is_better
    assert judge(found, higher_is_better=True).decision == higher_is_better


def test_one_of_many_comparisons_needs_its_corrected_p() -> None:
    found = draw_difference(-5.0, 4.0)
    corrected = apply_holm({"this": found.p, "b": 0.5, "c": 0.6, "d": 0.7})["this"]

    assert found.p < 0.05 < corrected
    assert judge(found).decision == "helps"
    assert judge(found, p_holm=corrected, comparisons=4).decision == "undecided"


def test_equivalence_too_is_corrected_for_the_number_of_comparisons() -> None:
    found = draw_difference(0.1, 1.8)

    plain, corrected = judge(found), judge(found, comparisons=4)

    assert plain.p_equivalence == compute_equivalence_p(found, margin=2.0)
    assert corrected.p_equivalence == pytest.approx(4 * plain.p_equivalence)
    assert (plain.decision, corrected.decision) == ("equivalent", "undecided")


@pytest.mark.parametrize("over", ["samples", "both"])
def test_an_undecided_difference_over_samples_plans_no_seeds(over: str) -> None:
    found = draw_difference(0.0, 5.0)

    assert judge(found).further_seeds > 0
    assert judge(replace(found, over=over)).further_seeds is None
    assert judge(replace(draw_difference(-5.0, 1.0), over=over)).further_seeds == 0


def test_a_proven_difference_within_the_margin_keeps_its_sign_and_is_called_negligible() -> None:
    found = judge(draw_difference(-0.5, 0.1))

    assert (found.decision, found.is_negligible) == ("helps", True)
    assert not judge(draw_difference(-5.0, 1.0)).is_negligible


def test_the_margin_is_two_percent_of_the_reference_or_what_is_given() -> None:
    found = draw_difference(0.1, 1.0)

    assert judge(found).margin == 2.0
    assert judge(found, reference_mean=-50.0).margin == 1.0
    assert judge(found, margin=0.01).margin == 0.01
    assert judge(found, margin=0.01).decision == "undecided"


def test_further_seeds_are_enough_to_see_the_margin_and_to_show_equality() -> None:
    found = draw_difference(0.0, 5.0)
    further = judge(found, comparisons=3).further_seeds

    assert further is not None
    for n, is_enough in ((5 + further, True), (4 + further, False)):
        detected = compute_detection_power(n, sd=found.sd, effect=2.0, alpha=0.05 / 3)
        equated = compute_equivalence_power(n, sd=found.sd, margin=2.0, alpha=0.05 / 3)
        assert (min(detected, equated) >= 0.8) == is_enough


def test_a_decided_comparison_needs_no_further_seeds() -> None:
    assert judge(draw_difference(-5.0, 1.0)).further_seeds == 0
    assert judge(draw_difference(0.1, 1.0)).further_seeds == 0


def test_between_zero_and_the_margin_more_seeds_are_not_planned() -> None:
    # Five seeds see 2.0 at this spread
    found = judge(draw_difference(1.2, 1.1), p_holm=0.07)

    assert (found.decision, found.further_seeds) == ("undecided", 0)


@pytest.mark.parametrize("pairs", [0, 1])
def test_without_a_spread_nothing_is_decided_and_nothing_planned(pairs: int) -> None:
    seeds = range(pairs)
    found = judge(compare_by_seed(dict.fromkeys(seeds, 90.0), dict.fromkeys(seeds, 100.0)))

    assert (found.decision, found.further_seeds) == ("undecided", None)
    assert math.isnan(found.p_equivalence)


def test_arms_that_do_the_same_at_every_seed_are_equivalent() -> None:
    found = judge(draw_difference(0.0, 0.0))

    assert (found.decision, found.is_negligible, found.further_seeds) == ("equivalent", True, 0)


def test_a_reference_of_zero_has_no_margin_and_so_no_plan() -> None:
    found = judge(draw_difference(-5.0, 10.0), reference_mean=0.0)

    assert (found.margin, found.decision, found.further_seeds) == (0.0, "undecided", None)


@pytest.mark.parametrize("given", [{"margin": -0.1}, {"comparisons": 0}])
def test_impossible_settings_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        judge(draw_difference(0.0, 1.0), **given)


def simulate_decisions(true_difference: float, seeds: int, *, studies: int = 600) -> dict[str, float]:
    """Share of each decision among simulated studies; sd of the differences 1, margin 1."""
    random = np.random.default_rng(seeds)
    found = []
    for _ in range(studies):
        reference = dict(enumerate(50 + random.normal(size=seeds)))
        own = random.normal(true_difference, 1.0, size=seeds)
        arm = {seed: value + own[seed] for seed, value in reference.items()}
        compared = compare_by_seed(arm, reference)
        found.append(make_verdict(compared, reference_mean=50.0, p_holm=compared.p).decision)
    return {name: found.count(name) / studies for name in set(found)}


def test_with_the_planned_number_of_seeds_four_in_five_studies_decide_and_few_are_wrong() -> None:
    planned = max(count_seeds_to_detect(sd=1.0, effect=1.0), count_seeds_for_equivalence(sd=1.0, margin=1.0))

    equal, worse = simulate_decisions(0.0, planned), simulate_decisions(1.0, planned)

    error = 3 * math.sqrt(0.8 * 0.2 / 600)
    # The claims of a difference, at 5 %, aside
    assert equal["equivalent"] > 0.8 - 0.05 - error
    assert worse["hurts"] > 0.8 - error
    assert equal.get("helps", 0.0) + equal.get("hurts", 0.0) < 0.08
    assert worse.get("equivalent", 0.0) + worse.get("helps", 0.0) < 0.08
