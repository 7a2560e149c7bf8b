"""Resident worker: one process that holds the data and runs one trial after another.

Starting a process, importing torch and fetching the data takes seconds; a trial on a resident worker starts in
milliseconds. The same worker runs alone inside a Tune actor and as one rank of a group (`dirtune.tuning.execution.worker_group`).
"""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from dirtune.data.blocks import Blocks, fetch
from dirtune.data.contract import InputContract
from dirtune.data.memory_budget import MemoryBudget, count_sharers, measure_memory_budget
from dirtune.errors import Fault, InputError, OutOfMemory
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.process import defer_first_signal, keep_freed_memory
from dirtune.results.records.schema import Role, Status
from dirtune.study.schema import KeepModels
from dirtune.training.distributed import Ranks
from dirtune.training.trial import PROGRESS_SECONDS, TrialJob, TrialRun
from dirtune.tuning.execution import device_faults
from dirtune.tuning.execution.failures import CodeError
from dirtune.tuning.folder.stop_request import is_stop_requested

FENCE = 0.95
"""Part of a trial's share of a GPU that its tensors may occupy; CUDA itself takes the rest."""
_ALLOCATOR_VARIABLES = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"}
"""Settings of torch's allocator by the user; torch reads both, but each of its parts only one of them."""


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings that all workers of a sweep share."""

    study: Storage
    """Folder of the study."""
    manifest: Manifest
    vocabulary: list[str] | None = None
    """Tokens of a text data set by id; None for other data."""
    cpus: int = 1
    gpus: float = 0.0
    workers: int = 1
    """Ranks of a resident group; 1 for a worker inside its Tune actor."""
    checkpoint_seconds: float = 10.0
    scheduled_role: Role | None = None
    """Role of the trials that a scheduler may stop after any epoch; None without a scheduler."""
    budget: MemoryBudget | None = None
    """Memory for the data; None means that a worker measures it when it starts."""
    representations: int = 0
    """Test samples of a trial whose representations are kept."""
    keep_models: KeepModels = "none"
    contract: InputContract | None = None
    """Input contract of the data set, which is kept with every model; None if no model is kept."""

    def get_contract(self, job: TrialJob) -> InputContract | None:
        """Return the contract to keep with a trial's model, or None if its model is not kept."""
        # Other trials evaluate what a search selects; those of a search without them are removed once a better one ends.
        is_kept = self.keep_models == "all" or (self.keep_models == "best" and job.role != "search")
        return self.contract if is_kept else None

    def get_report_seconds(self, job: TrialJob) -> float:
        """Return the time after which a worker reports the epochs of a trial; 0: after each of them.

        A report costs a round of Tune, 4 ms; the progress is written as often.
        """
        # The scheduler may stop it after any epoch
        return 0.0 if job.role == self.scheduled_role else min(PROGRESS_SECONDS, self.checkpoint_seconds)

    @property
    def resources(self) -> dict[str, float]:
        """Resources that Ray reserves for one worker or rank."""
        return {"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})}


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Result of an epoch of a trial, and of short ones before it, as a worker reports it to the driver."""

    trial_id: str
    epoch: int = 0
    objective: float | None = None
    """Validation objective of the epoch; None if the stage validates nothing."""
    before: tuple[tuple[int, float | None], ...] = ()
    """Epochs since the last report without this one, each with its validation objective."""
    best_objective: float | None = None
    status: Status | None = None
    """Status under which the worker has recorded the trial; None while it runs."""
    handed_back: bool = False
    """The sweep ends; the trial has a checkpoint, from which `resume` continues it."""
    failure: CodeError | OutOfMemory | None = None
    """Error that would end the trial on any worker; the driver records it."""
    place: device_faults.GpuPlace | None = None
    """GPU on which the epoch ran; None on CPUs."""
    reservation: str | None = None
    """Placement group of a resident group; None for a worker inside its Tune actor."""

    @property
    def has_ended(self) -> bool:
        """True if the worker runs no further epoch of the trial."""
        return self.handed_back or self.status is not None or self.failure is not None


class ResidentWorker:
    """Process that runs one trial after another, alone or as one rank of a group.

    Args:
        blocks: decoded data in Ray's object store.
        device: device of the data and the models.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        blocks: Blocks,
        device: torch.device,
        ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    ) -> None:
        torch.set_num_threads(settings.cpus)
        self._settings, self._ranks, self._device = settings, ranks, device
        keep_freed_memory()
        budget = settings.budget or measure_memory_budget(
            device, sharers=count_sharers(cpus=settings.cpus, gpus=settings.gpus), threads=settings.cpus
        )
        self._data = fetch(settings.manifest, blocks, device, budget)
        self._running: TrialRun | None = None
        self._is_terminated: Callable[[], bool] = lambda: False
        self._idle_since = time.perf_counter()

    def start(self, job: TrialJob) -> None:
        """Begin a trial, or resume it from its checkpoint; the files of a trial that was running stay as they are."""
        # The memory of the trial before must be free before the next model is built.
        self._running = None
        check_same_sources(job, self._settings.manifest)
        with device_faults.name_device_faults(has_gpu=bool(self._settings.gpus)):
            device_faults.check_device(self._device)
            self._running = TrialRun(
                job,
                self._data,
                self._settings.study,
                ranks=self._ranks,
                idle_since=self._idle_since,
                checkpoint_seconds=self._settings.checkpoint_seconds,
                vocabulary=self._settings.vocabulary,
                representations=self._settings.representations,
                contract=self._settings.get_contract(job),
                is_stop_requested=lambda: self._is_terminated() or is_stop_requested(self._settings.study),
                # The driver records a trial that the scheduler stops, and removes its files.
                waits_for_checkpoints=job.role == self._settings.scheduled_role,
            )

    def step(self) -> StepResult:
        """Run one epoch of the current trial; hand the trial back, with a checkpoint, if a stop was requested.

        SIGTERM, by which batch systems and clouds announce the end of a node, ends this process after the step of the
        optimizer, and the trial has a checkpoint.
        """
        trial = self._running
        assert trial is not None, "a trial is started before its first step"
        with (
            device_faults.name_device_faults(has_gpu=bool(self._settings.gpus)),
            defer_first_signal(signal.SIGTERM) as get_signal,
        ):
            self._is_terminated = lambda: get_signal() is not None
            values = trial.step()
            if self._is_terminated():
                if self._ranks.is_first and trial.status is None:
                    trial.write_checkpoint()
                sys.exit(128 + signal.SIGTERM)
        training = trial.training
        # Rank 0 alone decides, or ranks that look at different moments would disagree.
        handed_back = self._ranks.is_first and trial.status is None and is_stop_requested(self._settings.study)
        if handed_back:
            trial.write_checkpoint()
        if trial.status is not None and 0 < self._settings.gpus < 1:
            # For the trials beside it
            torch.cuda.empty_cache()
        self._idle_since = time.perf_counter()
        return StepResult(
            trial_id=trial.job.trial_id,
            epoch=training.epoch,
            objective=values.get(training.config.objective.name),
            best_objective=training.best_objective,
            status=trial.status,
            handed_back=handed_back,
            place=device_faults.get_place() if self._settings.gpus else None,
        )

    def close(self) -> None:
        """Close nothing: the process ends with its actor."""


