"""Run with `pytest tests/tuning/execution/test_scheduler.py`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import median
from typing import Any

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from dirtune.results.records.schema import Role
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution.scheduler import EPOCH, PerArmScheduler, build_scheduler
from dirtune.tuning.execution.trainable import JOB, RESULT
from dirtune.tuning.execution.worker import StepResult
from dirtune.tuning.folder.records import LearningCurves

CONTINUE, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP
OMEGA = {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}}


def study(**changes: Any) -> ResolvedStudy:
    """Two searched arms (conr, wide) and a fixed one, halved by two after every epoch that is a power of two."""
    raw = {
        "name": "tiny",
        "question": "?",
        "reference": "vanilla",
        "seeds": [0],
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}, "recipe": {"epochs": 8}},
        "arms": {
            "vanilla": {},
            "conr": {"terms": {"conr": {}}},
            "wide": {"terms": {"conr": {}}, "model": {"projection_dim": 8}},
        },
        "search": {"scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}},
        "space": OMEGA,
    }
    return resolve({**raw, **changes}, where="test")


def tune_trial(arm: str, trial_id: str = "t", role: Role = "evaluation") -> Trial:
    config = next(each.config for each in study().arms if each.name == arm)
    job = TrialJob(study="tiny", arm=arm, trial_id=trial_id, role=role, config=config)
    return Trial("trial_worker", config={JOB: job}, stub=True)


def tune_result(epoch: int, objective: float | None) -> dict[str, Any]:
    return {RESULT: StepResult(trial_id="t", epoch=epoch, objective=objective)}


class Running:
    """Trials of a study under its scheduler, as Tune would drive them."""

    def __init__(self, scheduler: PerArmScheduler) -> None:
        self.scheduler = scheduler

    def start(self, arm: str) -> Trial:
        trial = tune_trial(arm)
        self.scheduler.on_trial_add(None, trial)
        return trial

    def report(self, trial: Trial, epoch: int, objective: float | None) -> str:
        return self.scheduler.on_trial_result(None, trial, tune_result(epoch, objective))

    def first_epoch(self, arm: str, objective: float | None) -> str:
        return self.report(self.start(arm), 1, objective)


@pytest.fixture
def running() -> Running:
    return Running(build_scheduler(study()))


def halved(values: list[float]) -> Iterator[str]:
    """Asynchronous halving at one rung: stop what is worse than the median of those that came before."""
    for position, value in enumerate(values):
        yield STOP if position and value > median(values[:position]) else CONTINUE


class Waiting:
    """What a scheduler sees of a Tune that has one trial without a worker."""

    def get_trials(self) -> list[Trial]:
        return [tune_trial("conr")]


def test_no_trial_is_named_to_which_tune_would_give_a_free_worker_although_one_is_starting_for_it() -> None:
    assert FIFOScheduler().choose_trial_to_run(Waiting()) is not None
    assert build_scheduler(study()).choose_trial_to_run(Waiting()) is None


def test_every_arm_is_halved_as_if_it_were_alone(running: Running) -> None:
    generator = random.Random(0)
    values = {arm: [generator.gauss(level, 1) for _ in range(40)] for arm, level in (("conr", 5.0), ("wide", 500.0))}
    order = [arm for arm in values for _ in range(40)]
    generator.shuffle(order)
    left = {arm: iter(found) for arm, found in values.items()}
    decisions: dict[str, list[str]] = {arm: [] for arm in values}
    for arm in order:
        decisions[arm].append(running.first_epoch(arm, next(left[arm])))
    for arm, found in values.items():
        assert decisions[arm] == list(halved(found))
        assert 5 < decisions[arm].count(STOP) < 35


def test_the_trials_of_a_hopeless_arm_are_not_stopped_for_a_better_arm(running: Running) -> None:
    for value in (1.0, 1.1, 1.2):
        running.first_epoch("conr", value)
    assert running.first_epoch("wide", 900.0) == CONTINUE
    assert running.first_epoch("wide", 800.0) == CONTINUE
    assert running.first_epoch("wide", 950.0) == STOP


def test_later_rungs_compare_trials_of_equal_age(running: Running) -> None:
    old, young = running.start("conr"), running.start("conr")
    assert [running.report(old, epoch, 10.0 - epoch) for epoch in (1, 2, 3)] == [CONTINUE] * 3
    # Worse than the other is now, better than it was after one epoch.
    assert running.report(young, 1, 8.5) == CONTINUE
    # The other had 8.0 after two
    assert running.report(young, 2, 8.4) == STOP


def test_where_more_is_better_the_small_values_are_stopped() -> None:
    running = Running(build_scheduler(study(objective={"metric": "pearson"})))
    decisions = [running.first_epoch("conr", value) for value in (0.5, 0.4, 0.9)]
    assert decisions == [CONTINUE, STOP, CONTINUE]


def test_an_arm_with_nothing_to_tune_runs_every_trial_to_its_end(running: Running) -> None:
    assert "vanilla" not in running.scheduler.by_arm
    assert [running.first_epoch("vanilla", value) for value in (1.0, 9.0, 99.0)] == [CONTINUE] * 3


def test_without_a_scheduler_in_the_study_no_trial_is_stopped() -> None:
    running = Running(build_scheduler(study(search={"trials": 4})))
    assert running.scheduler.by_arm == {}
    assert [running.first_epoch("conr", value) for value in (1.0, 9.0, 99.0)] == [CONTINUE] * 3


def test_a_result_without_an_objective_continues_and_does_not_count(running: Running) -> None:
    assert running.first_epoch("conr", 1.0) == CONTINUE
    trial = running.start("conr")
    assert running.report(trial, 1, None) == CONTINUE
    running.scheduler.on_trial_complete(None, trial, tune_result(1, None))
    assert running.first_epoch("conr", 1.5) == STOP
    # The median of 1.0 and 1.5 is 1.25
    assert running.first_epoch("conr", 1.2) == CONTINUE


def test_a_trial_that_ended_at_a_rung_counts_there(running: Running) -> None:
    trial = running.start("conr")
    running.scheduler.on_trial_complete(None, trial, tune_result(1, 1.0))
    assert running.first_epoch("conr", 1.1) == STOP


def test_the_rungs_are_those_of_the_study() -> None:
    search = {"scheduler": {"name": "asha", "grace_epochs": 4, "reduction_factor": 2}}
    running = Running(build_scheduler(study(search=search)))
    good, bad = running.start("conr"), running.start("conr")
    decisions = []
    for epoch in range(1, 5):
        assert running.report(good, epoch, 1.0) == CONTINUE
        decisions.append(running.report(bad, epoch, 5.0))
    assert decisions == [CONTINUE, CONTINUE, CONTINUE, STOP]


def test_the_scheduler_says_which_arms_it_halves(running: Running) -> None:
    assert running.scheduler.debug_string() == "one scheduler per arm: conr, wide"


MEDIAN = {"scheduler": {"name": "median", "grace_epochs": 2, "min_trials": 3}}


def stopped_by_median(curves: list[list[float]], grace: int, needed: int) -> list[int | None]:
    """The epoch at which each trial, run one after another, stops: best so far worse than the median of running means."""
    before: list[list[float]] = []
    stops: list[int | None] = []
    for curve in curves:
        stop = None
        # Nobody asks about the last one
        for epoch in range(grace, len(curve)):
            others = [other for other in before if len(other) >= epoch]
            means = [sum(other[grace - 1 : epoch]) / (epoch - grace + 1) for other in others]
            if len(means) >= needed and min(curve[:epoch]) > median(means):
                stop = epoch
                break
        stops.append(stop)
        before.append(curve[:stop])
    return stops


def noisy_curves(count: int) -> list[list[float]]:
    generator = random.Random(1)
    levels = [generator.uniform(1, 9) for _ in range(count)]
    return [[level + generator.uniform(-2, 2) for _ in range(8)] for level in levels]


def run_alone(running: Running, arm: str, curve: list[float]) -> int | None:
    trial = running.start(arm)
    for epoch, value in enumerate(curve, start=1):
        result = tune_result(epoch, value)
        # Tune asks no scheduler about a trial that has ended by itself
        if epoch == len(curve):
            running.scheduler.on_trial_complete(None, trial, result)
        elif running.report(trial, epoch, value) == STOP:
            running.scheduler.on_trial_complete(None, trial, result)
            return epoch
    return None


def test_the_median_rule_stops_what_is_worse_than_the_median_of_its_own_arm() -> None:
    curves = noisy_curves(12)
    running = Running(build_scheduler(study(search=MEDIAN)))
    # Another arm, and far better
    run_alone(running, "wide", [0.0] * 8)
    found = [run_alone(running, "conr", curve) for curve in curves]
    assert found == stopped_by_median([curve[:8] for curve in curves], grace=2, needed=3)
    assert 2 <= sum(stop is not None for stop in found) <= 10


def decisions(running: Running, arm: str, curves: list[list[float]]) -> list[int | None]:
    return [run_alone(running, arm, curve) for curve in curves]


@pytest.mark.parametrize("search", [MEDIAN, {"scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}}])
@pytest.mark.parametrize("goes_on_at", [2, 4])
def test_a_resumed_scheduler_decides_as_if_nothing_had_been_interrupted(
    search: dict[str, Any], goes_on_at: int
) -> None:
    curves = noisy_curves(14)
    # Good enough to be still running when the driver dies
    curves[7][:goes_on_at] = [0.5] * goes_on_at
    whole = decisions(Running(build_scheduler(study(search=search))), "conr", curves)
    assert {None} < set(whole[8:])
    ended = [list(enumerate(curve[:stop], start=1)) for curve, stop in zip(curves[:7], whole[:7], strict=True)]
    started = {"t7": list(enumerate(curves[7], start=1))[: goes_on_at + 1]}
    earlier = LearningCurves(recorded={"conr": ended}, in_progress=started)
    running = Running(build_scheduler(study(search=search), earlier))
    trial = tune_trial("conr", "t7")
    running.scheduler.on_trial_add(None, trial)
    stopped = None
    # Its last checkpoint is an epoch older than its progress, which therefore comes again.
    for epoch in range(goes_on_at + 1, 8):
        if running.report(trial, epoch, curves[7][epoch - 1]) == STOP:
            stopped = epoch
            break
    else:
        last = tune_result(8, curves[7][7])
        running.scheduler.on_trial_complete(None, trial, last)
    assert [stopped, *decisions(running, "conr", curves[8:])] == whole[7:]


def test_what_confirms_a_selection_is_never_stopped() -> None:
    search = {**MEDIAN, "confirm": True, "tuning_seed": 9}
    scheduler = build_scheduler(study(search=search))
    running = Running(scheduler)
    decisions: tuple[tuple[Role, str], ...] = (("search", STOP), ("evaluation", CONTINUE))
    for role, decision in decisions:
        for value in (1.0, 1.0, 1.0, 9.0):
            trial = tune_trial("conr", role=role)
            scheduler.on_trial_add(None, trial)
            last = running.report(trial, 2, value)
        assert last == decision


def test_a_worker_that_was_replaced_and_repeats_epochs_counts_once() -> None:
    running = Running(build_scheduler(study(search=MEDIAN)))
    trial = running.start("conr")
    for epoch, value in ((1, 1.0), (2, 2.0), (1, 1.0), (2, 2.0), (3, 3.0)):
        running.report(trial, epoch, value)
    (results,) = running.scheduler.by_arm["conr"]._results.values()
    assert [result[EPOCH] for result in results] == [1, 2, 3]
