"""Run with `pytest tests/tuning/search/test_cma.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest
from cmaes import CMA
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from dirtune.tuning.search.cma import START_SPREAD, CmaEs, place_of, value_at

SPACE = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "size": IntDistribution(2, 40),
    "kind": CategoricalDistribution(["a", "b"]),
}


def error(params: dict[str, Any]) -> float:
    """Least at a rate of 0.01 and a size of 30."""
    return math.log10(params["rate"] / 0.01) ** 2 + ((params["size"] - 30) / 10) ** 2


def searched(trials: int, *, direction: str = "minimize", seed: int = 0) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for number in range(trials):
        study.sampler = CmaEs(SPACE, seed=1000 * seed + number)
        trial = study.ask(SPACE)
        study.tell(trial, error(trial.params) * (1 if direction == "minimize" else -1))
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_closes_in_on_the_best_configuration(direction: str, seed: int) -> None:
    errors = [error(trial.params) for trial in searched(90, direction=direction, seed=seed).trials]
    assert np.mean(errors[-12:]) < 0.1 * np.mean(errors[:12])
    assert {trial.params["kind"] for trial in searched(20).trials} == {"a", "b"}


def test_a_proposal_is_that_of_the_strategy_which_was_told_whole_generations() -> None:
    study = searched(14)
    strategy = CMA(mean=np.full(2, 0.5), sigma=START_SPREAD, bounds=np.array([[0.0, 1.0]] * 2), seed=77)
    told = [
        (np.array([(math.log10(trial.params["rate"]) + 4) / 4, (trial.params["size"] - 1.5) / 39]), error(trial.params))
        for trial in study.trials
    ]
    assert strategy.population_size == 6
    strategy.tell(told[:6])
    strategy.tell(told[6:12])
    rate, size = strategy.ask()
    study.sampler = CmaEs(SPACE, seed=77)
    params = study.ask(SPACE).params
    assert params["rate"] == pytest.approx(10 ** (4 * rate - 4))
    assert params["size"] == round(1.5 + 39 * size)


def test_trials_without_a_value_teach_it_nothing() -> None:
    study, other = searched(12), searched(12)
    for state in (TrialState.PRUNED, TrialState.FAIL):
        other.tell(other.ask(SPACE), state=state)
    for each in (study, other):
        each.sampler = CmaEs(SPACE, seed=5)
    assert study.ask(SPACE).params == other.ask(SPACE).params


@pytest.mark.parametrize(
    "distribution",
    [
        FloatDistribution(-2.0, 3.0),
        FloatDistribution(1e-6, 10.0, log=True),
        IntDistribution(-3, 4),
        IntDistribution(1, 500, log=True),
    ],
    ids=str,
)
def test_places_and_values_are_each_others_inverse_and_stay_in_range(distribution: Any) -> None:
    ends = [value_at(distribution, share) for share in (0.0, 1.0)]
    assert ends == pytest.approx([distribution.low, distribution.high])
    for share in np.linspace(0, 1, 41):
        value = value_at(distribution, float(share))
        assert distribution._contains(value)
        assert value_at(distribution, place_of(distribution, value)) == pytest.approx(value)


def test_whole_numbers_have_equal_parts_of_the_range() -> None:
    found = [value_at(IntDistribution(3, 6), (at + 0.5) / 400) for at in range(400)]
    assert [found.count(value) for value in range(3, 7)] == [100] * 4
