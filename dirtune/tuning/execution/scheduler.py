"""A Tune scheduler that judges the trials of every arm among themselves.

One scheduler for a whole study would stop the trials of an arm because another arm is better, and the arms would end
with unequal budgets. So each arm has its own, and this one only passes trials on to it. In a sweep that is resumed, each
scheduler is first told what the trials before have come to, so that it decides as if nothing had been interrupted.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from dirtune.results.records.schema import Role
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.study.search_settings import Median
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution.trainable import JOB, RESULT
from dirtune.tuning.execution.worker import StepResult
from dirtune.tuning.folder.learning_curves import Curve, EarlierTrials

EPOCH, OBJECTIVE = "epoch", "objective"
"""Keys of the results that the schedulers of the arms see."""


class PerArmScheduler(FIFOScheduler):
    """Decides with the scheduler of the trial's arm; arms without one run every trial to its end.

    Args:
        earlier: the trials before this driver; those that go on are told when they report for the first time.
        role: role of the trials of searches; trials of another role, which evaluate a selection, run to their end.
    """

    def __init__(
        self,
        by_arm: dict[str, TrialScheduler],
        earlier: EarlierTrials = EarlierTrials(),  # noqa: B008 - frozen
        *,
        role: Role = "evaluation",
    ) -> None:
        super().__init__()
        self.by_arm, self._role = by_arm, role
        self._started = dict(earlier.started)
        # Last epoch by Tune's trial id
        self._told: dict[str, int] = {}
        for arm, scheduler in by_arm.items():
            for curve in earlier.ended.get(arm, ()):
                trial = Trial("ended", stub=True)
                scheduler.on_trial_add(None, trial)
                _remember(scheduler, trial, curve)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if scheduler := self._of(trial):
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        scheduler, values = self._of(trial), self._take_news(trial, result)
        if scheduler is None or values is None:
            return str(TrialScheduler.CONTINUE)
        self._recall(scheduler, trial, before=values[EPOCH])
        return str(scheduler.on_trial_result(tune_controller, trial, values))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        scheduler, values = self._of(trial), self._take_news(trial, result)
        if scheduler is not None and values is not None:
            self._recall(scheduler, trial, before=values[EPOCH])
            scheduler.on_trial_complete(tune_controller, trial, values)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None in particular: Tune then gives a worker that is free to a trial for which none is starting.

        What is inherited names the trial that has waited longest. If a worker is just starting for it, such as on a node that
        has joined, Tune gives it the free one and ends the other; where trials are shorter than the start of a worker, the
        new node would never be used. Nothing is lost, for no trial is ever paused.
        """

    def debug_string(self) -> str:
        return f"one scheduler per arm: {', '.join(sorted(self.by_arm))}"

    def _of(self, trial: Trial) -> TrialScheduler | None:
        job: TrialJob = trial.config[JOB]
        return self.by_arm.get(job.arm) if job.role == self._role else None

    def _take_news(self, trial: Trial, result: dict[str, Any]) -> dict[str, Any] | None:
        """Return epoch and objective of a result; None if there is no objective or a replaced worker repeats the epoch."""
        step: StepResult = result[RESULT]
        if step.objective is None or step.epoch <= self._told.get(trial.trial_id, 0):
            return None
        self._told[trial.trial_id] = step.epoch
        return {EPOCH: step.epoch, OBJECTIVE: step.objective}

    def _recall(self, scheduler: TrialScheduler, trial: Trial, *, before: int) -> None:
        """Tell what a trial that goes on had come to under an earlier driver."""
        curve = self._started.pop(trial.config[JOB].trial_id, ())
        _remember(scheduler, trial, [point for point in curve if point[0] < before])


def build_scheduler(
    study: ResolvedStudy,
    earlier: EarlierTrials = EarlierTrials(),  # noqa: B008 - frozen
) -> PerArmScheduler:
    """The scheduler of a study: that of its search in every searched arm, if it has one."""
    search = study.search
    if search.scheduler is None:
        return PerArmScheduler({})
    return PerArmScheduler(
        {arm.name: _of_arm(study, arm) for arm in study.searched_arms},
        earlier,
        role="search" if study.search.confirm else "evaluation",
    )


def _of_arm(study: ResolvedStudy, arm: Arm) -> TrialScheduler:
    wanted, mode = study.search.scheduler, study.objective.mode
    assert wanted is not None, "only asked for where there is one"
    if isinstance(wanted, Median):
        return MedianStoppingRule(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=mode,
            grace_period=wanted.grace_epochs,
            min_samples_required=wanted.min_trials,
            # Never pause for the others: what a trial has done since its last checkpoint would be lost.
            min_time_slice=float("inf"),
        )
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode=mode,
        max_t=arm.config.epochs_planned,
        grace_period=wanted.grace_epochs,
        reduction_factor=wanted.reduction_factor,
    )


def _remember(scheduler: TrialScheduler, trial: Trial, curve: Curve) -> None:
    """Tell a scheduler what a trial came to; what it would decide is of the past."""
    for epoch, objective in curve:
        result = {EPOCH: epoch, OBJECTIVE: objective}
        if isinstance(scheduler, MedianStoppingRule):
            # Keeps a result and decides nothing
            scheduler.on_trial_complete(None, trial, result)
        else:
            scheduler.on_trial_result(None, trial, result)
