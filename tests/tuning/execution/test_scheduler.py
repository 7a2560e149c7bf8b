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


def make_study(**changes: Any) -> ResolvedStudy:
    """Return a study of two searched arms (conr, wide) and a fixed one; ASHA halves them after epochs 1, 2 and 4."""
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


def make_tune_trial(arm: str, trial_id: str = "t", role: Role = "evaluation") -> Trial:
    config = next(each.config for each in make_study().arms if each.name == arm)
    job = TrialJob(study="tiny", arm=arm, trial_id=trial_id, role=role, config=config)
    return Trial("trial_worker", config={JOB: job}, stub=True)


def make_tune_result(epoch: int, objective: float | None) -> dict[str, Any]:
    return {RESULT: StepResult(trial_id="t", epoch=epoch, objective=objective)}


class SimulatedTune:
    """Trials of a study under its scheduler, as Tune would drive them."""

    def __init__(self, scheduler: PerArmScheduler) -> None:
        self.scheduler = scheduler

    def start(self, arm: str) -> Trial:
        trial = make_tune_trial(arm)
        self.scheduler.on_trial_add(None, trial)
        return trial

    def report(self, trial: Trial, epoch: int, objective: float | None) -> str:
        return self.scheduler.on_trial_result(None, trial, make_tune_result(epoch, objective))

    def run_first_epoch(self, arm: str, objective: float | None) -> str:
        return self.report(self.start(arm), 1, objective)


@pytest.fixture
def running() -> SimulatedTune:
    return SimulatedTune(build_scheduler(make_study()))


def simulate_halving(values: list[float]) -> Iterator[str]:
    """Yield the decisions of asynchronous halving at one rung: stop values worse than the median of the earlier ones."""
    for position, value in enumerate(values):
        yield STOP if position and value > median(values[:position]) else CONTINUE


class TuneWithPendingTrial:
    """The part of Tune's controller that a scheduler reads; it has one trial without a worker."""

    def get_trials(self) -> list[Trial]:
        return [make_tune_trial("conr")]


def test_no_trial_is_chosen_so_that_a_worker_that_is_starting_is_not_replaced_by_a_free_one() -> None:
    assert FIFOScheduler().choose_trial_to_run(TuneWithPendingTrial()) is not None
    assert build_scheduler(make_study()).choose_trial_to_run(TuneWithPendingTrial()) is None


def test_every_arm_is_halved_as_if_it_were_alone(running: SimulatedTune) -> None:
    generator = random.Random(0)
    values = {arm: [generator.gauss(level, 1) for _ in range(40)] for arm, level in (("conr", 5.0), ("wide", 500.0))}
    order = [arm for arm in values for _ in range(40)]
    generator.shuffle(order)
    left = {arm: iter(found) for arm, found in values.items()}
    decisions: dict[str, list[str]] = {arm: [] for arm in values}
    for arm in order:
        decisions[arm].append(running.run_first_epoch(arm, next(left[arm])))
    for arm, found in values.items():
        assert decisions[arm] == list(simulate_halving(found))
        assert 5 < decisions[arm].count(STOP) < 35


def test_the_trials_of_a_hopeless_arm_are_not_stopped_for_a_better_arm(running: SimulatedTune) -> None:
    for value in (1.0, 1.1, 1.2):
        running.run_first_epoch("conr", value)
    assert running.run_first_epoch("wide", 900.0) == CONTINUE
    assert running.run_first_epoch("wide", 800.0) == CONTINUE
    assert running.run_first_epoch("wide", 950.0) == STOP


def test_later_rungs_compare_trials_of_equal_age(running: SimulatedTune) -> None:
    old, young = running.start("conr"), running.start("conr")
    assert [running.report(old, epoch, 10.0 - epoch) for epoch in (1, 2, 3)] == [CONTINUE] * 3
    # Worse than the other is now, better than it was after one epoch.
    assert running.report(young, 1, 8.5) == CONTINUE
    # The other had 8.0 after two
    assert running.report(young, 2, 8.4) == STOP


def test_small_values_are_stopped_if_more_is_better() -> None:
    running = SimulatedTune(build_scheduler(make_study(objective={"metric": "pearson"})))
    decisions = [running.run_first_epoch("conr", value) for value in (0.5, 0.4, 0.9)]
    assert decisions == [CONTINUE, STOP, CONTINUE]


def test_an_arm_with_nothing_to_tune_runs_every_trial_to_its_end(running: SimulatedTune) -> None:
    assert "vanilla" not in running.scheduler.by_search
    assert [running.run_first_epoch("vanilla", value) for value in (1.0, 9.0, 99.0)] == [CONTINUE] * 3


def test_without_a_scheduler_in_the_study_no_trial_is_stopped() -> None:
    running = SimulatedTune(build_scheduler(make_study(search={"trials": 4})))
    assert running.scheduler.by_search == {}
    assert [running.run_first_epoch("conr", value) for value in (1.0, 9.0, 99.0)] == [CONTINUE] * 3


def test_a_result_without_an_objective_continues_and_does_not_count(running: SimulatedTune) -> None:
    assert running.run_first_epoch("conr", 1.0) == CONTINUE
    trial = running.start("conr")
    assert running.report(trial, 1, None) == CONTINUE
    running.scheduler.on_trial_complete(None, trial, make_tune_result(1, None))
    assert running.run_first_epoch("conr", 1.5) == STOP
    # The median of 1.0 and 1.5 is 1.25
    assert running.run_first_epoch("conr", 1.2) == CONTINUE


