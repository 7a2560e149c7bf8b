"""The Tune trainable: a resident worker whose `step()` is one epoch.

Tune starts it once per slot and hands it trial after trial (`reuse_actors`, `reset_config`). Checkpoints are the
trial's own files (`dirtune.training.trial`), so that Tune's are empty.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from dirtune.data.blocks import Blocks
from dirtune.data.memory_budget import return_freed_memory
from dirtune.tuning.execution.failures import final_failure
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings, local_device
from dirtune.tuning.execution.worker_group import ResidentGroup

JOB, RESULT = "job", "result"
"""The one key of a Tune trial's configuration, a `TrialJob`, and of its results, a `StepResult` (next to Tune's `done`)."""


class TrialWorker(tune.Trainable):
    """Runs the trials of a sweep in its own process or on a resident group, one after another."""

    # All work is done in `step`: what is raised there arrives at the driver as it was, not as an actor that did not start,
    # and a sweep that is asked to end while a group starts is waited for as for an epoch.

    def setup(self, config: dict[str, Any], settings: WorkerSettings, blocks: Blocks) -> None:
        self._settings, self._blocks = settings, blocks
        self._worker: ResidentWorker | ResidentGroup | None = None
        self._job, self._is_new = config[JOB], True

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._job, self._is_new = new_config[JOB], True
        return True

    def step(self) -> dict[str, Any]:
        try:
            worker = self._started_worker()
            if self._is_new:
                worker.start(self._job)
                self._is_new = False
            result = worker.step()
        except Exception as error:
            failure = final_failure(error)
            if failure is None:
                # Tune tries again on another worker
                raise
        else:
            return {"done": result.has_ended, RESULT: result}
        # Outside of the handler, whose error would keep the tensors of its frames in memory
        self._give_up()
        return {"done": True, RESULT: StepResult(trial_id=self._job.trial_id, failure=failure)}

    def _give_up(self) -> None:
        """Forget the worker: after an exception nobody knows what it holds; the next trial gets a new one."""
        self.cleanup()
        self._worker = None
        return_freed_memory()

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
