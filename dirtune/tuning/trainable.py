"""The Tune trainable: a resident worker whose `step()` is one epoch.

Tune starts it once per slot and hands it trial after trial (`reuse_actors`, `reset_config`). Checkpoints are the
trial's own files (`dirtune.training.trial`), so that Tune's are empty.
"""

from __future__ import annotations

from typing import Any

from ray import tune

from dirtune.data.stream import Blocks
from dirtune.training.trial import TrialJob
from dirtune.tuning.group import ResidentGroup
from dirtune.tuning.scheduler import EPOCH, OBJECTIVE
from dirtune.tuning.worker import ResidentWorker, StepResult, WorkerSettings, local_device

JOB, HANDED_BACK = "job", "handed_back"


class TrialWorker(tune.Trainable):
    """Runs the trials of a sweep, one at a time, in its own process or on a resident group."""

    _worker: ResidentWorker | ResidentGroup

    def setup(self, config: dict[str, Any], settings: WorkerSettings, blocks: Blocks) -> None:
        if settings.workers > 1:
            self._worker = ResidentGroup(settings, blocks)
        else:
            self._worker = ResidentWorker(settings, blocks, local_device(settings.gpus))
        self._worker.start(_job_in(config))

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._worker.start(_job_in(new_config))
        return True

    def step(self) -> dict[str, Any]:
        return _for_tune(self._worker.step())

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        return {}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Nothing to load: a trial finds its own checkpoint when it starts."""

    def cleanup(self) -> None:
        self._worker.close()


def _job_in(config: dict[str, Any]) -> TrialJob:
    job: TrialJob = config[JOB]
    return job


def _for_tune(result: StepResult) -> dict[str, Any]:
    ended = result.handed_back or result.status is not None
    values: dict[str, Any] = {EPOCH: result.epoch, "done": ended, HANDED_BACK: result.handed_back}
    if result.objective is not None:
        values[OBJECTIVE] = result.objective
    return {**values, "status": result.status, "best_objective": result.best_objective}
