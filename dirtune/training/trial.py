"""One trial from its start (or its checkpoint) to its record. `dirtune train` and every sweep run this.

Files, below the study's folder: `trials/<id>/config.json` when the trial starts, `progress.json` after an epoch, once a
second (for `dirtune status`, and for the record of a trial that fails or that a scheduler stops), `checkpoint/` so that a
killed trial resumes, within an epoch too if it takes minutes, `models/<id>/` if the model is kept, and the results tables at
the end. Temporary files are removed after the record is written: if the process is killed in between, the trial is either
recorded or resumes.
"""

import contextlib
import json
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import torch

from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data import cache, memory_budget
from dirtune.data.contract import InputContract
from dirtune.errors import InputError, NonFiniteLoss
from dirtune.io.jsonfile import encode_json_object, read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS
from dirtune.results.records.schema import Role, Status, TrialRecord
from dirtune.results.records.store import write_record
from dirtune.training import checkpoint, distributed, kept_model, loop, memory, numerics
from dirtune.training.evaluation import evaluate_last_and_best
from dirtune.training.state import begin_training

CONFIG = "config.json"
CHECKPOINT_COSTS = 50
"""Smallest time between two checkpoints, as a multiple of what the trial waited for the last one: at most 2 % of it."""
WRITE_COSTS = 10
"""Smallest time between two checkpoints, as a multiple of what the last one took to write while the trial went on."""
PROGRESS_SECONDS = 1.0
"""Largest time between two writes of the progress, apart from the length of an epoch."""
PAUSE_SECONDS = 120.0
"""Time after which an epoch is left for a checkpoint: what a killed trial loses of an epoch of half an hour."""
STOP_CHECK_SECONDS = 2.0
"""Time between two looks for a stop request within an epoch."""
TRACEBACK = "traceback.txt"
"""Traceback of a failed trial, next to its `config.json`."""


@dataclass(frozen=True, kw_only=True)
class TrialJob:
    """Specification of one trial for a worker, picklable."""

    study: str
    arm: str
    cell: str = "{}"
    """The arm's values on the axes, as JSON."""
    role: Role = "evaluation"
    replicate: int | None = 0
    """Index of the seed in the study's list; None for a trial whose role is "search"."""
    trial_id: str
    config: TrialConfig
    code_version: str = ""

    def to_row(self) -> dict[str, Any]:
        """Return the columns of the trials table that are known before the trial starts."""
        used = plugins.describe(self.config.list_plugins())
        return {
            "study": self.study,
            "arm": self.arm,
            "cell": self.cell,
            "trial_id": self.trial_id,
            "role": self.role,
            "replicate": self.replicate,
            "seed": self.config.seed,
            "epochs_planned": self.config.epochs_planned,
            "plugins": json.dumps(used) if used else None,
        }


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The record of an unfinished trial, as plain data."""

    trial: Mapping[str, Any]
    """Columns of the trials table."""
    config: Mapping[str, Any]
    epochs: list[dict[str, float]] = field(default_factory=list)

    def make_record(self, status: Status, **columns: Any) -> TrialRecord:
        """Return the record of a trial that ends now.

        Args:
            status: how the trial ended.
            columns: further columns of its row in the trials table.
        """
        trial = {**self.trial, "status": status, "finished_at": datetime.now(UTC), **columns}
        trial["started_at"] = datetime.fromisoformat(str(trial["started_at"]))
        return TrialRecord(trial=trial, config=self.config, epochs=self.epochs)


def get_trial_folder(study: Storage, trial_id: str) -> Storage:
    """Return the folder of a trial in its study's folder."""
    return study.get_folder(f"trials/{trial_id}")


def read_progress(study: Storage, trial_id: str) -> Progress | None:
    """Read the progress of a running or killed trial; return None if there is none, or if it is damaged."""
    try:
        return Progress(**read_json_object(get_trial_folder(study, trial_id), PROGRESS))
    # TypeError: it has other keys
    except (FileNotFoundError, InputError, TypeError):
        return None


def remove_temporary_files(study: Storage, trial_id: str) -> None:
    """Remove the files that only an unfinished or failed trial needs; its `config.json` stays."""
    folder = get_trial_folder(study, trial_id)
    checkpoint.remove_checkpoint(folder)
    folder.remove(PROGRESS)
    folder.remove(TRACEBACK)