def check_same_sources(job: TrialJob, manifest: Manifest) -> None:
    """Raise if what a trial uses from outside of dirtune, plug-ins and pretrained weights, is another one on this machine.

    Raises:
        InputError: the trial has another id here than where it was planned.
    """
    if job.config.identify_outside() and job.config.compute_trial_id(manifest.fingerprint) != job.trial_id:
        rule = "plug-ins or pretrained weights differ from those of the machine that started the sweep"
        raise InputError(Fault(where=socket.gethostname(), rule=rule))


def get_local_device(gpus: float) -> torch.device:
    """Return the device of a worker for which Ray has reserved `gpus` GPUs.

    Raises:
        DeviceFault: torch cannot use the GPU.
    """
    if not gpus:
        return torch.device("cpu")
    with device_faults.name_device_faults(has_gpu=True):
        if gpus < 1 and not _ALLOCATOR_VARIABLES & os.environ.keys():
            # Memory that is mapped piece by piece, so that freed blocks of other sizes leave no part of the share unusable. torch
            # reads the variable at its first allocation.
            os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"
        device = torch.device("cuda", torch.cuda.current_device())
        if gpus < 1:
            # A trial that needs more than its share runs out of memory itself, instead of those beside it.
            torch.cuda.set_per_process_memory_fraction(FENCE * gpus, device)
    return device
