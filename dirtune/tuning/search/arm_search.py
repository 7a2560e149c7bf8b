"""The search inside one arm: a budget of configurations, asked from and told to an Optuna study.

Optuna is told the truth: complete, pruned and failed trials are told as such, and each carries the id of the trial it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import optuna
from optuna.trial import TrialState

from dirtune.study.schema import Arm
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.confirmation import Ending, Selected, selected_trial
from dirtune.tuning.folder.jobs import JobMaker, Settings
from dirtune.tuning.folder.optuna_storage import TRIAL_ID, open_search, told
from dirtune.tuning.search.samplers import sampler_for

# Asked configurations in a row that may be known before a search gives up
REPETITIONS = 100
Measured = Callable[[str], Sequence[float | None]]
"""The secondary objectives of a recorded trial."""


class ArmSearch:
    """The search inside one arm: a budget of configurations, asked from and told to an Optuna study.

    Args:
        queued: configurations that are tried first, as far as the budget goes.
        measured: asked for the secondary objectives of a complete trial, if the study has any.
    """

    def __init__(
        self,
        maker: JobMaker,
        arm: Arm,
        storage: str,
        *,
        queued: Sequence[Settings] = (),
        measured: Measured = lambda _: (),
    ) -> None:
        self.arm, self._maker, self._measured = arm, maker, measured
        self._budget = maker.study.get_budget(arm)
        self._optuna = open_search(maker.study, arm, storage)
        self._forget_nameless()
        earlier = [trial for trial in self._optuna.trials if TRIAL_ID in trial.user_attrs]
        self._tried: dict[str, Settings] = {trial.user_attrs[TRIAL_ID]: trial.params for trial in earlier}
        self._open = {
            trial.user_attrs[TRIAL_ID]: optuna.Trial(self._optuna, trial._trial_id)
            for trial in earlier
            if trial.state == TrialState.RUNNING
        }
        self._endings: dict[str, Ending] = {}
        self._is_exhausted = self.has_lost = False
        if not earlier:
            for settings in queued:
                self._optuna.enqueue_trial(dict(settings), skip_if_exists=True)

    @property
    def is_spent(self) -> bool:
        """No configuration is left to ask."""
        return self._is_exhausted or len(self._tried) >= self._budget

    @property
    def is_settled(self) -> bool:
        """The budget is spent, and the end of every trial is told."""
        return self.is_spent and not self._open

    def selected(self) -> Selected | None:
        """The best of the complete trials, if there is one."""
        trial_id = selected_trial(self._endings, self._maker.study.objective.mode)
        return None if trial_id is None else Selected(trial_id, self._tried[trial_id])

    def open_jobs(self) -> list[TrialJob]:
        """The trials that an earlier driver had started and nobody has told the end of."""
        return [self._maker.tried(self.arm, self._tried[trial_id]) for trial_id in self._open]

    def ask(self) -> TrialJob | None:
        """A new configuration, or None when the budget is spent."""
        return None if self.is_spent else self._propose()

    def report(self, trial_id: str, epoch: int, value: float) -> None:
        """An intermediate validation objective; Optuna takes none where there are several objectives."""
        if trial_id not in self._open or len(self._optuna.directions) > 1:
            return
        with warnings.catch_warnings():
            # A trial that goes on from before its last report says the same again.
            warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
            self._open[trial_id].report(value, epoch)

    def tell(self, trial_id: str, ending: Ending) -> None:
        """The end of a trial, as what it is; a trial that is not of this search is ignored."""
        if trial_id not in self._tried:
            return
        self._endings[trial_id] = ending
        trial = self._open.pop(trial_id, None)
        if trial is None:
            return
        further = self._measured(trial_id) if ending.status == "complete" else ()
        state, values = told(ending.status, [ending.objective, *further])
        self._optuna.tell(trial, values, state=state)

    def lose(self, trial_id: str) -> None:
        """The worker of a trial has died; nothing is selected before the sweep is resumed, which tries it again."""
        self.has_lost = self.has_lost or trial_id in self._open

    def _propose(self) -> TrialJob | None:
        """What the sampler proposes; None if it finds nothing new.

        A sampler may repeat itself in a finite space; a repetition is not run again and costs no budget.
        """
        search = self._maker.study.search
        for attempt in range(REPETITIONS):
            self._optuna.sampler = sampler_for(
                search, self.arm.name, self.arm.space, known=len(self._tried), attempt=attempt
            )
            trial = self._optuna.ask({path: knob.to_optuna() for path, knob in self.arm.space.items()})
            job = self._maker.tried(self.arm, trial.params)
            if job.trial_id not in self._tried:
                trial.set_user_attr(TRIAL_ID, job.trial_id)
                self._tried[job.trial_id], self._open[job.trial_id] = trial.params, trial
                return job
            self._optuna.tell(trial, state=TrialState.FAIL)
        self._is_exhausted = True
        return None

    def _forget_nameless(self) -> None:
        """End what a driver had asked for when it was killed, before it knew which trial that is."""
        for trial in self._optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if TRIAL_ID not in trial.user_attrs:
                self._optuna.tell(trial.number, state=TrialState.FAIL)
