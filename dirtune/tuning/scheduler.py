"""A Tune scheduler that halves every arm against itself.

One scheduler for a whole study would stop the trials of an arm because another arm is better, and the arms would end
with unequal budgets. So each arm has its own, and this one only passes trials on to it.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from dirtune.tuning.study import ResolvedStudy

ARM, EPOCH, OBJECTIVE = "arm", "epoch", "objective"


class PerArmScheduler(FIFOScheduler):
    """Decides with the scheduler of the trial's arm; arms without one run every trial to its end."""

    def __init__(self, by_arm: dict[str, TrialScheduler]) -> None:
        super().__init__()
        self.by_arm = by_arm

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        if scheduler := self._of(trial):
            scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        scheduler = self._of(trial)
        if scheduler is None or OBJECTIVE not in result:
            return str(TrialScheduler.CONTINUE)
        return str(scheduler.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        scheduler = self._of(trial)
        if scheduler is not None and OBJECTIVE in result:
            scheduler.on_trial_complete(tune_controller, trial, result)

    def debug_string(self) -> str:
        return f"one scheduler per arm: {', '.join(sorted(self.by_arm))}"

    def _of(self, trial: Trial) -> TrialScheduler | None:
        return self.by_arm.get(trial.config[ARM])


def build_scheduler(study: ResolvedStudy) -> PerArmScheduler:
    """The scheduler of a study: successive halving in every searched arm, if the study asks for it."""
    asha = study.study.search.scheduler
    if asha is None:
        return PerArmScheduler({})
    return PerArmScheduler(
        {
            arm.name: ASHAScheduler(
                time_attr=EPOCH, metric=OBJECTIVE, mode=study.study.objective.mode,
                max_t=arm.config.epochs_planned, grace_period=asha.grace_epochs,
                reduction_factor=asha.reduction_factor,
            )
            for arm in study.searched_arms
        }
    )  # fmt: skip
