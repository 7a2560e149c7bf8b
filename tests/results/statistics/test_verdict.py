from __future__ import annotations

import math

import numpy as np
import pytest

from dirtune.results.statistics.joint import JointDifference, compare_jointly
from dirtune.results.statistics.paired import apply_holm, compute_equivalence_p
from dirtune.results.statistics.verdict import Verdict, make_verdict

SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])


def draw_difference(mean: float, spread: float, *, samples: float = 0.0) -> JointDifference:
    """Five seeds against a reference of 100; `samples` is the spread of 40 samples around their mean."""
    arm = dict(enumerate(100 + mean + spread * SPREAD))
    by_sample = samples * np.random.default_rng(0).normal(size=40)
    parts = (mean + spread * SPREAD)[:, None] + by_sample - by_sample.mean()
    return compare_jointly(arm, dict.fromkeys(range(5), 100.0), parts)


def judge(found: JointDifference, **given) -> Verdict:
    return make_verdict(found, **{"p_holm": found.p, "margin": 2.0, **given})


@pytest.mark.parametrize(
    ("mean", "spread", "lower_is_better", "higher_is_better"),
    [
        (-5.0, 1.0, "helps", "hurts"),
        (5.0, 1.0, "hurts", "helps"),
        (0.1, 1.0, "same", "same"),
        (-5.0, 10.0, "open", "open"),
        (0.0, 10.0, "open", "open"),
    ],
)
def test_the_word_follows_the_difference_and_which_way_is_better(
    mean: float, spread: float, lower_is_better: str, higher_is_better: str
) -> None:
    found = draw_difference(mean, spread)

    assert judge(found).decision == lower_is_better
    assert judge(found, higher_is_better=True).decision == higher_is_better


def test_what_holds_over_the_seeds_alone_is_open_and_the_samples_limit_it() -> None:
    certain, by_chance = draw_difference(-5.0, 1.0), draw_difference(-5.0, 1.0, samples=40.0)

    assert by_chance.over_seeds.p == certain.over_seeds.p < 0.001
    assert judge(certain).decision == "helps"
    assert str(judge(by_chance)) == "open (test samples)"
    assert str(judge(draw_difference(-5.0, 10.0))) == "open (seeds)"
    assert judge(draw_difference(0.1, 1.0, samples=40.0)).decision == "open"


def test_one_of_many_comparisons_needs_its_corrected_p() -> None:
    found = draw_difference(-5.0, 4.0)
    corrected = apply_holm({"this": found.p, "b": 0.5, "c": 0.6, "d": 0.7})["this"]

    assert found.p < 0.05 < corrected
    assert judge(found).decision == "helps"
    assert judge(found, p_holm=corrected).decision == "open"


def test_equivalence_too_is_corrected_for_the_number_of_comparisons() -> None:
    found = draw_difference(0.1, 1.8)

    plain, corrected = judge(found), judge(found, correction=4)

    assert plain.p_equivalence == compute_equivalence_p(found.over_seeds, margin=2.0)
    assert corrected.p_equivalence == pytest.approx(4 * plain.p_equivalence)
    assert (plain.decision, corrected.decision) == ("same", "open")


def test_a_proven_difference_within_the_margin_keeps_its_sign_and_says_so() -> None:
    small, large = judge(draw_difference(0.5, 0.1)), judge(draw_difference(5.0, 1.0))

    assert (small.decision, small.is_negligible, str(small)) == ("hurts", True, "hurts, within the margin")
    assert (large.is_negligible, str(large)) == (False, "hurts")


def test_without_a_margin_no_difference_is_the_same() -> None:
    found = judge(draw_difference(0.1, 0.5), margin=None)

    assert (found.decision, found.margin, found.is_negligible) == ("open", None, False)
    assert math.isnan(found.p_equivalence)
    assert judge(draw_difference(-5.0, 1.0), margin=None).decision == "helps"


@pytest.mark.parametrize("pairs", [0, 1])
def test_without_a_spread_nothing_is_decided(pairs: int) -> None:
    seeds = range(pairs)
    found = judge(compare_jointly(dict.fromkeys(seeds, 90.0), dict.fromkeys(seeds, 100.0)))

    assert str(found) == "open"
    assert math.isnan(found.p_equivalence)


def test_arms_that_do_the_same_at_every_seed_and_sample_are_the_same() -> None:
    assert judge(draw_difference(0.0, 0.0)).decision == "same"
    assert judge(draw_difference(0.0, 0.0, samples=1.0)).decision == "open"


@pytest.mark.parametrize("given", [{"margin": -0.1}, {"correction": 0}])
def test_impossible_settings_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        judge(draw_difference(0.0, 1.0), **given)
