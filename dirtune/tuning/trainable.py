"""The Tune trainable: a resident worker whose `step()` is one epoch.

Tune starts it once per slot and hands it trial after trial (`reuse_actors`, `reset_config`). Checkpoints are the
trial's own files (`dirtune.training.trial`), so that Tune's are empty.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from dirtune.data.residency import give_freed_memory_back
from dirtune.data.stream import Blocks
from dirtune.training.trial import TrialJob
from dirtune.tuning.failures import final_failure
from dirtune.tuning.group import ResidentGroup
from dirtune.tuning.scheduler import EPOCH, JOB, OBJECTIVE
from dirtune.tuning.worker import ResidentWorker, StepResult, WorkerSettings, local_device

HANDED_BACK, RESERVATION, FAILURE = "handed_back", "reservation", "failure"


class TrialWorker(tune.Trainable):
    """Runs the trials of a sweep, one at a time, in its own process or on a resident group."""

    # All work is done in `step`: what is raised there arrives at the driver as it was, not as an actor that did not start,
    # and a sweep that is asked to end while a group starts is waited for as for an epoch.

    def setup(self, config: dict[str, Any], settings: WorkerSettings, blocks: Blocks) -> None:
        self._settings, self._blocks = settings, blocks
        self._worker: ResidentWorker | ResidentGroup | None = None
        self._next: TrialJob | None = config[JOB]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._next = new_config[JOB]
        return True

    def step(self) -> dict[str, Any]:
        try:
            return _for_tune(self._stepped())
        except Exception as error:
            failure = final_failure(error)
            if failure is None:
                raise  # Tune tries again on another worker
        self._give_up()  # only here, where the error no longer holds the tensors of its frames
        return {"done": True, FAILURE: failure}

    def _stepped(self) -> StepResult:
        worker = self._started_worker()
        if self._next is not None:
            worker.start(self._next)
            self._next = None
        return worker.step()

    def _give_up(self) -> None:
        """Forget the worker: after an exception nobody knows what it holds; the next trial gets a new one."""
        self.cleanup()
        self._worker = self._next = None
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


def _for_tune(result: StepResult) -> dict[str, Any]:
    ended = result.handed_back or result.status is not None
    values: dict[str, Any] = {EPOCH: result.epoch, "done": ended, HANDED_BACK: result.handed_back}
    if result.objective is not None:
        values[OBJECTIVE] = result.objective
    return {
        **values, "status": result.status, "best_objective": result.best_objective,
        RESERVATION: result.reservation,
    }  # fmt: skip
