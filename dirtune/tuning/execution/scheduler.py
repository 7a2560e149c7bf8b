"""Tune scheduler that compares the trials of every arm among themselves.

One scheduler for a whole study would stop the trials of an arm because another arm is better, and the arms would end
with unequal budgets. So each arm has its own scheduler, and this one only forwards results to it. When a sweep is resumed,
the learning curves of earlier trials are replayed to each scheduler, so it decides as if nothing had been interrupted.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from dirtune.results.records.schema import Role
from dirtune.study import resolve, schema, search_settings
from dirtune.training.trial import TrialJob
from dirtune.tuning.execution import trainable, worker
from dirtune.tuning.folder.records import Curve, LearningCurves

EPOCH, OBJECTIVE = "epoch", "objective"
"""Keys of the results that are forwarded to the schedulers of the arms."""


class PerArmScheduler(FIFOScheduler):
    """Scheduler that decides with the scheduler of the trial's arm; arms without one run every trial to its end.

    Args:
        learning_curves: trials of earlier drivers; the curve of one that is resumed is replayed when it reports for the first time.
        role: role of the trials of searches; trials of another role, which evaluate a selection, run to their end.
        names: names of further searches by arm and seed of the trial; otherwise the name is the arm's.
    """

    def __init__(
        self,
        by_search: dict[str, TrialScheduler],
        learning_curves: LearningCurves = LearningCurves(),  # noqa: B008 - frozen
        *,
        role: Role = "evaluation",
        names: Mapping[tuple[str, int], str] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        self.by_search, self._role, self._names = by_search, role, names
        self._started = dict(learning_curves.in_progress)
        self._last_epoch: dict[str, int] = {}
        for name, scheduler in by_search.items():
            for curve in learning_curves.recorded.get(name, ()):
                trial = Trial("ended", stub=True)
                scheduler.on_trial_add(None, trial)
                _replay(scheduler, trial, curve)

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if scheduler := self._get_scheduler(trial):
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        scheduler, values = self._get_scheduler(trial), self._select_new_values(trial, result)
        if scheduler is None or values is None:
            return str(TrialScheduler.CONTINUE)
        self._replay_earlier_epochs(scheduler, trial, before=values[EPOCH])
        return str(scheduler.on_trial_result(tune_controller, trial, values))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        scheduler, values = self._get_scheduler(trial), self._select_new_values(trial, result)
        if scheduler is not None and values is not None:
            self._replay_earlier_epochs(scheduler, trial, before=values[EPOCH])
            scheduler.on_trial_complete(tune_controller, trial, values)

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose no trial, so that Tune gives a free worker to a trial for which no worker is starting.

        The inherited method chooses the trial that has waited longest. If a worker is just starting for it, for example on a
        node that has joined, Tune gives it the free worker and ends the starting one; if trials are shorter than the start of
        a worker, the new node would never be used. Choosing none loses nothing, since no trial is ever paused.
        """

    def debug_string(self) -> str:
        return f"one scheduler per arm: {', '.join(sorted(self.by_search))}"

    def _get_scheduler(self, trial: Trial) -> TrialScheduler | None:
        job: TrialJob = trial.config[trainable.JOB]
        name = self._names.get((job.arm, job.config.seed), job.arm)
        return self.by_search.get(name) if job.role == self._role else None

    def _select_new_values(self, trial: Trial, result: dict[str, Any]) -> dict[str, Any] | None:
        """Return epoch and objective of a result; None if there is no objective, or if a new worker repeats the epoch."""
        step: worker.StepResult = result[trainable.RESULT]
        if step.objective is None or step.epoch <= self._last_epoch.get(trial.trial_id, 0):
            return None
        self._last_epoch[trial.trial_id] = step.epoch
        return {EPOCH: step.epoch, OBJECTIVE: step.objective}

    def _replay_earlier_epochs(self, scheduler: TrialScheduler, trial: Trial, *, before: int) -> None:
        """Replay the epochs that a resumed trial had ended under an earlier driver."""
        curve = self._started.pop(trial.config[trainable.JOB].trial_id, ())
        _replay(scheduler, trial, [point for point in curve if point[0] < before])


def build_scheduler(
    study: resolve.ResolvedStudy,
    learning_curves: LearningCurves = LearningCurves(),  # noqa: B008 - frozen
) -> PerArmScheduler:
    """Return the scheduler of a study: that of its search settings in every searched arm, if there is one."""
    if study.search.scheduler is None:
        return PerArmScheduler({})
    return PerArmScheduler(
        {each.name: _build_arm_scheduler(study, each.arm) for each in study.searches},
        learning_curves,
        role=get_scheduled_role(study) or "evaluation",
        names={(each.arm.name, each.seed): each.name for each in study.searches if each.repeat},
    )


def get_scheduled_role(study: resolve.ResolvedStudy) -> Role | None:
    """Return the role of the trials that the scheduler may stop; None if the study has no scheduler."""
    if study.search.scheduler is None:
        return None
    return "search" if study.search.confirm else "evaluation"


def _build_arm_scheduler(study: resolve.ResolvedStudy, arm: schema.Arm) -> TrialScheduler:
    settings, mode = study.search.scheduler, study.objective.mode
    assert settings is not None, "only built if the study has a scheduler"
    if isinstance(settings, search_settings.Median):
        return MedianStoppingRule(
            time_attr=EPOCH,
            metric=OBJECTIVE,
            mode=mode,
            grace_period=settings.grace_epochs,
            min_samples_required=settings.min_trials,
            # Never pause a trial for the others: its epochs since the last checkpoint would be lost.
            min_time_slice=float("inf"),
        )
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=OBJECTIVE,
        mode=mode,
        max_t=arm.config.epochs_planned,
        grace_period=settings.grace_epochs,
        reduction_factor=settings.reduction_factor,
    )


def _replay(scheduler: TrialScheduler, trial: Trial, curve: Curve) -> None:
    """Forward the results of a learning curve to a scheduler and ignore its decisions."""
    for epoch, objective in curve:
        result = {EPOCH: epoch, OBJECTIVE: objective}
        if isinstance(scheduler, MedianStoppingRule):
            # This rule only keeps the result of a complete trial, without a decision.
            scheduler.on_trial_complete(None, trial, result)
        else:
            scheduler.on_trial_result(None, trial, result)
