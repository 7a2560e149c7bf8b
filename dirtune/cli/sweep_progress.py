"""How far a running sweep is, as its driver sees it: trials by arm and state, the best of each arm, the time that is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dirtune.training.trial import TrialJob
from dirtune.tuning.plan.checks import Plan
from dirtune.tuning.search.queue import Ending


@dataclass(frozen=True)
class Running:
    """A trial that has a worker."""

    seed: int
    epoch: int
    """That has ended."""
    epochs: int

    @property
    def share(self) -> float:
        return min(1.0, self.epoch / self.epochs)


@dataclass
class ArmTally:
    """One arm."""

    planned: int
    ended: Counter[str] = field(default_factory=Counter)
    """By status."""
    running: dict[str, Running] = field(default_factory=dict)
    """By trial."""
    best: float | None = None
    """Validation objective of a complete trial."""

    @property
    def left(self) -> int:
        return max(0, self.planned - self.ended.total())


class Tally:
    """Takes in what a view is told."""

    def __init__(self, plan: Plan) -> None:
        self._mode = plan.study.study.objective.mode
        self.arms = {arm: ArmTally(planned) for arm, planned in plan.trials.items()}
        for arm, ending in plan.earlier:
            self._count(arm, ending)
        self._ended_now = 0

    @property
    def planned(self) -> int:
        return sum(arm.planned for arm in self.arms.values())

    @property
    def done(self) -> int:
        return sum(arm.ended.total() for arm in self.arms.values())

    def epoch(self, job: TrialJob, epoch: int) -> None:
        epochs = job.config.epochs_planned
        self.arms[job.arm].running[job.trial_id] = Running(job.config.seed, epoch, epochs)

    def ended(self, job: TrialJob, ending: Ending) -> None:
        self.arms[job.arm].running.pop(job.trial_id, None)
        self._count(job.arm, ending)
        self._ended_now += 1

    def further(self, jobs: Sequence[TrialJob]) -> None:
        for job in jobs:
            self.arms[job.arm].planned += 1

    def seconds_left(self, elapsed: float) -> float | None:
        """At the pace of the trials and epochs of this sweep so far; None before the first of them has ended."""
        shares = sum(each.share for arm in self.arms.values() for each in arm.running.values())
        if not self._ended_now + shares:
            return None
        left = sum(arm.left for arm in self.arms.values()) - shares
        return elapsed * max(0.0, left) / (self._ended_now + shares)

    def _count(self, arm: str, ending: Ending) -> None:
        # Records of arms that the study has no longer are counted nowhere.
        if (known := self.arms.get(arm)) is None:
            return
        known.ended[ending.status] += 1
        if ending.status == "complete" and ending.objective is not None:
            choose = min if self._mode == "min" else max
            known.best = choose(ending.objective, ending.objective if known.best is None else known.best)
