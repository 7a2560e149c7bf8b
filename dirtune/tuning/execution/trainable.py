"""The Tune trainable: a resident worker whose `step()` is one epoch.

Tune starts it once per slot and hands it trial after trial (`reuse_actors`, `reset_config`). Checkpoints are the
trial's own files (`dirtune.training.trial`), so that Tune's are empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray import tune

from dirtune.data.memory_budget import give_freed_memory_back
from dirtune.data.stream import Blocks
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution.failures import final_failure
from dirtune.tuning.execution.scheduler import EPOCH, JOBS, OBJECTIVE
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings, local_device
from dirtune.tuning.execution.worker_group import ResidentGroup

RESULTS, RESERVATION, MEMORY = "results", "reservation", "memory_share"
ENDED, HANDED_BACK, FAILURE = "ended", "handed_back", "failure"


class TrialWorker(tune.Trainable):
    """Runs the trials of a sweep in its own process or on a resident group: what is one trial to Tune may be several side by side."""

    # All work is done in `step`: what is raised there arrives at the driver as it was, not as an actor that did not start,
    # and a sweep that is asked to end while a group starts is waited for as for an epoch.

    def setup(self, config: dict[str, Any], settings: WorkerSettings, blocks: Blocks) -> None:
        self._settings, self._blocks = settings, blocks
        self._worker: ResidentWorker | ResidentGroup | None = None
        self._jobs: Sequence[TrialJob] = config[JOBS]
        self._are_new = True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._jobs, self._are_new = new_config[JOBS], True
        return True

    def step(self) -> dict[str, Any]:
        try:
            results = self._stepped()
            return _for_tune(results, self._reservation)
        except Exception as error:
            failure = final_failure(error)
            if failure is None:
                # Tune tries again on another worker
                raise
        # Only here, where the error no longer holds the tensors of its frames
        self._give_up()
        ended = {FAILURE: failure, ENDED: True}
        return {"done": True, RESULTS: {job.trial_id: ended for job in self._jobs}}

    def _stepped(self) -> list[StepResult]:
        worker = self._started_worker()
        if self._are_new:
            worker.start(self._jobs)
            self._are_new = False
        results = worker.step()
        ended = {result.trial_id for result in results if result.has_ended}
        self._jobs = [job for job in self._jobs if job.trial_id not in ended]
        return results

    @property
    def _reservation(self) -> str | None:
        return self._worker.reservation if isinstance(self._worker, ResidentGroup) else None

    def _give_up(self) -> None:
        """Forget the worker: after an exception nobody knows what it holds; the next trial gets a new one."""
        self.cleanup()
        self._worker = None
        give_freed_memory_back()

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load: a trial finds its own checkpoint when it starts."""

    def cleanup(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def _started_worker(self) -> ResidentWorker | ResidentGroup:
        if self._worker is None:
            settings = self._settings
            self._worker = (
                ResidentGroup(settings, self._blocks)
                if settings.workers > 1
                else ResidentWorker(settings, self._blocks, local_device(settings.gpus))
            )
        return self._worker


def _for_tune(results: Sequence[StepResult], reservation: str | None) -> dict[str, Any]:
    of_trials = {result.trial_id: _of_trial(result) for result in results}
    # Schedulers look at the first, and those that are several are never stopped by one.
    seen = {name: value for name, value in of_trials[results[0].trial_id].items() if name in {EPOCH, OBJECTIVE}}
    done = all(result.has_ended for result in results)
    memory = max(result.memory_share for result in results)
    return {**seen, "done": done, RESULTS: of_trials, RESERVATION: reservation, MEMORY: memory}


def _of_trial(result: StepResult) -> dict[str, Any]:
    values: dict[str, Any] = {
        EPOCH: result.epoch,
        ENDED: result.has_ended,
        HANDED_BACK: result.handed_back,
        "status": result.status,
        "best_objective": result.best_objective,
        FAILURE: result.failure,
    }
    return values if result.objective is None else {**values, OBJECTIVE: result.objective}
