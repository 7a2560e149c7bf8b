"""The driver's side of a running sweep: hands trials to Tune, records what workers cannot, counts.

Tune asks for trials (`_Suggestions`), tells what happened to them (`_Endings`) and decides about them
(`dirtune.tuning.scheduler`); everything that must survive is in the study's folder.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from dirtune.data.stream import Blocks
from dirtune.interrupts import handlers_put_back
from dirtune.results.schema import Status
from dirtune.results.store import write_record
from dirtune.storage import Storage
from dirtune.training.trial import Progress, TrialJob, read_progress, tidy
from dirtune.tuning.earlier import earlier_trials
from dirtune.tuning.preflight import Plan
from dirtune.tuning.scheduler import ARM, EPOCH, JOB, OBJECTIVE, build_scheduler
from dirtune.tuning.search import Agenda, Ending
from dirtune.tuning.study import ResolvedStudy
from dirtune.tuning.trainable import TrialWorker
from dirtune.tuning.worker import WorkerSettings

CRASHES_TO_STOP = 3
WORKER_RESTARTS = (
    2  # a trial whose worker died goes on from its checkpoint on another one, so often
)


class View(Protocol):
    """Whoever wants to see a sweep run: a progress bar, a log, a test."""

    def begin(self, plan: Plan) -> None: ...

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None: ...

    def ended(self, job: TrialJob, ending: Ending) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, plan: Plan) -> None:
        """Nothing."""

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        """Nothing."""

    def ended(self, job: TrialJob, ending: Ending) -> None:
        """Nothing."""


@dataclass
class Driver:
    """Hands out the trials of an agenda and takes in their endings."""

    agenda: Agenda
    folder: Storage
    view: View
    concurrent: int
    counts: dict[Status, int] = field(default_factory=dict)
    crashed: dict[str, str] = field(default_factory=dict)
    _running: set[str] = field(default_factory=set)
    _crashes_in_a_row: int = 0

    @property
    def is_finished(self) -> bool:
        """Nothing is left to start, or workers die one after another before their first epoch."""
        return self.agenda.is_empty or self._crashes_in_a_row >= CRASHES_TO_STOP

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles what it is given, for a restore of its own that is never used here.
        return {}

    def start(self) -> TrialJob | None:
        """The next trial, if a slot is free and one is left."""
        if self.is_finished or len(self._running) >= self.concurrent:
            return None
        job = self.agenda.next()  # only now: Optuna shall know as much as it can
        if job is not None:
            self._running.add(job.trial_id)
        return job

    def epoch(self, job: TrialJob, result: Mapping[str, Any]) -> None:
        self._crashes_in_a_row = 0
        objective = result.get(OBJECTIVE)
        self.agenda.report(job, result[EPOCH], objective)
        self.view.epoch(job, result[EPOCH], objective)

    def ended(self, job: TrialJob, result: Mapping[str, Any]) -> None:
        """A trial ended by itself (then it is recorded) or was stopped by the scheduler (then it is recorded here)."""
        status: Status = result.get("status") or "pruned"
        if status == "pruned":
            write_record(self.folder, self._progress_of(job).record("pruned"))
            tidy(self.folder, job.trial_id)
        self._finish(job, Ending(status=status, objective=result.get("best_objective")))

    def crash(self, job: TrialJob) -> None:
        """The worker died. Nothing is recorded: the trial goes on from its checkpoint when the sweep is resumed."""
        self.crashed[job.trial_id] = "the worker died"
        self._running.discard(job.trial_id)
        self._crashes_in_a_row += 1
        self.agenda.lose(job)

    def _progress_of(self, job: TrialJob) -> Progress:
        progress = read_progress(self.folder, job.trial_id)
        assert progress is not None, "a trial that has reported has written its progress"
        return progress

    def _finish(self, job: TrialJob, ending: Ending) -> None:
        self._running.discard(job.trial_id)
        self.counts[ending.status] = self.counts.get(ending.status, 0) + 1
        self.agenda.tell(job, ending)
        self.view.ended(job, ending)


class _Suggestions(Searcher):
    """Tune's view of the agenda."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = self._driver.start()
        if job is not None:
            return {JOB: job, ARM: job.arm}
        return str(Searcher.FINISHED) if self._driver.is_finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """The callback below sees the trial itself."""

    def save(self, checkpoint_path: str) -> None:
        """Tune's state is a cache; the disk is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a sweep is resumed from its folder."""


class _Endings(tune.Callback):
    """Tune's events, passed on to the driver."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        self._driver.epoch(trial.config[JOB], result)

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._driver.ended(trial.config[JOB], trial.last_result)

    def on_trial_error(
        self, iteration: int, trials: list[Trial], trial: Trial, **info: Any
    ) -> None:
        self._driver.crash(trial.config[JOB])

    def on_experiment_end(self, trials: list[Trial], **info: Any) -> None:
        for trial in trials:  # only now does Tune say why
            trial_id, error = trial.config[JOB].trial_id, trial.get_error()
            if trial_id in self._driver.crashed and error is not None:
                self._driver.crashed[trial_id] = _reason(str(error))


def _reason(error: str) -> str:
    """The first sentence of the last line of a remote traceback, which names the exception."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    return lines[-1].split(". ")[0] if lines else "the worker died"


def run_with_tune(
    study: ResolvedStudy, driver: Driver, settings: WorkerSettings, blocks: Blocks
) -> None:
    """Run the driver's whole agenda with Ray Tune on resident workers."""
    with (
        tempfile.TemporaryDirectory(prefix="dirtune-tune-") as scratch,
        _tune_settings(driver.concurrent),
        # Tune leaves its own, and the next Ctrl-C in this process would only tell a sweep that is over to end.
        handlers_put_back(signal.SIGINT, signal.SIGUSR1),
    ):
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialWorker, settings=settings, blocks=blocks), _resources(study)
            ),
            tune_config=tune.TuneConfig(
                search_alg=_Suggestions(driver), num_samples=-1,
                scheduler=build_scheduler(study, earlier_trials(driver.folder, study)),
                reuse_actors=True, trial_name_creator=_trial_name, trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=study.name, storage_path=scratch, verbose=0, callbacks=[_Endings(driver)],
                failure_config=tune.FailureConfig(max_failures=WORKER_RESTARTS),
            ),
        )  # fmt: skip
        tuner.fit()


def _resources(study: ResolvedStudy) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial; a group reserves its own, and `capacity` has counted it."""
    need = study.study.resources
    if need.workers > 1:
        return tune.PlacementGroupFactory(
            [{"memory": 1}]
        )  # one byte: Tune refuses to reserve nothing
    return tune.PlacementGroupFactory(
        [{"CPU": need.cpus, **({"GPU": need.gpus} if need.gpus else {})}]
    )


def _trial_name(trial: Trial) -> str:
    return str(trial.config[JOB].trial_id)


@contextlib.contextmanager
def _tune_settings(concurrent: int) -> Iterator[None]:
    """All workers start at once, and Tune writes no log files, tables and snapshots: the study's folder holds all that."""
    settings = {
        # Beside a searcher Tune would start one worker after another; how many trials there are the driver decides.
        "TUNE_MAX_PENDING_TRIALS_PG": str(concurrent),
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    loggers = [logging.getLogger("ray.tune"), logging.getLogger("ray.air")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