class TrialRun:
    """A running trial: call `step` until `status` is set. Every rank of a group has one; only rank 0 writes files.

    Args:
        job: the trial.
        data: the data set on the worker's device.
        study: the study's folder.
        ranks: this rank in its group.
        idle_since: `time.perf_counter()` when the worker became idle; the time since counts as overhead.
        checkpoint_seconds: minimum time between two checkpoints, and up to a second between two writes of the progress.
        vocabulary: tokens by id, for encoders that start from word vectors.
        representations: number of test samples whose representation is recorded.
        contract: input contract of the data set, which is kept with the model; None means no model is kept.
        is_stop_requested: returns True if the trial is to be left, with a checkpoint, after the step.
        waits_for_checkpoints: return from `step` only when its progress and checkpoint are written: another process may then
            record the trial and remove its files, as if a scheduler stops it.
    """

    def __init__(
        self,
        job: TrialJob,
        data: cache.ResidentData,
        study: Storage,
        *,
        ranks: distributed.Ranks = distributed.Ranks(),  # noqa: B008 - frozen
        idle_since: float | None = None,
        checkpoint_seconds: float = 0.0,
        vocabulary: list[str] | None = None,
        representations: int = 0,
        contract: InputContract | None = None,
        is_stop_requested: Callable[[], bool] = lambda: False,
        waits_for_checkpoints: bool = False,
    ) -> None:
        self.job, self.study, self.ranks = job, study, ranks
        self.representations = representations
        self.contract = contract
        self.status: Status | None = None
        self.error: str | None = None
        """Reason of a failure, else None."""
        self._folder = get_trial_folder(study, job.trial_id)
        self._counted_until = time.perf_counter() if idle_since is None else idle_since
        self._overhead = 0.0
        self._started_at = datetime.now(UTC).isoformat()
        self._checkpoints = checkpoint.Checkpoints(self._folder, data.device)
        self._checkpoint_seconds, self._waits_for_checkpoints = checkpoint_seconds, waits_for_checkpoints
        self._checkpointed_at, self._checkpoint_cost = time.perf_counter(), 0.0
        self._unwritten: Progress | None = None
        """Progress of the last epoch while it is not written."""
        self._progressed_at = float("-inf")
        self._is_stop_requested, self._is_stopping, self._looked_at = is_stop_requested, False, time.perf_counter()
        # A worker runs many trials in one process; the recorded peak is this trial's alone.
        if data.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(data.device)
        self.training = begin_training(job.config, data, ranks, vocabulary)
        self._resume()
        # Ranks of a group would have to pause at the same step: they keep epochs whole.
        self._epochs = loop.run_epochs(self.training, *([self._is_pause_due] if ranks.world == 1 else []))
        if ranks.is_first:
            self._folder.write(CONFIG, _to_json(job.config.to_plain()))

    @property
    def values(self) -> dict[str, float]:
        """Values of the last epoch."""
        return self.training.history[-1] if self.training.history else {}

    def step(self) -> dict[str, float]:
        """Run one epoch and return its values; after the last one, evaluate and record.

        If a stop is requested within the epoch, return after the step: `write_checkpoint` then keeps its part of the epoch. A
        loss that is not finite is not raised: the trial is recorded as failed. An error of the thread that writes checkpoints
        is raised.
        """
        try:
            self._step()
        except Exception as error:
            # For the record of the failure, but not in a storage that has just failed for a minute
            if not isinstance(error, OSError):
                with contextlib.suppress(OSError):
                    self._write_progress()
            # Others may remove the files of a trial that has failed: nothing may write them again.
            self._checkpoints.join()
            raise
        return self.values

    def _step(self) -> None:
        before = self.training.seconds.total
        try:
            if not self.training.is_finished:
                next(self._epochs)
                while self.training.unfinished is not None and not self._is_stopping:
                    self.begin_checkpoint()
                    next(self._epochs)
            if self.training.unfinished is not None:
                self._count_overhead(before)
            elif self.training.is_finished:
                self._complete(before)
            else:
                self._save(before)
        except NonFiniteLoss as error:
            self._fail(error, before)

    def write_checkpoint(self) -> None:
        """Write the checkpoint from which the trial resumes and the progress; call on rank 0, after `step`."""
        self._write_progress()
        self.begin_checkpoint()
        self.wait_for_checkpoint()

    def wait_for_checkpoint(self) -> None:
        """Wait until the last checkpoint is written, and raise the error that prevented it."""
        self._checkpoints.wait()

    def begin_checkpoint(self) -> None:
        """Start to write a checkpoint; call on rank 0. It is complete before the trial ends or fails, or another one begins."""
        started = time.perf_counter()
        self._checkpoints.begin(self._state())
        if self._waits_for_checkpoints:
            self._checkpoints.wait()
        self._checkpointed_at = time.perf_counter()
        self._checkpoint_cost = self._checkpointed_at - started

    def _state(self) -> dict[str, Any]:
        return {"training": self.training.get_state(), "overhead": self._overhead, "started_at": self._started_at}

    def _resume(self) -> None:
        state = self._checkpoints.load()
        if state is not None:
            # The times of the killed run count, too: the record describes the whole trial.
            self._overhead, self._started_at = state["overhead"], state["started_at"]
            self.training.load_state(state["training"])

    def _save(self, spent_before: float) -> None:
        """Write the progress and a checkpoint, each if its last one is old enough."""
        self._count_overhead(spent_before)
        if not self.ranks.is_first:
            return
        self._unwritten = self._make_progress()
        self._checkpoints.raise_error()
        is_checkpoint_due = self._is_checkpoint_due()
        if is_checkpoint_due or self._is_progress_due():
            self._write_progress()
        if is_checkpoint_due:
            self.begin_checkpoint()

    def _is_progress_due(self) -> bool:
        age = time.perf_counter() - self._progressed_at
        return self._waits_for_checkpoints or age >= min(PROGRESS_SECONDS, self._checkpoint_seconds)

    def _write_progress(self) -> None:
        """Write the progress of the last epoch, unless it is written."""
        if self._unwritten is not None:
            self._folder.write(PROGRESS, _to_json(vars(self._unwritten)))
            self._unwritten, self._progressed_at = None, time.perf_counter()

    def _is_pause_due(self) -> bool:
        """Return True if the epoch is to be left after this step, for a checkpoint or because of a stop request."""
        now = time.perf_counter()
        if now - self._looked_at >= STOP_CHECK_SECONDS:
            self._looked_at, self._is_stopping = now, self._is_stop_requested()
        return self._is_stopping or (now - self._checkpointed_at >= PAUSE_SECONDS and self._is_checkpoint_due())

    def _is_checkpoint_due(self) -> bool:
        """Return True if the last checkpoint is old enough, measured by what it cost."""
        # Asked for after every epoch, it is written after every epoch, whatever it costs.
        if not self._checkpoint_seconds:
            return True
        if self._checkpoints.is_writing:
            return False
        costs = CHECKPOINT_COSTS * self._checkpoint_cost, WRITE_COSTS * self._checkpoints.write_seconds
        return time.perf_counter() - self._checkpointed_at >= max(self._checkpoint_seconds, *costs)

    def _complete(self, spent_before: float) -> None:
        started = time.perf_counter()
        # Rank 0 alone records, but every rank evaluates its share.
        with memory.name_phase_on_out_of_memory(self.training, "final evaluation", self.training.epoch):
            evaluation = evaluate_last_and_best(self.training, representations=self.representations)
        self.training.seconds.eval += time.perf_counter() - started
        self._count_overhead(spent_before)
        # Before the record: a recorded trial has its model. The evaluation has left the best weights in it.
        if self.contract is not None and self.ranks.is_first:
            kept_model.write_model(self.study, self.job.trial_id, self.training, self.contract)
        record = self._make_progress().make_record("complete")
        self._record(replace(record, **vars(evaluation)))

    def _fail(self, error: NonFiniteLoss, spent_before: float) -> None:
        self.error = str(error)
        self._count_overhead(spent_before)
        # Recorded with all epochs before, because the curve up to the failure is what explains it.
        record = self._make_progress().make_record(
            "failed", error=str(error), error_class="nan", error_term=error.term, error_epoch=error.epoch
        )
        self._record(record)

    def _record(self, record: TrialRecord) -> None:
        if self.ranks.is_first:
            # It would write the files of the trial again
            self._checkpoints.wait()
            # The record first: a trial killed in between is recorded, and its files are removed by the next driver.
            write_record(self.study, record)
            remove_temporary_files(self.study, self.job.trial_id)
        self.status = record.trial["status"]  # type: ignore[assignment]

    def _count_overhead(self, spent_before: float) -> None:
        """Count the time since the last call that was not training, evaluation or data as overhead."""
        now = time.perf_counter()
        self._overhead += now - self._counted_until - (self.training.seconds.total - spent_before)
        self._counted_until = now

    def _make_progress(self) -> Progress:
        job, training = self.job, self.training
        seconds, device = training.seconds, training.data.device
        is_gpu = device.type == "cuda"
        trial = {
            **job.to_row(),
            "epochs_run": training.epoch,
            "best_epoch": training.best_epoch or None,
            "objective": training.best_objective,
            "seconds_train": seconds.train,
            "seconds_eval": seconds.eval,
            "seconds_data": seconds.data,
            "seconds_overhead": self._overhead,
            # Without evaluation and overhead, so that runs with other evaluation sets compare.
            "samples_per_second": training.samples / max(seconds.train + seconds.data, 1e-9),
            "peak_memory_bytes": memory_budget.get_peak_memory(device),
            "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory if is_gpu else None,
            "device": torch.cuda.get_device_name(device) if is_gpu else f"cpu ({torch.get_num_threads()} threads)",
            "float32_arithmetic": numerics.describe_float32(device),
            "data_placement": training.data.splits["train"].placement,
            "workers": self.ranks.world,
            "worker": f"{socket.gethostname()}/{os.getpid()}",
            "sample_order_digest": training.order_digest,
            "data": training.data.manifest.name,
            "data_fingerprint": training.data.manifest.fingerprint,
            "data_split": job.config.data.split,
            "code_version": job.code_version,
            "started_at": self._started_at,
        }
        return Progress(trial=trial, config=job.config.to_plain(), epochs=training.history)


def _to_json(value: Mapping[str, Any]) -> bytes:
    return encode_json_object(_replace_nan(value))


def _replace_nan(value: Any) -> Any:
    """Return plain data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _replace_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_replace_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
