from __future__ import annotations

import math
from itertools import permutations

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.selection import SELECTIONS, Candidate, get_selection, to_loss


def candidate(trial_id: str, epoch: str, validation: float, test: float) -> Candidate:
    return Candidate(trial_id=trial_id, epoch=epoch, validation=validation, test=test)


CANDIDATES = [
    candidate("a", "best_val", 2.0, 9.0),
    candidate("a", "last", 8.0, 8.0),
    candidate("b", "best_val", 3.0, 7.0),
    candidate("b", "last", 4.0, 6.0),
]


@pytest.mark.parametrize(
    ("rule", "chosen"), [("best_val", ("a", "best_val")), ("last", ("b", "last")), ("oracle", ("b", "last"))]
)
def test_each_rule_chooses_by_its_own_number(rule: str, chosen: tuple[str, str]) -> None:
    for order in permutations(CANDIDATES):
        found = SELECTIONS[rule].choose(order)
        assert (found.trial_id, found.epoch) == chosen


def test_the_best_validation_objective_wins_although_its_test_error_is_the_worst() -> None:
    assert SELECTIONS["best_val"].choose(CANDIDATES).test == max(c.test for c in CANDIDATES)


def test_an_undefined_objective_is_chosen_only_where_there_is_no_other() -> None:
    undefined = [candidate(name, "best_val", math.nan, 1.0) for name in ("b", "a")]

    assert SELECTIONS["best_val"].choose([*undefined, *CANDIDATES]).validation == 2.0
    assert SELECTIONS["best_val"].choose(undefined).trial_id == "a"
    assert SELECTIONS["best_val"].choose(undefined[::-1]).trial_id == "a"


def test_equal_objectives_are_decided_by_the_trial_and_not_by_the_order() -> None:
    tied = [candidate(name, "best_val", 1.0, 1.0) for name in ("c", "a", "b")]

    assert {SELECTIONS["best_val"].choose(order).trial_id for order in permutations(tied)} == {"a"}


def test_every_rule_has_a_description_and_that_of_the_oracle_warns() -> None:
    assert all(rule.description for rule in SELECTIONS.values())
    assert "ORACLE" in SELECTIONS["oracle"].description


def test_metrics_where_higher_is_better_turn_their_sign() -> None:
    assert to_loss(0.7, "pearson") == -0.7
    assert to_loss(0.7, "mae") == 0.7
    assert math.isnan(to_loss(None, "mae"))


def test_an_unknown_rule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'bestval'; known: best_val, last, oracle"):
        get_selection("bestval")
