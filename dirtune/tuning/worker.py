"""A resident worker: one process that holds the data and runs one trial after another.

Starting a process, importing torch and fetching the data cost seconds; a trial on a resident worker starts in
milliseconds. The same worker runs alone inside a Tune actor and as one rank of a group (`dirtune.tuning.group`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch

from dirtune.data.residency import Residency, keep_freed_memory, measured, sharers
from dirtune.data.stream import Blocks, fetch
from dirtune.manifest import Manifest
from dirtune.results.schema import Status
from dirtune.storage import Storage
from dirtune.training.distributed import Ranks
from dirtune.training.trial import TrialJob, TrialRun
from dirtune.tuning.stop import is_asked


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What all workers of a sweep share."""

    study: Storage  # the study's folder
    manifest: Manifest
    vocabulary: list[str] | None = None
    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1
    checkpoint_seconds: float = 10.0
    residency: Residency | None = None  # none: measured when a worker starts
    representations: int = 0  # test samples of a trial whose representations are kept

    @property
    def resources(self) -> dict[str, float]:
        """What one worker is given by Ray."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One epoch of a trial as the driver sees it; `status` is set when the trial has been recorded.

    `handed_back`: the sweep shall end, and the trial goes on from its checkpoint when the sweep is resumed.
    """

    epoch: int
    objective: float | None
    best_objective: float | None
    status: Status | None
    handed_back: bool = False
    reservation: str | None = None  # of a group: what it holds (`dirtune.tuning.reservations`)
    values: dict[str, float] = field(default_factory=dict)


class ResidentWorker:
    """Runs trials in this process; as a rank of a group, together with its peers.

    Args:
        blocks: the decoded data in Ray's object store.
        device: where the data and the models live.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        blocks: Blocks,
        device: torch.device,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        torch.set_num_threads(settings.cpus)
        self._settings, self._ranks = settings, ranks
        keep_freed_memory()
        residency = settings.residency or measured(
            device, sharers=sharers(cpus=settings.cpus, gpus=settings.gpus), threads=settings.cpus
        )
        self._data = fetch(settings.manifest, blocks, device, residency)
        self._trial: TrialRun | None = None
        self._idle_since = time.perf_counter()

    def start(self, job: TrialJob) -> None:
        """Begin a trial, or continue it from its checkpoint; a trial that was running is left as it is on disk."""
        self._trial = TrialRun(
            job, self._data, self._settings.study, ranks=self._ranks, idle_since=self._idle_since,
            checkpoint_seconds=self._settings.checkpoint_seconds, vocabulary=self._settings.vocabulary,
            representations=self._settings.representations,
        )  # fmt: skip

    def step(self) -> StepResult:
        """Run one epoch of the current trial; then hand the trial back if the sweep shall end."""
        assert self._trial is not None, "start() comes first"
        values = self._trial.step()
        handed_back = (
            self._ranks.is_first and self._trial.status is None and is_asked(self._settings.study)
        )
        if handed_back:
            self._trial.checkpoint()
        self._idle_since = time.perf_counter()
        training = self._trial.training
        return StepResult(
            epoch=training.epoch, status=self._trial.status, handed_back=handed_back, values=values,
            objective=values.get(training.config.objective.name),
            best_objective=training.best_objective,
        )  # fmt: skip

    def close(self) -> None:
        """Nothing to end: the process ends with its actor."""


def local_device(gpus: float) -> torch.device:
    """The device of a worker that has been given `gpus` GPUs by Ray."""
    return torch.device("cuda", torch.cuda.current_device()) if gpus else torch.device("cpu")