def test_a_trial_that_ended_at_a_rung_counts_there(running: SimulatedTune) -> None:
    trial = running.start("conr")
    running.scheduler.on_trial_complete(None, trial, make_tune_result(1, 1.0))
    assert running.run_first_epoch("conr", 1.1) == STOP


def test_the_rungs_are_those_of_the_study() -> None:
    search = {"scheduler": {"name": "asha", "grace_epochs": 4, "reduction_factor": 2}}
    running = SimulatedTune(build_scheduler(make_study(search=search)))
    good, bad = running.start("conr"), running.start("conr")
    decisions = []
    for epoch in range(1, 5):
        assert running.report(good, epoch, 1.0) == CONTINUE
        decisions.append(running.report(bad, epoch, 5.0))
    assert decisions == [CONTINUE, CONTINUE, CONTINUE, STOP]


def test_the_debug_string_names_the_scheduled_arms(running: SimulatedTune) -> None:
    assert running.scheduler.debug_string() == "one scheduler per arm: conr, wide"


MEDIAN = {"scheduler": {"name": "median", "grace_epochs": 2, "min_trials": 3}}


def simulate_median_rule(curves: list[list[float]], grace: int, needed: int) -> list[int | None]:
    """Return the epoch at which each trial stops: its best so far is worse than the median of the running means."""
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


def make_noisy_curves(count: int) -> list[list[float]]:
    generator = random.Random(1)
    levels = [generator.uniform(1, 9) for _ in range(count)]
    return [[level + generator.uniform(-2, 2) for _ in range(8)] for level in levels]


def run_trial(running: SimulatedTune, arm: str, curve: list[float]) -> int | None:
    trial = running.start(arm)
    for epoch, value in enumerate(curve, start=1):
        result = make_tune_result(epoch, value)
        # Tune asks no scheduler about a trial that has ended by itself
        if epoch == len(curve):
            running.scheduler.on_trial_complete(None, trial, result)
        elif running.report(trial, epoch, value) == STOP:
            running.scheduler.on_trial_complete(None, trial, result)
            return epoch
    return None


def test_the_median_rule_stops_trials_worse_than_the_median_of_their_own_arm() -> None:
    curves = make_noisy_curves(12)
    running = SimulatedTune(build_scheduler(make_study(search=MEDIAN)))
    # Another arm, and far better
    run_trial(running, "wide", [0.0] * 8)
    found = [run_trial(running, "conr", curve) for curve in curves]
    assert found == simulate_median_rule([curve[:8] for curve in curves], grace=2, needed=3)
    assert 2 <= sum(stop is not None for stop in found) <= 10


def run_trials(running: SimulatedTune, arm: str, curves: list[list[float]]) -> list[int | None]:
    return [run_trial(running, arm, curve) for curve in curves]


@pytest.mark.parametrize("search", [MEDIAN, {"scheduler": {"name": "asha", "grace_epochs": 1, "reduction_factor": 2}}])
@pytest.mark.parametrize("goes_on_at", [2, 4])
def test_a_resumed_scheduler_decides_as_if_nothing_had_been_interrupted(
    search: dict[str, Any], goes_on_at: int
) -> None:
    curves = make_noisy_curves(14)
    # Good enough to be still running when the driver dies
    curves[7][:goes_on_at] = [0.5] * goes_on_at
    whole = run_trials(SimulatedTune(build_scheduler(make_study(search=search))), "conr", curves)
    assert {None} < set(whole[8:])
    ended = [list(enumerate(curve[:stop], start=1)) for curve, stop in zip(curves[:7], whole[:7], strict=True)]
    started = {"t7": list(enumerate(curves[7], start=1))[: goes_on_at + 1]}
    earlier = LearningCurves(recorded={"conr": ended}, in_progress=started)
    running = SimulatedTune(build_scheduler(make_study(search=search), earlier))
    trial = make_tune_trial("conr", "t7")
    running.scheduler.on_trial_add(None, trial)
    stopped = None
    # Its last checkpoint is an epoch older than its progress, which therefore comes again.
    for epoch in range(goes_on_at + 1, 8):
        if running.report(trial, epoch, curves[7][epoch - 1]) == STOP:
            stopped = epoch
            break
    else:
        last = make_tune_result(8, curves[7][7])
        running.scheduler.on_trial_complete(None, trial, last)
    assert [stopped, *run_trials(running, "conr", curves[8:])] == whole[7:]


def test_trials_that_evaluate_a_selection_are_never_stopped() -> None:
    search = {**MEDIAN, "confirm": True, "tuning_seed": 9}
    scheduler = build_scheduler(make_study(search=search))
    running = SimulatedTune(scheduler)
    decisions: tuple[tuple[Role, str], ...] = (("search", STOP), ("evaluation", CONTINUE))
    for role, decision in decisions:
        for value in (1.0, 1.0, 1.0, 9.0):
            trial = make_tune_trial("conr", role=role)
            scheduler.on_trial_add(None, trial)
            last = running.report(trial, 2, value)
        assert last == decision


def test_a_worker_that_was_replaced_and_repeats_epochs_counts_once() -> None:
    running = SimulatedTune(build_scheduler(make_study(search=MEDIAN)))
    trial = running.start("conr")
    for epoch, value in ((1, 1.0), (2, 2.0), (1, 1.0), (2, 2.0), (3, 3.0)):
        running.report(trial, epoch, value)
    (results,) = running.scheduler.by_search["conr"]._results.values()
    assert [result[EPOCH] for result in results] == [1, 2, 3]
