"""One run of Ray Tune for a driver: Tune's calls are forwarded, and what Tune would do on its own is switched off.

Tune asks for trials (`_QueueSearcher`), reports their events (`_DriverCallback`), schedules them
(`dirtune.tuning.execution.scheduler`), and asks whether to stop (`_DriverStopper`). Its own reaction to Ctrl-C would cut epochs
short and leave the workers of a group waiting for a reply; `dirtune.tuning.folder.stop_request` replaces it.
"""

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
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution import device_faults, ray_workarounds, scheduler, worker
from dirtune.tuning.execution.concurrency import Concurrency
from dirtune.tuning.execution.driver import Driver
from dirtune.tuning.execution.trainable import JOB, RESULT, TrialWorker
from dirtune.tuning.folder.records import read_learning_curves

TUNE_SETTINGS = {
    # With a searcher, Tune would start one worker after another; the driver limits the number of trials.
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",
    # The study's folder has all logs, tables and snapshots.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}
STEPS_TO_REQUEST_WORKERS = 10
"""Steps of Tune, of a tenth of a second each while nothing happens, after which it has requested all workers that fit."""
WORKER_RESTARTS = 2
"""Number of times that a trial whose worker died resumes from its checkpoint on another worker, before it fails."""


def run_with_tune(driver: Driver, settings: worker.WorkerSettings, blocks: Blocks, concurrency: Concurrency) -> None:
    """Run the driver's whole queue with Ray Tune on resident workers.

    Raises:
        KeyboardInterrupt: on a second Ctrl-C; the workers are killed, and `resume` continues from the files that they wrote.
    """
    study = driver.folder.study
    # Tune reserves the resources of a worker; a group reserves its own, and Tune does not accept an empty request.
    resources = settings.resources if settings.workers == 1 else {"memory": 1.0}
    groups = ray_workarounds.GroupReservations(settings.resources, settings.workers) if settings.workers > 1 else None
    callback = _DriverCallback(driver, concurrency, groups)
    with (
        tempfile.TemporaryDirectory(prefix="dirtune-tune-") as scratch,
        set_environment(TUNE_SETTINGS),
        silence_loggers("ray.tune", "ray.air"),
        ray_workarounds.use_settled_placement_groups(),
        ray_workarounds.keep_workers(),
        ray_workarounds.without_callback_statistics(),
        ray_workarounds.without_worker_environment(),
        # Tune installs a handler and leaves it behind.
        restore_handlers(signal.SIGUSR1),
    ):
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(TrialWorker, settings=settings, blocks=blocks),
                tune.PlacementGroupFactory([resources]),
            ),
            tune_config=tune.TuneConfig(
                search_alg=_QueueSearcher(driver),
                # No limit: the searcher says when the queue is empty.
                num_samples=-1,
                scheduler=scheduler.build_scheduler(study, read_learning_curves(driver.storage, study)),
                reuse_actors=True,
                trial_name_creator=_get_trial_id,
                trial_dirname_creator=_get_trial_id,
            ),
            run_config=tune.RunConfig(
                name=study.name,
                storage_path=scratch,
                verbose=0,
                callbacks=[callback],
                stop=_DriverStopper(driver),
                failure_config=tune.FailureConfig(max_failures=WORKER_RESTARTS),
            ),
        )
        try:
            tuner.fit()
        except KeyboardInterrupt:
            callback.kill_workers()
            raise
        callback.release_all()


class _QueueSearcher(Searcher):
    """Searcher that asks the driver for the next trial."""

    def __init__(self, driver: Driver) -> None:
        super().__init__()
        self._driver = driver

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        job = self._driver.start_trial()
        if job is not None:
            return {JOB: job}
        return str(Searcher.FINISHED) if self._driver.is_finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: `_DriverCallback` handles the trial itself."""

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study's folder has the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: a sweep is resumed from the study's folder."""


class _DriverCallback(tune.Callback):
    """Callback that forwards Tune's events to the driver."""

    def __init__(
        self, driver: Driver, concurrency: Concurrency, groups: ray_workarounds.GroupReservations | None
    ) -> None:
        self._driver, self._concurrency, self._groups = driver, concurrency, groups
        self._holds = device_faults.GpuHolds()
        self._trials: list[Trial] = []
        # By Tune's trial id; without those that have ended
        self._jobs: dict[str, TrialJob] = {}
        # Since the last step
        self._ended: list[Trial] = []

    def kill_workers(self) -> None:
        """Kill the workers of all trials; a cluster that was joined would keep them for as long as this process lives."""
        for trial in self._trials:
            if (actor := trial.temporary_state.ray_actor) is not None:
                ray.kill(actor)
        self.release_all()

    def release_all(self) -> None:
        """Release the reservations of groups and the GPUs that were set aside."""
        self._holds.release_all()
        if self._groups is not None:
            self._groups.release_all()

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._trials = trials
        for trial in self._ended:
            # Tune keeps all trials with their last results and averages of each number: 60 kB a trial.
            metadata = trial.run_metadata
            metadata.last_result, metadata.metric_analysis, metadata.metric_n_steps = {}, {}, {}
        self._ended.clear()
        for place in self._driver.find_gpus_to_set_aside():
            self._holds.hold(place)
        self._holds.update()
        self._driver.concurrency = self._concurrency.update()
        self._driver.check_stop()
        if iteration == STEPS_TO_REQUEST_WORKERS and self._driver.stop.reason is None:
            self._driver.while_starting()

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        job: TrialJob = trial.config[JOB]
        self._jobs[trial.trial_id] = job
        self._driver.on_trial_started(job)
        if self._groups is not None:
            self._groups.start(trial.trial_id, trial.temporary_state.ray_actor._actor_id.hex())

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._driver.on_worker_lost(trial.config[JOB], _get_error(trial))
        if self._groups is not None:
            self._groups.release(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        job: TrialJob = trial.config[JOB]
        step: worker.StepResult = result[RESULT]
        if self._groups is not None:
            self._groups.report(trial.trial_id, step.reservation)
        if step.failure is None:
            self._driver.on_epoch_ended(job, step)
        if step.has_ended:
            del self._jobs[trial.trial_id]
            self._driver.unreleased.add(trial.trial_id)
            self._driver.on_trial_ended(job, step)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._ended.append(trial)
        self._driver.unreleased.discard(trial.trial_id)
        job = self._jobs.pop(trial.trial_id, None)
        # The scheduler has stopped a trial that is still known. After a storage failure Tune stops all trials; they resume
        # from their checkpoints with the sweep.
        if job is not None and self._driver.storage_failure is None:
            self._driver.on_trial_ended(job, trial.last_result[RESULT])

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self._jobs.pop(trial.trial_id, None)
        self._driver.unreleased.discard(trial.trial_id)
        self._driver.on_trial_failed(trial.config[JOB], _get_error(trial))
        if self._groups is not None:
            self._groups.release(trial.trial_id)


class _DriverStopper(tune.Stopper):
    """Stopper that ends the run when the driver has stopped; trials that have no worker yet are not waited for."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._driver.is_stopped


def _get_error(trial: Trial) -> BaseException:
    # Tune's own getters read the file from where it is copied to when the run ends.
    if trial.pickled_error_file is not None:
        error: BaseException = cloudpickle.loads(Path(trial.pickled_error_file).read_bytes())
        return error
    return RuntimeError(
        "the worker died"
        if trial.error_file is None
        else Path(trial.error_file).read_text(encoding="utf-8", errors="replace")
    )


def _get_trial_id(trial: Trial) -> str:
    return str(trial.config[JOB].trial_id)
