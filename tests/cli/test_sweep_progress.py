"""Run with `pytest tests/cli/test_sweep_progress.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dirtune.cli.sweep_progress import Tally
from dirtune.config import TrialConfig
from dirtune.training.trial import TrialJob
from dirtune.tuning.plan.checks import Plan
from dirtune.tuning.search.queue import Ending
from tests.cli.test_display import plan

EPOCHS = 4


def complete(value: float) -> Ending:
    return Ending(status="complete", objective=value)


def job(arm: str = "a", seed: int = 0) -> TrialJob:
    plain = {
        "data": {"name": "digits"},
        "model": {"encoder": {"name": "cnn"}},
        "recipe": {"epochs": EPOCHS},
        "seed": seed,
    }
    config = TrialConfig.model_validate(plain)
    return TrialJob(study="tiny", arm=arm, trial_id=f"{arm}-{seed}", config=config)


def planned(**changes: object) -> Plan:
    return replace(plan(), trials={"a": 4, "b": 4}, **changes)


def test_trials_are_counted_by_arm_and_state_from_the_records_on() -> None:
    pruned, failed = Ending(status="pruned", objective=9.0), Ending(status="failed", objective=None)
    tally = Tally(planned(earlier=(("a", complete(3.0)), ("a", pruned), ("gone", complete(1.0)))))
    tally.epoch(job("a", 2), 1)
    tally.epoch(job("b", 2), 2)
    tally.ended(job("b", 2), failed)
    assert (tally.planned, tally.done) == (8, 3)
    assert tally.arms["a"].ended == {"complete": 1, "pruned": 1}
    assert tally.arms["b"].ended == {"failed": 1}
    assert [(each.seed, each.epoch, each.epochs) for each in tally.arms["a"].running.values()] == [(2, 1, EPOCHS)]
    assert tally.arms["b"].running == {}
    assert "gone" not in tally.arms


@pytest.mark.parametrize(("metric", "best"), [("mae", 3.0), ("pearson", 5.0)])
def test_the_best_of_an_arm_is_that_of_a_complete_trial(metric: str, best: float) -> None:
    found = plan(objective={"metric": metric})
    tally = Tally(replace(found, trials={"a": 4}))
    for seed, value in enumerate([5.0, 3.0, 4.0]):
        tally.ended(job("a", seed), complete(value))
    tally.ended(job("a", 3), Ending(status="pruned", objective=1.0 if metric == "mae" else 9.0))
    assert tally.arms["a"].best == best


def test_the_time_left_follows_from_the_pace_of_trials_and_epochs() -> None:
    tally = Tally(planned(earlier=(("a", complete(1.0)),)))
    assert tally.seconds_left(5.0) is None
    # Half a trial of seven in ten seconds
    tally.epoch(job("a", 1), 2)
    assert tally.seconds_left(10.0) == pytest.approx(10.0 * 6.5 / 0.5)
    tally.ended(job("a", 1), complete(1.0))
    assert tally.seconds_left(20.0) == pytest.approx(20.0 * 6)
    tally.further([job("b", 9)])
    assert tally.seconds_left(20.0) == pytest.approx(20.0 * 7)
