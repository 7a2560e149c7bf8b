"""Run with `pytest tests/cli/test_sweep_progress.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dirtune.cli.sweep_progress import SweepProgress
from dirtune.config import TrialConfig
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.records import TrialOutcome
from dirtune.tuning.plan.plan import Plan
from tests.cli.test_display import make_plan, make_recorded_trial

EPOCHS = 4


def make_complete(value: float) -> TrialOutcome:
    return TrialOutcome(status="complete", objective=value)


def make_job(arm: str = "a", seed: int = 0) -> TrialJob:
    plain = {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn"}},
        "recipe": {"epochs": EPOCHS},
        "seed": seed,
    }
    config = TrialConfig.model_validate(plain)
    return TrialJob(study="tiny", arm=arm, trial_id=f"{arm}-{seed}", config=config)


def make_two_arm_plan(**changes: object) -> Plan:
    return replace(make_plan(), trials={"a": 4, "b": 4}, **changes)


def test_recorded_and_running_trials_are_counted_by_arm_and_status() -> None:
    pruned, failed = TrialOutcome(status="pruned", objective=9.0), TrialOutcome(status="failed", objective=None)
    progress = SweepProgress(
        make_two_arm_plan(),
        [
            make_recorded_trial("a", make_complete(3.0)),
            make_recorded_trial("a", pruned),
            make_recorded_trial("gone", make_complete(1.0)),
        ],
    )
    progress.update_epoch(make_job("a", 2), 1)
    progress.update_epoch(make_job("b", 2), 2)
    progress.add_outcome(make_job("b", 2), failed)
    assert (progress.total, progress.done) == (8, 3)
    assert progress.arms["a"].counts == {"complete": 1, "pruned": 1}
    assert progress.arms["b"].counts == {"failed": 1}
    assert [(each.seed, each.epoch, each.epochs) for each in progress.arms["a"].running.values()] == [(2, 1, EPOCHS)]
    assert progress.arms["b"].running == {}
    assert "gone" not in progress.arms


@pytest.mark.parametrize(("metric", "best"), [("mae", 3.0), ("pearson", 5.0)])
def test_the_best_objective_of_an_arm_is_that_of_a_complete_trial(metric: str, best: float) -> None:
    found = make_plan(objective={"metric": metric})
    progress = SweepProgress(replace(found, trials={"a": 4}))
    for seed, value in enumerate([5.0, 3.0, 4.0]):
        progress.add_outcome(make_job("a", seed), make_complete(value))
    progress.add_outcome(make_job("a", 3), TrialOutcome(status="pruned", objective=1.0 if metric == "mae" else 9.0))
    assert progress.arms["a"].best == best


def test_the_time_left_is_estimated_from_the_pace_of_trials_and_epochs() -> None:
    progress = SweepProgress(make_two_arm_plan(), [make_recorded_trial("a", make_complete(1.0))])
    assert progress.estimate_seconds_left(5.0) is None
    # Half a trial of seven in ten seconds
    progress.update_epoch(make_job("a", 1), 2)
    assert progress.estimate_seconds_left(10.0) == pytest.approx(10.0 * 6.5 / 0.5)
    progress.add_outcome(make_job("a", 1), make_complete(1.0))
    assert progress.estimate_seconds_left(20.0) == pytest.approx(20.0 * 6)
    progress.add_trials([make_job("b", 9)])
    assert progress.estimate_seconds_left(20.0) == pytest.approx(20.0 * 7)
