"""`Driver`: hands out the trials of a sweep, handles their events, records what workers cannot, and counts.

`dirtune.tuning.execution.tune_run` connects it with Ray Tune; everything that must survive is in the study's folder.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dirtune.data.memory_budget import count_sharers
from dirtune.io.storage import RETRY_SECONDS, Storage
from dirtune.results.records import schema, store
from dirtune.training.trial import TRACEBACK, TrialJob, get_trial_folder, read_progress, remove_temporary_files
from dirtune.tuning.execution import failures, worker
from dirtune.tuning.execution.device_faults import FAULTS_TO_SET_ASIDE, GpuPlace
from dirtune.tuning.execution.storage_failure import capture_storage_errors
from dirtune.tuning.folder import models, reconcile, records, retry, stop_request
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.lock import HEARTBEAT_SECONDS
from dirtune.tuning.interface import SweepSummary, View
from dirtune.tuning.plan.plan import Plan
from dirtune.tuning.search.queue import TrialQueue

CRASHES_TO_STOP = 3
"""Failed trials in a row, without an epoch of any trial between them, after which a sweep starts no more trials."""


@dataclass
class Driver:
    """Hands out the trials of a queue and handles their events."""

    queue: TrialQueue
    folder: reconcile.StudyFolder
    view: View
    stop: stop_request.StopRequest
    concurrency: int
    """Number of concurrent trials; updated while nodes join and leave."""
    check_lock: Callable[[], None]
    """Raises if another driver has taken the study; called before anything is written."""
    while_starting: Callable[[], object] = lambda: None
    """Called once, while the first workers start, which takes them seconds; it must not take longer."""
    storage: Storage = field(init=False)
    """The study's folder, with retries of failed operations."""
    counts: dict[schema.Status, int] = field(default_factory=dict)
    """Ended trials by status."""
    crashed: dict[str, str] = field(default_factory=dict)
    """Reason of every failed trial whose worker died or raised."""
    tracebacks: list[str] = field(default_factory=list)
    """Files with the tracebacks of trials whose own code raised."""
    to_retry: set[str] = field(default_factory=set)
    """Trials that failed in a way that `resume` retries."""
    added: int = 0
    """Trials of further seeds that have become due."""
    storage_failure: Exception | None = None
    """First error of the study's folder or of Optuna's storage."""
    _started_at: dict[str, datetime] = field(default_factory=dict)
    """Start of every trial that was handed out and has not ended."""
    unreleased: set[str] = field(default_factory=set)
    """Ended trials, by their ids in Tune, whose workers it does not know as idle yet: it would start others for the next ones."""
    _on_worker: set[str] = field(default_factory=set)
    """Those of these trials that have a worker."""
    device_faults: dict[GpuPlace, int] = field(default_factory=dict)
    """Faults of GPUs since the last epoch on them."""
    _recorded: dict[str, records.RecordedTrial] = field(default_factory=dict)
    """Recorded trials by id, once a search has needed them; empty before."""
    _crashes_in_a_row: int = 0
    _working_gpus: set[GpuPlace] = field(default_factory=set)
    _set_aside: set[GpuPlace] = field(default_factory=set)
    _lock_checked_at: float = float("-inf")

    def __post_init__(self) -> None:
        self.storage = self.folder.storage.with_retry(RETRY_SECONDS)

    @property
    def is_finished(self) -> bool:
        """True if no trial is started any more: the queue is empty, the sweep stops, or trials fail one after another."""
        has_to_stop = self.stop.reason is not None or self.storage_failure is not None
        # A GPU that fails on and on must not use up the trials, whatever the other ones do.
        limit = FAULTS_TO_SET_ASIDE + CRASHES_TO_STOP * count_sharers(
            cpus=1, gpus=self.folder.study.resources.gpus or 1
        )
        has_to_stop = has_to_stop or max(self.device_faults.values(), default=0) >= limit
        return self.queue.is_empty or has_to_stop or self._crashes_in_a_row >= CRASHES_TO_STOP

    @property
    def is_stopped(self) -> bool:
        """True if a stop was requested and no trial has a worker any more, or if trials cannot be recorded."""
        return (self.stop.reason is not None and not self._on_worker) or self.storage_failure is not None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher and callbacks, for a restore of its own that is never used here.
        return {}

    @capture_storage_errors
    def check_stop(self) -> None:
        """Check whether a stop was requested and the lock is held; call it as often as you like."""
        # A driver that was paused finds another one here, even if its trials take hours
        if time.monotonic() - self._lock_checked_at >= HEARTBEAT_SECONDS:
            self.check_lock()
            self._lock_checked_at = time.monotonic()
        self._check_stop(self.stop.check)

    @capture_storage_errors
    def start_trial(self) -> TrialJob | None:
        """Return the next trial; None if no slot is free, or no trial is left or known before another one ends."""
        self.check_stop()
        if self.is_finished or len(self._started_at) + len(self.unreleased) >= self.concurrency:
            return None
        self.check_lock()
        # Asked for as late as possible, so that a sampler knows the results of as many trials as possible.
        job = self.queue.get_next()
        if job is not None:
            self._started_at[job.trial_id] = datetime.now(UTC)
        return job

    def on_trial_started(self, job: TrialJob) -> None:
        """Handle that a worker has taken a trial."""
        self._on_worker.add(job.trial_id)

    def on_worker_lost(self, job: TrialJob, error: BaseException) -> None:
        """Handle that a trial has lost its worker and waits for another one."""
        self._on_worker.discard(job.trial_id)
        self._count_device_fault(error)
        self.view.report_worker_loss(job, failures.get_reason(error))

    def find_gpus_to_set_aside(self) -> list[GpuPlace]:
        """Return GPUs that keep failing while others work, each once."""
        found = [
            place
            for place, faults in self.device_faults.items()
            # The last GPU is no use to anyone if it is held.
            if faults >= FAULTS_TO_SET_ASIDE and place not in self._set_aside and self._working_gpus - {place}
        ]
        for place in found:
            self._set_aside.add(place)
            self.view.report_set_aside(str(place))
        return found

    @capture_storage_errors
    def on_epoch_ended(self, job: TrialJob, result: worker.StepResult) -> None:
        """Handle the result of an epoch, and of those before it."""
        self._crashes_in_a_row = 0
        if result.place is not None:
            self.device_faults.pop(result.place, None)
            self._working_gpus.add(result.place)
        for epoch, objective in (*result.before, (result.epoch, result.objective)):
            self.queue.report(job, epoch, objective)
            self.view.report_epoch(job, epoch, objective)

    @capture_storage_errors
    def on_trial_ended(self, job: TrialJob, result: worker.StepResult) -> None:
        """Handle a trial that was recorded by its worker, handed back, has failed, or was stopped by the scheduler."""
        self.check_lock()
        if result.handed_back:
            self._release(job)
            # At once: if no trial is left to start, the stop request would not be seen any more.
            self._check_stop(self.stop.check_now)
            return
        if result.failure is not None:
            self.on_trial_failed(job, result.failure)
            return
        # No status: the scheduler stopped the trial before its worker could record it.
        status: schema.Status = result.status or "pruned"
        if status == "pruned":
            progress = read_progress(self.storage, job.trial_id)
            if progress is None:
                # Damaged or removed by others: the trial runs again
                self.on_trial_failed(job, OSError("the progress of a stopped trial was lost"))
                return
            store.write_record(self.storage, progress.make_record("pruned"))
            remove_temporary_files(self.storage, job.trial_id)
        self._finish(job, records.TrialOutcome(status=status, objective=result.best_objective))

    @capture_storage_errors
    def on_trial_failed(self, job: TrialJob, error: BaseException) -> None:
        """Record a trial that failed and is not retried in this sweep; the class of the error decides which files stay."""
        self.check_lock()
        record = failures.make_failed_record(
            job,
            read_progress(self.storage, job.trial_id),
            error,
            fingerprint=self.folder.manifest.fingerprint,
            started_at=self._started_at[job.trial_id],
            workers=self.folder.study.resources.workers,
        )
        store.write_record(self.storage, record)
        error_class = record.trial["error_class"]
        if error_class in retry.CLASSES_THAT_START_OVER:
            remove_temporary_files(self.storage, job.trial_id)
        if error_class == "code":
            # The record has one line of it; the whole traceback would bloat the table.
            folder = get_trial_folder(self.storage, job.trial_id)
            folder.write(TRACEBACK, str(error).encode())
            self.tracebacks.append(folder.path(TRACEBACK))
        if error_class == "infrastructure":
            # Only a resumed sweep learns its outcome, so that its search must not select before.
            self.to_retry.add(job.trial_id)
            self.queue.mark_lost(job)
        self.crashed[job.trial_id] = str(record.trial["error"])
        self._crashes_in_a_row += 1
        self._count_device_fault(error)
        self._finish(job, records.TrialOutcome(status="failed", objective=None))

    def summarize(self, plan: Plan, *, reused: int, orphaned: int) -> SweepSummary:
        """Return the summary of the sweep.

        Args:
            plan: trials of the study when the sweep began.
            reused: trials that were recorded before.
            orphaned: recorded trials that the study no longer plans.
        """
        recorded = len(records.read_recorded_trials(self.folder.storage))
        missing = plan.total_trials + self.added - recorded - self.queue.skipped
        return SweepSummary(
            folder=self.folder.storage.path(),
            reused=reused,
            orphaned=orphaned,
            run=self.counts,
            crashed=self.crashed,
            tracebacks=self.tracebacks,
            left=max(0, missing) + len(self.to_retry),
            stopped=self.stop.reason,
        )

    def _check_stop(self, check: Callable[[], None]) -> None:
        was_requested = self.stop.reason is not None
        check()
        if self.stop.reason is not None and not was_requested:
            self.view.report_stop(self.stop.reason)

    def _count_device_fault(self, error: BaseException) -> None:
        fault = failures.find_device_fault(error)
        # A failed check of a kernel's own code says nothing about the GPU.
        if fault is not None and not fault.is_of_code:
            self.device_faults[fault.place] = self.device_faults.get(fault.place, 0) + 1
            self._working_gpus.discard(fault.place)

    def _finish(self, job: TrialJob, outcome: records.TrialOutcome) -> None:
        self._release(job)
        self.counts[outcome.status] = self.counts.get(outcome.status, 0) + 1
        self.queue.tell(job, outcome)
        if self._recorded:
            self._recorded[job.trial_id] = records.RecordedTrial(
                trial_id=job.trial_id, arm=job.arm, role=job.role, seed=job.config.seed, outcome=outcome
            )
        self._remove_unselected_models(job)
        self.view.report_end(job, outcome)
        if new := self.queue.add_new_trials():
            self.added += len(new)
            self.view.report_new_trials(new)

    def _remove_unselected_models(self, job: TrialJob) -> None:
        """Remove the models that a better trial of the same search has replaced."""
        study = self.folder.study
        # The records are read once, where a model may have been replaced: all of them after each trial would be quadratic.
        if study.keep_models == "best" and not study.search.confirm and job.arm in self.queue.searches:
            maker = JobMaker(study=study, fingerprint=self.folder.manifest.fingerprint)
            if not self._recorded:
                found = records.read_recorded_trials(self.storage)
                self._recorded = {each.trial_id: each for each in found}
            models.remove_unselected_models(self.storage, maker, self._recorded.values())

    def _release(self, job: TrialJob) -> None:
        self._started_at.pop(job.trial_id, None)
        self._on_worker.discard(job.trial_id)
