"""Values that `sweep` and `resume` exchange with their callers: options, the events of the run, and its summary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dirtune.io.storage import Storage
from dirtune.results.records.schema import ErrorClass, Status
from dirtune.trackers.target import Target

if TYPE_CHECKING:
    # Only for annotations, since a caller may need neither Ray nor torch.
    from dirtune.training.trial import TrialJob
    from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome
    from dirtune.tuning.plan.autoscaling import NodeType
    from dirtune.tuning.plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run that are no part of the study."""

    data: Storage
    """Root of the ingested data sets."""
    results: Storage
    """Root of the results."""
    results_location: str | Path
    """The path or URL of this root."""
    retry: Collection[ErrorClass]
    """Error classes of failed trials that run again."""
    node_types: Sequence[NodeType] = ()
    """Nodes that an autoscaler may start."""
    log: Sequence[Target] = ()
    """Trackers to which trials are written, in addition to those of the study."""


class View:
    """Events of a running sweep; this base class shows nothing, and subclasses override the events that they show."""

    def begin(self, plan: Plan, recorded: Sequence[RecordedTrial] = ()) -> None:
        """Show that the sweep starts to run the trials that are not recorded."""

    def report_activity(self, activity: str) -> None:
        """Show what is being done while no trial runs, such as the start of the workers."""

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        """Show that a trial has ended an epoch, with its validation objective."""

    def report_end(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Show that a trial has ended and is recorded."""

    def report_worker_loss(self, job: TrialJob, reason: str) -> None:
        """Show that a trial has lost its worker and waits for another one."""

    def report_set_aside(self, gpu: str) -> None:
        """Show that a GPU keeps failing and gets no more trials of this sweep."""

    def report_new_trials(self, jobs: Sequence[TrialJob]) -> None:
        """Show the trials of further seeds that a sequential study has added."""

    def report_stop(self, reason: str) -> None:
        """Show that the sweep stops once every running trial has ended its epoch."""


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """Result of a sweep: trials that it ran, reused and left."""

    folder: str
    """Path or URL of the study's folder."""
    reused: int
    """Trials that were recorded before."""
    orphaned: int
    """Recorded trials that the study no longer plans."""
    run: Mapping[Status, int]
    """Trials of this run by status."""
    crashed: Mapping[str, str]
    """Trials of this run whose worker died or raised, with the reasons."""
    tracebacks: Sequence[str] = ()
    """Files with the tracebacks of those trials whose own code raised."""
    left: int
    """Trials that `resume` runs: not recorded, or failed by infrastructure."""
    stopped: str | None = None
    """Source of the stop request: a signal, or `dirtune stop`; None if the sweep was not stopped."""
    floors_problem: str = ""
    """Why the reference predictors of the study could not be recorded; empty if they are."""
