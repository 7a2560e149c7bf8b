"""Progress of a running sweep: trials by arm and status, the best of each arm, and the estimated time left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dirtune.training.trial import TrialJob
    from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome
    from dirtune.tuning.plan.plan import Plan


@dataclass(frozen=True)
class RunningTrial:
    """A trial that has a worker."""

    seed: int
    epoch: int
    """Last epoch that ended."""
    epochs: int

    @property
    def share(self) -> float:
        """The share of its epochs that have ended."""
        return min(1.0, self.epoch / self.epochs)


@dataclass
class ArmProgress:
    """Progress of one arm."""

    trials: int
    """Number of its trials, run or not."""
    counts: Counter[str] = field(default_factory=Counter)
    """Number of recorded trials by status."""
    running: dict[str, RunningTrial] = field(default_factory=dict)
    """By trial id."""
    best: float | None = None
    """Best validation objective of a complete trial."""

    @property
    def missing(self) -> int:
        """Number of trials that are not recorded."""
        return max(0, self.trials - self.counts.total())


class SweepProgress:
    """Progress of all arms, updated by the events of a sweep's view."""

    def __init__(self, plan: Plan, recorded: Sequence[RecordedTrial] = ()) -> None:
        self._mode = plan.study.objective.mode
        self.arms = {arm: ArmProgress(trials) for arm, trials in plan.trials.items()}
        for trial in recorded:
            self._count(trial.arm, trial.outcome)
        self._recorded_now = 0

    @property
    def total(self) -> int:
        """Number of trials, run or not."""
        return sum(arm.trials for arm in self.arms.values())

    @property
    def done(self) -> int:
        """Number of recorded trials."""
        return sum(arm.counts.total() for arm in self.arms.values())

    def update_epoch(self, job: TrialJob, epoch: int) -> None:
        """Count an epoch of a running trial."""
        epochs = job.config.epochs_planned
        self.arms[job.arm].running[job.trial_id] = RunningTrial(job.config.seed, epoch, epochs)

    def add_outcome(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Count a trial that has ended."""
        self.arms[job.arm].running.pop(job.trial_id, None)
        self._count(job.arm, outcome)
        self._recorded_now += 1

    def add_trials(self, jobs: Sequence[TrialJob]) -> None:
        """Count trials that were added to the plan while the sweep runs."""
        for job in jobs:
            self.arms[job.arm].trials += 1

    def estimate_seconds_left(self, elapsed: float) -> float | None:
        """Return the time left at the pace of this sweep's trials and epochs, or None before the first epoch has ended.

        Args:
            elapsed: seconds since the sweep began.
        """
        # Epochs of running trials count as parts of trials, or the estimate would start only with the first that ends.
        shares = sum(each.share for arm in self.arms.values() for each in arm.running.values())
        if not self._recorded_now + shares:
            return None
        missing = sum(arm.missing for arm in self.arms.values()) - shares
        return elapsed * max(0.0, missing) / (self._recorded_now + shares)

    def _count(self, arm: str, outcome: TrialOutcome) -> None:
        # Records of arms that were removed from the study since count for none.
        if (progress := self.arms.get(arm)) is None:
            return
        progress.counts[outcome.status] += 1
        if outcome.status == "complete" and outcome.objective is not None:
            # Pruned trials do not count: their objective is that of an earlier epoch.
            choose = min if self._mode == "min" else max
            progress.best = choose(outcome.objective, outcome.objective if progress.best is None else progress.best)
