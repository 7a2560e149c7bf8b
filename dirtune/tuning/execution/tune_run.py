"""One run of Ray Tune for a driver: what Tune asks is passed on, what it would do on its own is switched off.

Tune asks for trials (`_Suggestions`), tells what happened to them (`_Events`), decides about them
(`dirtune.tuning.execution.scheduler`) and is told when to end before they do (`_Stopped`). Its own way to end, on Ctrl-C, would cut
epochs short and keep the workers of a group waiting for an answer; `dirtune.tuning.folder.stop_request` has another one.
"""

from __future__ import annotations

import signal
import tempfile
from pathlib import Path
from typing import Any

import ray
from ray import cloudpickle, tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from dirtune.data.blocks import Blocks
from dirtune.process import restore_handlers, set_environment, silence_loggers
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution.concurrency import Slots
from dirtune.tuning.execution.driver import Driver
from dirtune.tuning.execution.placement_groups import settled_placement_groups
from dirtune.tuning.execution.reservations import Reservations
from dirtune.tuning.execution.scheduler import build_scheduler
from dirtune.tuning.execution.trainable import JOB, RESULT, TrialWorker
from dirtune.tuning.execution.worker import StepResult, WorkerSettings
from dirtune.tuning.folder.learning_curves import earlier_trials

# All workers start at once, and Tune writes no log files, tables and snapshots: the study's folder holds all that.
TUNE_SETTINGS = {
    # Beside a searcher Tune would start one worker after another; how many trials there are the driver decides.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}

# A trial whose worker died goes on from its checkpoint on another one, so often.
WORKER_RESTARTS = 2


def run_with_tune(study: ResolvedStudy, driver: Driver, settings: WorkerSettings, blocks: Blocks, slots: Slots) -> None:
    """Run the driver's whole agenda with Ray Tune on resident workers.

    Raises:
        KeyboardInterrupt: the second Ctrl-C; the workers are killed, and what they have written is what `resume` goes on from.
    """
    groups = Reservations(settings.resources, settings.workers) if settings.workers > 1 else None
    events = _Events(driver, slots, groups)
    with (
        tempfile.TemporaryDirectory(prefix="dirtune-tune-") as scratch,
        set_environment(TUNE_SETTINGS),
        silence_loggers("ray.tune", "ray.air"),
        settled_placement_groups(),
        # Tune leaves its own
        restore_handlers(signal.SIGUSR1),
    ):
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialWorker, settings=settings, blocks=blocks), _resources(settings)
            ),
            tune_config=tune.TuneConfig(
                search_alg=_Suggestions(driver),
                num_samples=-1,
                scheduler=build_scheduler(study, earlier_trials(driver.folder, study)),
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=_trial_name,
            ),
            run_config=tune.RunConfig(
                name=study.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[events],
                stop=_Stopped(driver),
                failure_config=tune.FailureConfig(max_failures=WORKER_RESTARTS),
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            events.kill_workers()
            raise
        if groups is not None:
            groups.give_back_all()


class _Suggestions(Searcher):
    """Tune's view of the agenda."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = self._driver.start()
        if job is not None:
            return {JOB: job}
        return str(Searcher.FINISHED) if self._driver.is_finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The callback below sees the trial itself."""

    def save(self, checkpoint_path: str) -> None:
        """Tune's state is a cache; the disk is the truth."""

    def restore(self, checkpoint_path: str) -> None:
        """Never called: a sweep is resumed from its folder."""


class _Events(tune.Callback):
    """Tune's events, passed on to the driver."""

    def __init__(self, driver: Driver, slots: Slots, groups: Reservations | None) -> None:
        self._driver, self._slots, self._groups = driver, slots, groups
        self._trials: list[Trial] = []
        # By Tune's trial, those that have not ended
        self._jobs: dict[str, TrialJob] = {}
        # Since the last step
        self._ended: list[Trial] = []

    def kill_workers(self) -> None:
        """End the processes of all trials at once; a joined Ray would keep them as long as this process lives."""
        for trial in self._trials:
            if (actor := trial.temporary_state.ray_actor) is not None:
                ray.kill(actor)
        if self._groups is not None:
            self._groups.give_back_all()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._trials = trials
        for trial in self._ended:
            # Tune keeps all trials with their last results and averages of each number: 60 kB a trial.
            known = trial.run_metadata
            known.last_result, known.metric_analysis, known.metric_n_steps = {}, {}, {}
        self._ended.clear()
        self._driver.concurrent = self._slots.now()
        self._driver.look()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        job: TrialJob = trial.config[JOB]
        self._jobs[trial.trial_id] = job
        self._driver.training(job)
        if self._groups is not None:
            self._groups.start(trial.trial_id, trial.temporary_state.ray_actor._actor_id.hex())

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._driver.recovering(trial.config[JOB], _error_of(trial))
        if self._groups is not None:
            self._groups.lose(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        job, step = trial.config[JOB], _result_of(result)
        if self._groups is not None and step.reservation is not None:
            self._groups.report(trial.trial_id, step.reservation)
        if step.failure is None:
            self._driver.epoch(job, step)
        if step.has_ended:
            del self._jobs[trial.trial_id]
            self._driver.ended(job, step)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ended.append(trial)
        job = self._jobs.pop(trial.trial_id, None)
        # The scheduler has stopped it; after an outage it continues from its checkpoint when the sweep is resumed.
        if job is not None and self._driver.outage is None:
            self._driver.ended(job, _result_of(trial.last_result))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._jobs.pop(trial.trial_id, None)
        self._driver.crash(trial.config[JOB], _error_of(trial))
        if self._groups is not None:
            self._groups.lose(trial.trial_id)


def _result_of(tune_result: dict[str, Any]) -> StepResult:
    step: StepResult = tune_result[RESULT]
    return step


def _error_of(trial: Trial) -> BaseException:
    """What ended a trial; Tune's own getters look where its file arrives only when the run ends."""
    if trial.pickled_error_file is not None:
        error: BaseException = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    return RuntimeError("the worker died" if trial.error_file is None else Path(trial.error_file).read_text())


class _Stopped(tune.Stopper):
    """Ends the run when the driver's sweep has been asked to end; trials that have no worker yet are not waited for."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._driver.is_stopped


def _resources(settings: WorkerSettings) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial; a group reserves its own, and `capacity` has counted it."""
    # Tune refuses to reserve nothing
    one_byte = {"memory": 1.0}
    return tune.PlacementGroupFactory([one_byte if settings.workers > 1 else settings.resources])


def _trial_name(trial: Trial) -> str:
    return str(trial.config[JOB].trial_id)
