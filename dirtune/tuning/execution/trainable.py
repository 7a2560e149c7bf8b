"""Tune trainable: a resident worker whose `step()` is one epoch, or several short ones.

Tune starts it once per slot and hands it one trial after another (`reuse_actors`, `reset_config`). Checkpoints are the
trial's own files (`dirtune.training.trial`), so Tune's are empty.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ray import tune

from dirtune.data.blocks import Blocks
from dirtune.data.memory_budget import return_freed_memory
from dirtune.process import leave_objects_at_exit
from dirtune.tuning.execution import failures
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings, get_local_device

if TYPE_CHECKING:
    from dirtune.tuning.execution.worker_group import ResidentGroup

JOB, RESULT = "job", "result"
"""Only key of a Tune trial's configuration, a `TrialJob`, and of its results, a `StepResult` (with Tune's `done`)."""


class TrialWorker(tune.Trainable):
    """Trainable that runs the trials of a sweep, one after another, in its own process or on a resident group."""

    # All work is done in `step`: an exception of `step` reaches the driver as it is, one of `setup` as an actor that did not
    # start; and a stop that is requested while a group starts waits for the group as for an epoch.

    def setup(self, config: dict[str, Any], settings: WorkerSettings, blocks: Blocks) -> None:
        leave_objects_at_exit()
        self._settings, self._blocks = settings, blocks
        self._worker: ResidentWorker | ResidentGroup | None = None
        self._job, self._is_new = config[JOB], True
        self._error: Exception | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._job, self._is_new, self._error = new_config[JOB], True, None
        return True

    def step(self) -> dict[str, Any]:
        try:
            error, self._error = self._error, None
            if error is not None:
                raise error
            result = self._run_epochs()
        except Exception as error:
            failure = failures.get_final_failure(error)
            if failure is None or failures.find_device_fault(error) is not None:
                # Tune ends this process and retries the trial on another worker.
                raise
        else:
            return {"done": result.has_ended, RESULT: result}
        # Outside of the handler, whose exception would keep the tensors of its frames in memory. The state of the worker is
        # unknown after an exception, so the next trial gets a new one.
        self.cleanup()
        self._worker = None
        return_freed_memory()
        return {"done": True, RESULT: StepResult(trial_id=self._job.trial_id, failure=failure)}

    def _run_epochs(self) -> StepResult:
        """Run epochs of the current trial until their result is due; the error of a later one is raised by the next step."""
        worker, seconds = self._get_worker(), self._settings.get_report_seconds(self._job)
        if self._is_new:
            worker.start(self._job)
            # Its first epoch shows that it works
            self._is_new, seconds = False, 0.0
        due = time.monotonic() + seconds
        result = worker.step()
        while not result.has_ended and time.monotonic() < due:
            try:
                following = worker.step()
            except Exception as error:
                self._error = error
                break
            result = replace(following, before=(*result.before, (result.epoch, result.objective)))
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Load nothing: a trial reads its own checkpoint when it starts."""

    def cleanup(self) -> None:
        if self._worker is not None:
            self._worker.close()

    def _get_worker(self) -> ResidentWorker | ResidentGroup:
        if self._worker is not None:
            return self._worker
        settings = self._settings
        if settings.workers > 1:
            # Ray Train takes a quarter of a second of each worker process, most of which need none
            from dirtune.tuning.execution.worker_group import ResidentGroup

            self._worker = ResidentGroup(settings, self._blocks)
        else:
            self._worker = ResidentWorker(settings, self._blocks, get_local_device(settings.gpus))
        return self._worker
