"""Search of one arm: a budget of configurations, asked from an Optuna study, which learns the outcomes.

Optuna gets the real outcome of every trial (complete, pruned or failed), and each of its trials carries the trial id. The
records decide which trials have ended: a trial that has ended for Optuna and whose record was lost runs again.
"""

import warnings
from collections.abc import Collection, Sequence

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from dirtune.io.storage import Storage
from dirtune.study.resolve import ArmSearchPlan
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder import confirmation, jobs, records
from dirtune.tuning.folder.optuna_storage import (
    TRIAL_ID,
    add_running_trials,
    open_search,
    to_optuna_distribution,
    to_optuna_result,
)
from dirtune.tuning.search.samplers import make_sampler

# Known configurations that a sampler may propose in a row before the space counts as exhausted
MAX_REPETITIONS = 100


class ArmSearch:
    """Search of one arm: a budget of configurations, asked from an Optuna study, which learns the outcomes.

    Args:
        folder: the study folder, from which secondary objectives are read.
        maker: maker of the study's jobs.
        search: the arm, the number of its search and the seed of its trials.
        journal: of the sweep, whose only writer is this process.
        recorded: ids of all recorded trials of the study.
        first_settings: settings to try first, within the budget.
    """

    def __init__(
        self,
        folder: Storage,
        maker: jobs.JobMaker,
        search: ArmSearchPlan,
        journal: BaseStorage,
        *,
        recorded: Collection[str],
        first_settings: Sequence[records.Settings] = (),
    ) -> None:
        self.search, self._folder, self._maker = search, folder, maker
        self._budget = maker.study.get_budget(search.arm)
        self._optuna = open_search(maker.study, search, journal)
        # A driver was killed between asking and naming these trials: nobody knows which jobs they are
        for trial in self._optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if TRIAL_ID not in trial.user_attrs:
                self._optuna.tell(trial.number, state=TrialState.FAIL)
        add_running_trials(
            self._optuna,
            sorted({trial.user_attrs[TRIAL_ID] for trial in self._list_known(recorded)}.difference(recorded)),
        )
        known = self._list_known(recorded)
        self._settings: dict[str, records.Settings] = {trial.user_attrs[TRIAL_ID]: trial.params for trial in known}
        self._running = {
            trial.user_attrs[TRIAL_ID]: optuna.Trial(self._optuna, trial._trial_id)
            for trial in known
            if trial.state == TrialState.RUNNING
        }
        self._outcomes: dict[str, records.TrialOutcome] = {}
        self._is_exhausted = self.has_lost_trial = False
        # Optuna keeps enqueued settings in its storage, so a resumed search has them already
        if not known:
            for settings in first_settings:
                self._optuna.enqueue_trial(dict(settings), skip_if_exists=True)

    @property
    def is_spent(self) -> bool:
        """True if no configuration is left to ask."""
        return self._is_exhausted or len(self._settings) >= self._budget

    @property
    def is_complete(self) -> bool:
        """True if the budget is spent and every trial has an outcome."""
        return self.is_spent and not self._running

    def find_best(self) -> confirmation.SelectedTrial | None:
        """Return the best complete trial, or None if there is none."""
        trial_id = records.find_best_trial(self._outcomes, self._maker.study.objective.mode)
        if trial_id is None:
            return None
        settings = self._settings[trial_id]
        # The journal has no checksums
        if not self._maker.is_search_trial(self.search, settings, trial_id):
            settings = records.read_settings(self._folder, trial_id, tuple(self.search.arm.space))
        return confirmation.SelectedTrial(trial_id, settings)

    def _list_known(self, recorded: Collection[str]) -> list[FrozenTrial]:
        """Return Optuna's trials of this search; one without a record must have the id of its settings."""
        known = []
        for trial in self._optuna.trials:
            trial_id = trial.user_attrs.get(TRIAL_ID)
            if trial_id in recorded or (
                trial_id is not None and self._maker.is_search_trial(self.search, trial.params, trial_id)
            ):
                known.append(trial)
        return known

    def make_running_jobs(self) -> list[TrialJob]:
        """Return the jobs of trials that an earlier driver started and that have no outcome."""
        return [self._maker.make_search_job(self.search, self._settings[trial_id]) for trial_id in self._running]

    def ask(self) -> TrialJob | None:
        """Return a new configuration, or None if the budget is spent or the sampler finds nothing new.

        A sampler may repeat itself in a finite space; a repetition is not run again and costs no budget.
        """
        if self.is_spent:
            return None
        space = self.search.arm.space
        for attempt in range(MAX_REPETITIONS):
            self._optuna.sampler = make_sampler(
                self._maker.study.search,
                self.search.name,
                space,
                known=len(self._settings),
                attempt=attempt,
                repeat=self.search.repeat,
            )
            trial = self._optuna.ask({path: to_optuna_distribution(each) for path, each in space.items()})
            job = self._maker.make_search_job(self.search, trial.params)
            if job.trial_id not in self._settings:
                trial.set_user_attr(TRIAL_ID, job.trial_id)
                self._settings[job.trial_id], self._running[job.trial_id] = trial.params, trial
                return job
            self._optuna.tell(trial, state=TrialState.FAIL)
        self._is_exhausted = True
        return None

    def report(self, trial_id: str, epoch: int, value: float) -> None:
        """Report an intermediate validation objective; Optuna accepts none if there are several objectives."""
        if trial_id not in self._running or len(self._optuna.directions) > 1:
            return
        with warnings.catch_warnings():
            # A trial that resumes from a checkpoint before its last report repeats epochs
            warnings.filterwarnings("ignore", "The reported value is ignored", UserWarning)
            self._running[trial_id].report(value, epoch)

    def tell(self, trial_id: str, outcome: records.TrialOutcome) -> None:
        """Tell Optuna the outcome of a trial; a trial of another search is ignored."""
        if trial_id not in self._settings:
            return
        self._outcomes[trial_id] = outcome
        trial = self._running.pop(trial_id, None)
        if trial is None:
            return
        is_complete = outcome.status == "complete"
        secondary = records.read_secondary_objectives(self._folder, self._maker.study, trial_id) if is_complete else []
        state, values = to_optuna_result(outcome.status, [outcome.objective, *secondary])
        self._optuna.tell(trial, values, state=state)

    def mark_lost(self, trial_id: str) -> None:
        """Note that a trial has lost its worker: nothing is selected before a resumed sweep has run it again."""
        self.has_lost_trial = self.has_lost_trial or trial_id in self._running
