"""The driver's side of a running sweep: hands out trials, takes in their endings, records what workers cannot, counts.

How Ray Tune asks and tells is in `dirtune.tuning.execution.tune_run`; everything that must survive is in the study's folder.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.results.records.store import write_record
from dirtune.study.resolve import Resources
from dirtune.training.trial import TRACEBACK, Progress, TrialJob, read_progress, tidy, trial_folder
from dirtune.tuning.execution.failures import FROM_THE_START, failed_record, memory_failure, reason
from dirtune.tuning.execution.fusing import Fusing
from dirtune.tuning.execution.scheduler import EPOCH, OBJECTIVE
from dirtune.tuning.execution.storage_failure import noted_as_outage
from dirtune.tuning.execution.trainable import FAILURE, HANDED_BACK
from dirtune.tuning.folder.memory_retry import as_decided, halve
from dirtune.tuning.folder.stop_request import StopWatch
from dirtune.tuning.plan.checks import Plan
from dirtune.tuning.search.queue import Agenda, Ending

CRASHES_TO_STOP = 3


class View(Protocol):
    """Whoever wants to see a sweep run: a progress bar, a log, a test."""

    def begin(self, plan: Plan) -> None: ...

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None: ...

    def ended(self, job: TrialJob, ending: Ending) -> None: ...

    def recovering(self, job: TrialJob, reason: str) -> None: ...

    def halved(self, job: TrialJob, reason: str) -> None: ...

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

    def halved(self, job: TrialJob, reason: str) -> None:
        """Nothing."""

    def further(self, jobs: Sequence[TrialJob]) -> None:
        """Nothing."""

    def stopping(self, reason: str) -> None:
        """Nothing."""


class _HandedOut(NamedTuple):
    at: datetime
    worker: str
    """Of those that share one, the first."""


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
    halved: set[str] = field(default_factory=set)
    """Ran out of memory and ran again."""
    added: int = 0
    """Trials of further seeds that have become due meanwhile."""
    outage: Exception | None = None
    """The folder or Optuna's storage has failed."""
    fusing: Fusing = field(init=False)
    _running: dict[str, _HandedOut] = field(default_factory=dict)
    _training: set[str] = field(default_factory=set)
    """Running trials that have a worker."""
    _crashes_in_a_row: int = 0

    def __post_init__(self) -> None:
        self.fusing = Fusing(self.resources.fuse)

    @property
    def is_finished(self) -> bool:
        """Nothing is left to start: the agenda is done, the sweep has to end, or workers die one after another."""
        crashing = self._crashes_in_a_row >= CRASHES_TO_STOP
        may_return = bool(self._running and self.resources.memory_retries)
        is_done = self.agenda.is_empty and not may_return
        ending = self.watch.reason is not None or self.outage is not None
        return is_done or ending or crashing

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
    def start(self) -> tuple[TrialJob, ...]:
        """The next trial, with those that one worker may train beside it; none if no worker is free or no trial is left."""
        self.look()
        free = self.concurrent - len({handed.worker for handed in self._running.values()})
        if self.is_finished or free <= 0:
            return ()
        # All workers get some.
        most = min(self.fusing.most, math.ceil(self.agenda.queued / free))
        # Only now: Optuna shall know as much as it can
        first = self.agenda.next()
        if first is None:
            return ()
        jobs = (first, *self.agenda.beside(first, most - 1))
        handed = _HandedOut(datetime.now(UTC), worker=first.trial_id)
        self._running |= dict.fromkeys((job.trial_id for job in jobs), handed)
        return tuple(as_decided(self.folder, job) for job in jobs)

    def training(self, job: TrialJob) -> None:
        """A worker has taken the trial."""
        self._training.add(job.trial_id)

    def recovering(self, job: TrialJob, error: BaseException) -> None:
        """The trial has lost its worker, and waits for another."""
        self._training.discard(job.trial_id)
        self.view.recovering(job, reason(error))

    @noted_as_outage
    def epoch(self, job: TrialJob, result: Mapping[str, Any]) -> None:
        self._crashes_in_a_row = 0
        objective = result.get(OBJECTIVE)
        self.agenda.report(job, result[EPOCH], objective)
        self.view.epoch(job, result[EPOCH], objective)

    @noted_as_outage
    def ended(self, job: TrialJob, result: Mapping[str, Any]) -> None:
        """A trial was recorded by its worker, handed back, or stopped by the scheduler (then it is recorded here)."""
        if result.get(HANDED_BACK):
            self._release(job)
            # Nothing may be left to start, and then nobody would look again.
            self._see(self.watch.look_now)
            return
        if (failure := result.get(FAILURE)) is not None:
            self.crash(job, failure)
            return
        status: Status = result.get("status") or "pruned"
        if status == "pruned":
            write_record(self.folder, self._progress_of(job).record("pruned"))
            tidy(self.folder, job.trial_id)
        self._finish(job, Ending(status=status, objective=result.get("best_objective")))

    @noted_as_outage
    def crash(self, job: TrialJob, error: BaseException) -> None:
        """The trial failed, as often as it may: it is recorded with the class of the error, which decides what is kept.

        One that ran out of memory is run again, with smaller micro-batches, where the study allows that.
        """
        progress = read_progress(self.folder, job.trial_id)
        too_large = memory_failure(error, job, progress)
        if too_large is not None and self._is_halved(job, too_large):
            return
        record = failed_record(job, progress, error, fingerprint=self.fingerprint, begun=self._running[job.trial_id].at)
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

    def _is_halved(self, job: TrialJob, error: OutOfMemory) -> bool:
        again = halve(self.folder, job, error, self.resources)
        if again is None:
            return False
        self._release(job)
        self.halved.add(job.trial_id)
        self.agenda.again(again)
        self.view.halved(again, str(error))
        return True

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
