from __future__ import annotations

import itertools
import math

import numpy as np

from dirtune.results.statistics.greedy import State, find_greedy_path

LEVELS = {"": 9.0, "a": 8.0, "b": 7.5, "c": 9.5, "ab": 7.0, "ac": 6.0, "bc": 7.2, "abc": 5.0}


def make_losses(levels: dict[str, float], seeds: int = 3) -> dict[State, dict[int, float]]:
    return {frozenset(name): {seed: level + seed / 10 for seed in range(seeds)} for name, level in levels.items()}


def visited(levels: dict[str, float], start: str, end: str) -> list[str]:
    steps = find_greedy_path(make_losses(levels), frozenset(start), frozenset(end))
    return ["".join(sorted(step.after)) for step in steps]


def test_every_step_goes_to_the_best_arm_that_is_one_part_away() -> None:
    assert visited(LEVELS, "", "abc") == ["b", "ab", "abc"]
    assert visited(LEVELS, "abc", "") == ["ac", "a", ""]


def test_the_path_is_that_of_plain_loops_over_random_tables() -> None:
    random = np.random.default_rng(1)
    names = ["".join(c) for size in range(5) for c in itertools.combinations("abcd", size)]
    for _ in range(20):
        levels = dict(zip(names, random.normal(size=len(names)).tolist(), strict=True))
        expected, here = [], ""
        while here != "abcd":
            next_ones = ["".join(sorted(here + part)) for part in "abcd" if part not in here]
            here = min(next_ones, key=lambda name: levels[name])
            expected.append(here)
        assert visited(levels, "", "abcd") == expected


def test_without_an_arm_one_part_away_the_nearest_are_compared_and_what_lacks_is_named() -> None:
    levels = {name: LEVELS[name] for name in ("", "b", "abc")}

    first, second = find_greedy_path(make_losses(levels), State(), frozenset("abc"))

    assert (first.after, first.rivals) == (frozenset("b"), ())
    assert first.untrained == (frozenset("a"), frozenset("c"))
    assert (second.after, second.parts) == (frozenset("abc"), frozenset("ac"))
    assert second.untrained == (frozenset("ab"), frozenset("bc"))


def test_rivals_are_those_that_were_compared() -> None:
    first, *_ = find_greedy_path(make_losses(LEVELS), State(), frozenset("abc"))

    assert set(first.rivals) == {frozenset("a"), frozenset("c")}
    assert first.untrained == ()


def test_arms_are_compared_on_the_seeds_they_share_with_the_one_before() -> None:
    found = make_losses(LEVELS)
    # On seed 2 better by 3.2 than none
    found[frozenset("a")] = {2: 6.0, 9: 100.0}

    first, *_ = find_greedy_path(found, State(), frozenset("abc"))

    assert first.after == frozenset("a")


def test_what_lies_off_the_way_is_not_visited_and_a_dead_end_stops() -> None:
    assert visited({**LEVELS, "x": 0.0}, "", "ab") == ["b", "ab"]
    apart = make_losses({"": 9.0, "a": 8.0}) | {frozenset("ab"): {7: 1.0}}
    assert [step.after for step in find_greedy_path(apart, State(), frozenset("ab"))] == [frozenset("a")]
    assert find_greedy_path({State(): {0: math.nan}, frozenset("a"): {0: 1.0}}, State(), frozenset("a")) == ()
