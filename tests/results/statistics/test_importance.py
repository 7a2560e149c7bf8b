from __future__ import annotations

import math
from typing import Any

import numpy as np
import optuna
import pytest

from dirtune.errors import InputError
from dirtune.results.statistics.importance import compute_importance, compute_target_share

SPACE: dict[str, dict[str, Any]] = {
    "decides": {"distribution": "uniform", "low": 0.0, "high": 1.0},
    "log": {"distribution": "loguniform", "low": 1e-3, "high": 1e3},
    "whole": {"distribution": "int", "low": 1, "high": 8, "log": True},
    "choice": {"distribution": "choice", "values": [None, 16, True]},
}


def trials(count: int) -> list[dict[str, Any]]:
    generator = np.random.default_rng(0)
    return [
        {
            "decides": generator.uniform(),
            "log": 10 ** generator.uniform(-3, 3),
            # As a column with nulls gives it
            "whole": float(generator.integers(1, 9)),
            "choice": [None, 16.0, True][generator.integers(3)],
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("method", ["ped_anova", "fanova"])
def test_the_setting_that_decides_comes_first(method: str) -> None:
    settings = trials(60)

    shares = compute_importance(settings, [(t["decides"] - 0.3) ** 2 for t in settings], SPACE, method=method)

    assert next(iter(shares)) == "decides"
    assert shares.keys() == SPACE.keys()
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["decides"] > 0.5
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_importance_equals_optunas_of_the_same_trials() -> None:
    settings = trials(40)
    losses = [abs(math.log(t["log"])) for t in settings]
    study = optuna.create_study()
    for values, loss in zip(settings, losses, strict=True):
        study.enqueue_trial(values)
        trial = study.ask()
        trial.suggest_float("decides", 0.0, 1.0)
        trial.suggest_float("log", 1e-3, 1e3, log=True)
        trial.suggest_int("whole", 1, 8, log=True)
        trial.suggest_categorical("choice", [None, 16, True])
        study.tell(trial, loss)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=5 / 40)
    expected = optuna.importance.get_param_importances(study, evaluator=evaluator)

    assert compute_importance(settings, losses, SPACE) == pytest.approx(expected)


def test_a_setting_with_one_value_has_no_importance() -> None:
    space = {**SPACE, "choice": {"distribution": "choice", "values": ["only"]}}
    settings = [{**t, "choice": "only"} for t in trials(20)]

    assert compute_importance(settings, [t["decides"] for t in settings], space)["choice"] == 0.0


def test_it_leaves_optunas_loudness_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    before = optuna.logging.get_verbosity()

    compute_importance(trials(8), list(range(8)), SPACE)

    assert optuna.logging.get_verbosity() == before
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("count", "share"), [(4, 0.5), (10, 0.5), (20, 0.25), (50, 0.1), (500, 0.1)])
def test_the_good_trials_are_a_tenth_but_at_least_five(count: int, share: float) -> None:
    assert compute_target_share(count) == pytest.approx(share)


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(InputError, match="needs 4 complete trials of a search, got 3"):
        compute_importance(trials(3), [1.0, 2.0, 3.0], SPACE)
    with pytest.raises(InputError, match="unknown method, got 'x'; known: fanova, ped_anova"):
        compute_importance(trials(4), [1.0] * 4, SPACE, method="x")
