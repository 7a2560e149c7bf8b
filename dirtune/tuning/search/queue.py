"""Trial queue of a sweep: planned trials of fixed arms, configurations from Optuna, trials that evaluate selections.

The disk is the state: a recorded trial is not run again, and a started one resumes. Every searched arm has an Optuna study of
its own in the sweep's journal, and the same budget. The driver is the only writer of the journal.
"""

from collections import deque
from collections.abc import Mapping, Sequence

from optuna.storages import BaseStorage

from dirtune.results.analysis.sequential import list_due_seeds, make_sequential_rule, read_value, read_values
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder import confirmation, optuna_storage, reconcile, records
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.search.arm_search import ArmSearch


class TrialQueue:
    """Trials of a sweep in the order of their start: running ones of a killed driver, then fixed arms, then searches.

    Searches take turns. With `confirm`, the selection of a search is trained as soon as all its trials have ended, before the
    other searches continue.

    Args:
        folder: the study folder, in which selections are recorded.
        journal: of the sweep, whose only writer is this process.
        recorded: all recorded trials of the study.
        first_settings: by arm, the settings that its search tries first.
        code_version: version of the code for new jobs.
    """

    def __init__(
        self,
        folder: reconcile.StudyFolder,
        journal: BaseStorage,
        recorded: Sequence[records.RecordedTrial],
        *,
        first_settings: Mapping[str, Sequence[records.Settings]] | None = None,
        code_version: str = "",
    ) -> None:
        self._folder, self._study = folder.storage, folder.study
        self._maker = JobMaker(study=folder.study, fingerprint=folder.manifest.fingerprint, code_version=code_version)
        first_settings = first_settings or {}
        self.searches: dict[str, ArmSearch] = {}
        if folder.study.searches:
            # It may be gone, damaged, or older than the records
            optuna_storage.restore_searches(folder.storage, self._maker, journal, recorded)
            self.searches = {
                search.name: ArmSearch(
                    folder.storage,
                    self._maker,
                    search,
                    journal,
                    recorded={trial.trial_id for trial in recorded},
                    first_settings=first_settings.get(search.arm.name, ()),
                )
                for search in folder.study.searches
            }
        self._names = {(search.arm.name, search.seed): search.name for search in folder.study.searches}
        # To every search, which ignores the trials of others: a trial's arm may be another one with the same configuration
        for trial in recorded:
            for search in self.searches.values():
                search.tell(trial.trial_id, trial.outcome)
        self.skipped = 0
        """Planned trials that are not needed: their search selected nothing, or another arm has the same configuration."""
        self._first_arms: dict[str, str] = {}
        """By trial id, the first arm that planned it."""
        self._queue: deque[TrialJob] = deque()
        self._known = {trial.trial_id for trial in recorded}
        """Trials that are recorded or were queued."""
        self._turns = deque(self.searches.values())
        self._unconfirmed = set(self.searches) if folder.study.search.confirm else set()
        self._rule = make_sequential_rule(folder.to_info())
        """Rule of a sequential study, which adds seeds."""
        self._values = {} if self._rule is None else read_values(folder.storage, self._rule)
        self._awaited: set[str] = set()
        """Trials whose outcome may add seeds."""
        self._enqueue([job for search in self.searches.values() for job in search.make_running_jobs()])
        self._enqueue(self._maker.make_planned_jobs())
        self._confirm_selections()
        self.add_new_trials()

    @property
    def is_empty(self) -> bool:
        """True if nothing is left to start, now or after the running trials."""
        will_confirm = any(not self.searches[name].has_lost_trial for name in self._unconfirmed)
        is_searched = all(search.is_spent for search in self._turns)
        return not self._queue and not self._awaited and not will_confirm and is_searched

    def get_next(self) -> TrialJob | None:
        """Return the next trial to start, or None if there is none before a running trial ends."""
        # Before a search is asked: a sampler proposes better the more outcomes it knows
        if self._queue:
            return self._queue.popleft()
        for search in list(self._turns):
            self._turns.remove(search)
            job = search.ask()
            if job is not None:
                self._turns.append(search)
                return job
        # A search may have found out just now that its space is exhausted
        self._confirm_selections()
        return self._queue.popleft() if self._queue else None

    def report(self, job: TrialJob, epoch: int, value: float | None) -> None:
        """Report an intermediate validation objective to the trial's search."""
        search = self._find_search(job)
        if search is not None and value is not None:
            search.report(job.trial_id, epoch, value)

    def tell(self, job: TrialJob, outcome: records.TrialOutcome) -> None:
        """Tell the outcome of a trial, which must be recorded already."""
        search = self._find_search(job)
        if search is not None:
            search.tell(job.trial_id, outcome)
            self._confirm_selections()
        self._awaited.discard(job.trial_id)
        if self._rule is not None and outcome.status == "complete":
            value = read_value(self._folder, self._rule, job.trial_id)
            if value is not None:
                self._values.setdefault(job.arm, {})[job.config.seed] = value

    def add_new_trials(self) -> list[TrialJob]:
        """Queue and return the trials of seeds that a sequential study has added since the last call."""
        if self._rule is None:
            return []
        due = self._maker.make_jobs(list_due_seeds(self._rule, self._values))
        new = [job for job in due if job.trial_id not in self._known]
        self._enqueue(new)
        return new

    def mark_lost(self, job: TrialJob) -> None:
        """Note that a trial has lost its worker for good, so that this sweep does not learn its outcome."""
        search = self._find_search(job)
        if search is not None:
            search.mark_lost(job.trial_id)

    def _find_search(self, job: TrialJob) -> ArmSearch | None:
        """Return the search that a trial belongs to, or None."""
        # A trial that evaluates a selection has another seed, and the search ignores it
        name = self._names.get((job.arm, job.config.seed))
        return None if name is None else self.searches[name]

    def _confirm_selections(self) -> None:
        """Queue the trials that evaluate the selections of searches that are complete now."""
        # In the order of the study, so that the order of ends does not matter
        for name, search in self.searches.items():
            if name not in self._unconfirmed or not search.is_complete or search.has_lost_trial:
                continue
            self._unconfirmed.remove(name)
            selected = search.find_best()
            if selected is None:
                self.skipped += len(self._study.arms_using(search.search.arm.name)) * len(self._study.seeds)
                continue
            jobs = self._maker.make_evaluation_jobs(search.search, selected.settings)
            self._known -= confirmation.record_selection(self._folder, search.search, selected, jobs)
            self._enqueue(jobs)

    def _enqueue(self, jobs: Sequence[TrialJob]) -> None:
        """Queue those jobs that are neither recorded nor queued; two arms may have the same configuration once tuned."""
        for job in jobs:
            self.skipped += self._first_arms.setdefault(job.trial_id, job.arm) != job.arm
            if job.trial_id not in self._known:
                self._known.add(job.trial_id)
                self._queue.append(job)
                if self._rule is not None:
                    self._awaited.add(job.trial_id)
