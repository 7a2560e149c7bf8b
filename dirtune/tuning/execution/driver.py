"""The driver's side of a running sweep: hands out trials, takes in their endings, records what workers cannot, counts.

How Ray Tune asks and tells is in `dirtune.tuning.execution.tune_run`; everything that must survive is in the study's folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.results.records.store import write_record
from dirtune.study.schema import Resources
from dirtune.training.trial import TRACEBACK, Progress, TrialJob, read_progress, tidy, trial_folder
from dirtune.tuning.execution.failures import FROM_THE_START, failed_record, reason
from dirtune.tuning.execution.storage_failure import noted_as_outage
from dirtune.tuning.execution.worker import StepResult
from dirtune.tuning.folder.stop_request import StopWatch
from dirtune.tuning.plan.plan import Plan
from dirtune.tuning.search.queue import Agenda, Ending

CRASHES_TO_STOP = 3


class View(Protocol):
    """Whoever wants to see a sweep run: a progress bar, a log, a test."""

    def begin(self, plan: Plan) -> None: ...

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None: ...

    def ended(self, job: TrialJob, ending: Ending) -> None: ...

    def recovering(self, job: TrialJob, reason: str) -> None: ...

    def further(self, jobs: Sequence[TrialJob]) -> None: ...

    def stopping(self, reason: str) -> None: ...


class Silent:
    """Shows nothing."""

    def begin(self, plan: Plan) -> None:
        """Nothing."""

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        """Nothing."""

    def ended(self, job: TrialJob, ending: Ending) -> None:
        """Nothing."""

    def recovering(self, job: TrialJob, reason: str) -> None:
        """Nothing."""

    def further(self, jobs: Sequence[TrialJob]) -> None:
        """Nothing."""

    def stopping(self, reason: str) -> None:
        """Nothing."""


@dataclass
class Driver:
    """Hands out the trials of an agenda and takes in their endings."""

    agenda: Agenda
    folder: Storage
    view: View
    concurrent: int
    fingerprint: str
    """Of the data."""
    watch: StopWatch
    resources: Resources = Resources()  # noqa: RUF009 - frozen
    counts: dict[Status, int] = field(default_factory=dict)
    crashed: dict[str, str] = field(default_factory=dict)
    """Why, by trial."""
    tracebacks: list[str] = field(default_factory=list)
    """Files, where a trial's own code raised."""
    to_retry: set[str] = field(default_factory=set)
    """Failed in a way that `resume` tries again."""
    added: int = 0
    """Trials of further seeds that have become due meanwhile."""
    outage: Exception | None = None
    """The folder or Optuna's storage has failed."""
    _running: dict[str, datetime] = field(default_factory=dict)
    """When a trial was handed out."""
    _training: set[str] = field(default_factory=set)
    """Running trials that have a worker."""
    _crashes_in_a_row: int = 0

    @property
    def is_finished(self) -> bool:
        """Nothing is left to start: the agenda is done, the sweep has to end, or workers die one after another."""
        crashing = self._crashes_in_a_row >= CRASHES_TO_STOP
        ending = self.watch.reason is not None or self.outage is not None
        return self.agenda.is_empty or ending or crashing

    @property
    def is_stopped(self) -> bool:
        """The sweep is asked to end, and no worker trains any more; or what they train could not be recorded."""
        asked = self.watch.reason is not None and not self._training
        return asked or self.outage is not None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles what it is given, for a restore of its own that is never used here.
        return {}

    @noted_as_outage
    def look(self) -> None:
        """See whether the sweep has been asked to end."""
        self._see(self.watch.look)

    @noted_as_outage
    def start(self) -> TrialJob | None:
        """Return the next trial; None if no worker is free or no trial is left."""
        self.look()
        if self.is_finished or len(self._running) >= self.concurrent:
            return None
        # Only now: Optuna shall know as much as it can
        job = self.agenda.next()
        if job is not None:
            self._running[job.trial_id] = datetime.now(UTC)
        return job

    def training(self, job: TrialJob) -> None:
        """A worker has taken the trial."""
        self._training.add(job.trial_id)

    def recovering(self, job: TrialJob, error: BaseException) -> None:
        """The trial has lost its worker, and waits for another."""
        self._training.discard(job.trial_id)
        self.view.recovering(job, reason(error))

    @noted_as_outage
    def epoch(self, job: TrialJob, result: StepResult) -> None:
        self._crashes_in_a_row = 0
        self.agenda.report(job, result.epoch, result.objective)
        self.view.epoch(job, result.epoch, result.objective)

    @noted_as_outage
    def ended(self, job: TrialJob, result: StepResult) -> None:
        """A trial was recorded by its worker, handed back, or stopped by the scheduler (then it is recorded here)."""
        if result.handed_back:
            self._release(job)
            # Nothing may be left to start, and then nobody would look again.
            self._see(self.watch.look_now)
            return
        if result.failure is not None:
            self.crash(job, result.failure)
            return
        # Without a status the scheduler has stopped the trial before its worker could record it.
        status: Status = result.status or "pruned"
        if status == "pruned":
            write_record(self.folder, self._progress_of(job).record("pruned"))
            tidy(self.folder, job.trial_id)
        self._finish(job, Ending(status=status, objective=result.best_objective))

    @noted_as_outage
    def crash(self, job: TrialJob, error: BaseException) -> None:
        """The trial failed, as often as it may: it is recorded with the class of the error, which decides what is kept."""
        record = failed_record(
            job,
            read_progress(self.folder, job.trial_id),
            error,
            fingerprint=self.fingerprint,
            begun=self._running[job.trial_id],
            workers=self.resources.workers,
        )
        write_record(self.folder, record)
        if record.trial["error_class"] in FROM_THE_START:
            tidy(self.folder, job.trial_id)
        if record.trial["error_class"] == "code":
            folder = trial_folder(self.folder, job.trial_id)
            folder.write(TRACEBACK, str(error).encode())
            self.tracebacks.append(folder.path(TRACEBACK))
        if record.trial["error_class"] == "infrastructure":
            self.to_retry.add(job.trial_id)
            self.agenda.lose(job)
        self.crashed[job.trial_id] = str(record.trial["error"])
        self._crashes_in_a_row += 1
        self._finish(job, Ending(status="failed", objective=None))

    def _see(self, look: Callable[[], None]) -> None:
        before = self.watch.reason
        look()
        if self.watch.reason is not None and before is None:
            self.view.stopping(self.watch.reason)

    def _progress_of(self, job: TrialJob) -> Progress:
        progress = read_progress(self.folder, job.trial_id)
        assert progress is not None, "a trial that has reported has written its progress"
        return progress

    def _finish(self, job: TrialJob, ending: Ending) -> None:
        self._release(job)
        self.counts[ending.status] = self.counts.get(ending.status, 0) + 1
        self.agenda.tell(job, ending)
        self.view.ended(job, ending)
        if further := self.agenda.further():
            self.added += len(further)
            self.view.further(further)

    def _release(self, job: TrialJob) -> None:
        self._running.pop(job.trial_id, None)
        self._training.discard(job.trial_id)
