"""Run with `pytest tests/study/test_space.py`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import optuna
import pytest
from pydantic import TypeAdapter, ValidationError

from dirtune.study.space import Distribution, count_configurations
from dirtune.tuning.folder.optuna_storage import to_optuna_distribution

DISTRIBUTION: TypeAdapter[Any] = TypeAdapter(Distribution)


def make(distribution: str, **settings: Any) -> Any:
    return DISTRIBUTION.validate_python({"distribution": distribution, **settings})


def draw_samples(asked: Any, count: int) -> list[Any]:
    """Return suggestions of Optuna's random sampler."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask({"a.b": to_optuna_distribution(asked)}).params["a.b"] for _ in range(count)]


EVERY_KIND = [
    make("uniform", low=-1.5, high=2.5),
    make("loguniform", low=1e-4, high=10.0),
    make("int", low=-2, high=3),
    make("int", low=1, high=1000, log=True),
    make("choice", values=("a", 2, 0.5, True, None)),
]


@pytest.mark.parametrize("asked", EVERY_KIND, ids=str)
def test_every_suggestion_is_in_the_support(asked: Any) -> None:
    assert all(asked.contains(value) for value in draw_samples(asked, 200))


@pytest.mark.parametrize("asked", EVERY_KIND[:4], ids=str)
def test_an_enqueued_value_within_the_bounds_is_unchanged(asked: Any) -> None:
    middle = type(asked.low)((asked.low + asked.high) / 2)
    for value in (asked.low, middle, asked.high):
        study = optuna.create_study()
        study.enqueue_trial({"a.b": value})
        assert study.ask({"a.b": to_optuna_distribution(asked)}).params == {"a.b": value}


def test_a_uniform_distribution_covers_its_interval_evenly() -> None:
    found = draw_samples(make("uniform", low=2.0, high=4.0), 1000)
    shares = [sum(low <= value < low + 0.5 for value in found) for low in (2.0, 2.5, 3.0, 3.5)]
    assert all(200 < share < 300 for share in shares)


def test_a_loguniform_distribution_covers_its_decades_evenly() -> None:
    found = draw_samples(make("loguniform", low=1e-3, high=1e1), 1000)
    decades = [math.floor(math.log10(value)) for value in found]
    assert all(200 < decades.count(decade) < 300 for decade in (-3, -2, -1, 0))


def test_both_ends_of_an_integer_are_sampled() -> None:
    assert set(draw_samples(make("int", low=3, high=5), 100)) == {3, 4, 5}


def test_both_ends_of_a_logarithmic_integer_are_sampled() -> None:
    found = draw_samples(make("int", low=1, high=8, log=True), 300)
    assert {type(value) for value in found} == {int}
    assert (min(found), max(found)) == (1, 8)
    # Log(1.5 / 0.5) against log(8.5 / 7.5)
    assert found.count(1) > 2 * found.count(8)


def test_a_choice_returns_the_listed_values() -> None:
    found = draw_samples(make("choice", values=(None, "adam", 0.1)), 100)
    assert set(found) == {None, "adam", 0.1}


@pytest.mark.parametrize(
    ("asked", "inside", "outside"),
    [
        (make("uniform", low=1, high=3), [1, 2.5, 3], [0.999, 3.001, math.nan, "2", None]),
        (make("loguniform", low=0.1, high=1), [0.1, 1], [0.0999, 1.0001, None]),
        (make("int", low=1, high=3), [1, 2, 3], [0, 4, 2.0, "2", None]),
        (make("choice", values=(8, None, "x")), [8, None, "x"], [9, "y", ""]),
    ],
)
def test_a_distribution_contains_its_ends_and_nothing_beyond(asked: Any, inside: list[Any], outside: list[Any]) -> None:
    assert all(asked.contains(value) for value in inside)
    assert not any(asked.contains(value) for value in outside)


def test_the_configurations_of_a_finite_space_are_counted() -> None:
    space = {
        "a": make("choice", values=("x", "y", None)),
        "b": make("int", low=-1, high=2),
        "c": make("int", low=1, high=5, log=True),
    }
    product = itertools.product(("x", "y", None), range(-1, 3), range(1, 6))
    assert count_configurations(space) == len(list(product)) == 60


@pytest.mark.parametrize("distribution", ["uniform", "loguniform"])
def test_one_continuous_distribution_makes_a_space_infinite(distribution: str) -> None:
    space = {"a": make("choice", values=(1, 2)), "b": make(distribution, low=0.1, high=0.2)}
    assert count_configurations(space) == math.inf


def test_an_empty_space_has_one_configuration() -> None:
    assert count_configurations({}) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "uniform", "low": 2, "high": 2}, "low < high must hold, got low=2.0, high=2.0"),
        ({"distribution": "int", "low": 3, "high": 2}, "low < high must hold, got low=3, high=2"),
        ({"distribution": "loguniform", "low": 0, "high": 2}, "low > 0 must hold for a logarithmic scale"),
        ({"distribution": "int", "low": 0, "high": 2, "log": True}, "low > 0 must hold for a logarithmic"),
        ({"distribution": "int", "low": 0.5, "high": 2}, "should be a valid integer"),
        ({"distribution": "choice", "values": ()}, "at least 1 item"),
    ],
)
def test_an_empty_or_impossible_range_is_rejected(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DISTRIBUTION.validate_python(settings)
