"""A resident worker: one process that holds the data and runs one trial after another, or several side by side.

Starting a process, importing torch and fetching the data cost seconds; a trial on a resident worker starts in
milliseconds. The same worker runs alone inside a Tune actor and as one rank of a group (`dirtune.tuning.execution.worker_group`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch

from dirtune.data.memory_budget import Residency, free_memory, keep_freed_memory, measured, peak_memory, sharers
from dirtune.data.stream import Blocks, fetch
from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.results.records.schema import Status
from dirtune.training.distributed import Ranks
from dirtune.training.fused import in_lockstep, share_batches
from dirtune.training.trial import TrialJob, TrialRun
from dirtune.tuning.execution.failures import CodeError, final_failure
from dirtune.tuning.folder.stop_request import is_asked


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What all workers of a sweep share."""

    study: Storage
    """The study's folder."""
    manifest: Manifest
    vocabulary: list[str] | None = None
    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1
    checkpoint_seconds: float = 10.0
    residency: Residency | None = None
    """None: measured when a worker starts."""
    representations: int = 0
    """Test samples of a trial whose representations are kept."""

    @property
    def resources(self) -> dict[str, float]:
        """What one worker is given by Ray."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """One epoch of a trial as the driver sees it; `status` is set when the trial has been recorded.

    `handed_back`: the sweep shall end, and the trial goes on from its checkpoint when the sweep is resumed.
    `memory_share`: what it and those beside it have taken of what their worker may take of its GPU.
    """

    trial_id: str
    epoch: int = 0
    objective: float | None = None
    best_objective: float | None = None
    status: Status | None = None
    handed_back: bool = False
    failure: CodeError | OutOfMemory | None = None
    """What ended it while others went on beside it."""
    memory_share: float = 0.0
    values: dict[str, float] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        return self.handed_back or self.status is not None or self.failure is not None


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
        beside = sharers(cpus=settings.cpus, gpus=settings.gpus)
        self._memory = free_memory(device) / beside
        residency = settings.residency or measured(device, sharers=beside, threads=settings.cpus)
        self._data = fetch(settings.manifest, blocks, device, residency)
        self._running: list[TrialRun] = []
        # Of those among several, by trial
        self._failures: dict[str, CodeError | OutOfMemory] = {}
        self._not_begun: list[StepResult] = []
        self._idle_since = time.perf_counter()

    def start(self, jobs: Sequence[TrialJob]) -> None:
        """Begin trials that see the same batches, or continue them from their checkpoints; what was running is left as it is on disk."""
        # Frees the memory of what was running
        self._running, self._failures = [], {}
        for job in jobs:
            try:
                self._running.append(
                    TrialRun(
                        job,
                        self._data,
                        self._settings.study,
                        ranks=self._ranks,
                        idle_since=self._idle_since,
                        checkpoint_seconds=self._settings.checkpoint_seconds,
                        vocabulary=self._settings.vocabulary,
                        representations=self._settings.representations,
                    )
                )
            except Exception as error:
                failure = final_failure(error)
                if len(jobs) == 1 or failure is None:
                    raise
                self._not_begun.append(StepResult(trial_id=job.trial_id, failure=failure))
            self._idle_since = time.perf_counter()

    def step(self) -> list[StepResult]:
        """Run one epoch of all that are running; then hand them back if the sweep shall end."""
        if len(self._running) == 1:
            self._running[0].step()
        else:
            self._step_side_by_side()
        results = [self._result(trial) for trial in self._running]
        ended = {result.trial_id for result in results if result.has_ended}
        self._running = [trial for trial in self._running if trial.job.trial_id not in ended]
        self._idle_since = time.perf_counter()
        not_begun, self._not_begun = self._not_begun, []
        return results + not_begun

    def _step_side_by_side(self) -> None:
        waited = (time.perf_counter() - self._idle_since) / max(1, len(self._running))
        share_batches([trial.training for trial in self._running])
        in_lockstep([self._steps(trial, waited) for trial in self._running], self._data.device)

    def _steps(self, trial: TrialRun, waited: float) -> Iterator[None]:
        """Those of one trial; what would end it on any worker ends it alone."""
        try:
            yield from trial.steps(waited)
        except Exception as error:
            failure = final_failure(error)
            if failure is None:
                raise
            self._failures[trial.job.trial_id] = failure

    def _result(self, trial: TrialRun) -> StepResult:
        failure = self._failures.get(trial.job.trial_id)
        goes_on = trial.status is None and failure is None
        handed_back = self._ranks.is_first and goes_on and is_asked(self._settings.study)
        if handed_back:
            trial.checkpoint()
        training = trial.training
        return StepResult(
            trial_id=trial.job.trial_id,
            epoch=training.epoch,
            status=trial.status,
            failure=failure,
            handed_back=handed_back,
            values=trial.values,
            best_objective=training.best_objective,
            objective=trial.values.get(training.config.objective.name),
            memory_share=self._memory_share(),
        )

    def _memory_share(self) -> float:
        """Of a GPU; on a CPU nothing is gained by trials side by side, so that there is no need to know how many fit."""
        device = self._data.device
        return peak_memory(device) / self._memory if device.type == "cuda" else 0.0

    def close(self) -> None:
        """Nothing to end: the process ends with its actor."""


def local_device(gpus: float) -> torch.device:
    """The device of a worker that has been given `gpus` GPUs by Ray."""
    return torch.device("cuda", torch.cuda.current_device()) if gpus else torch.device("cpu")
