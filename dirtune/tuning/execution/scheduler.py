"""A Tune scheduler that judges the trials of every arm among themselves.

One scheduler for a whole study would stop the trials of an arm because another arm is better, and the arms would end
with unequal budgets. So each arm has its own, and this one only passes trials on to it. In a sweep that is resumed, each
scheduler is first told what the trials before have come to, so that it decides as if nothing had been interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from dirtune.results.records.schema import TUNING
from dirtune.study.resolve import Arm, ResolvedStudy
from dirtune.study.search_settings import Asha, Median
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.learning_curves import Curve, EarlierTrials

JOBS, ARM, EPOCH, OBJECTIVE = "jobs", "arm", "epoch", "objective"


class PerArmScheduler(FIFOScheduler):
    """Decides with the scheduler of the trial's arm; arms without one run every trial to its end.

    Args:
        earlier: the trials before this driver; those that go on are told when they report for the first time.
        replicate: of the trials of searches; others, which confirm what was selected, run to their end.
    """

    def __init__(
        self,
        by_arm: dict[str, TrialScheduler],
        earlier: EarlierTrials = EarlierTrials(),  # noqa: B008 - frozen
        *,
        replicate: int = 0,
    ) -> None:
        super().__init__()
        self.by_arm, self._replicate = by_arm, replicate
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
        scheduler = self._of(trial)
        if scheduler is None or not self._is_news(trial, result):
            return str(TrialScheduler.CONTINUE)
        self._recall(scheduler, trial, before=result[EPOCH])
        return str(scheduler.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        scheduler = self._of(trial)
        if scheduler is not None and self._is_news(trial, result):
            self._recall(scheduler, trial, before=result[EPOCH])
            scheduler.on_trial_complete(tune_controller, trial, result)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None in particular: Tune then gives a worker that is free to a trial for which none is starting.

        What is inherited names the trial that has waited longest. If a worker is just starting for it, such as on a node that
        has joined, Tune gives it the free one and ends the other; where trials are shorter than the start of a worker, the
        new node would never be used. Nothing is lost, for no trial is ever paused.
        """

    def debug_string(self) -> str:
        return f"one scheduler per arm: {', '.join(sorted(self.by_arm))}"

    def _of(self, trial: Trial) -> TrialScheduler | None:
        job = _job_of(trial)
        if job is not None and job.replicate != self._replicate:
            return None
        return self.by_arm.get(trial.config[ARM])

    def _is_news(self, trial: Trial, result: dict[str, Any]) -> bool:
        """Whether an objective comes for the first time; a worker that was replaced repeats epochs."""
        if OBJECTIVE not in result or result[EPOCH] <= self._told.get(trial.trial_id, 0):
            return False
        self._told[trial.trial_id] = result[EPOCH]
        return True

    def _recall(self, scheduler: TrialScheduler, trial: Trial, *, before: int) -> None:
        """Tell what a trial that goes on had come to under an earlier driver."""
        job = _job_of(trial)
        curve = self._started.pop(job.trial_id, ()) if job else ()
        _remember(scheduler, trial, [point for point in curve if point[0] < before])


def build_scheduler(
    study: ResolvedStudy,
    earlier: EarlierTrials = EarlierTrials(),  # noqa: B008 - frozen
) -> PerArmScheduler:
    """The scheduler of a study: that of its search in every searched arm, if it has one."""
    search = study.study.search
    # Which is no matter of stopping
    if search.scheduler is None or search.population is not None:
        return PerArmScheduler({})
    return PerArmScheduler(
        {arm.name: _of_arm(study, arm) for arm in study.searched_arms},
        earlier,
        replicate=TUNING if study.confirms else 0,
    )


def _of_arm(study: ResolvedStudy, arm: Arm) -> TrialScheduler:
    wanted, mode = study.study.search.scheduler, study.study.objective.mode
    assert isinstance(wanted, Asha | Median), "only asked for where there is one"
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


def _job_of(trial: Trial) -> TrialJob | None:
    """The trial, or the first of those that are one to Tune."""
    jobs: Sequence[TrialJob] = trial.config.get(JOBS, ())
    return jobs[0] if jobs else None
