"""What a sweep runs next: the planned trials of fixed arms, what Optuna asks for in searched ones, what those select.

The disk is the state: a trial that is recorded is not run again, and one that was started continues. Every searched arm
has an Optuna study of its own in the sweep's storage, and the same budget. The driver is the only writer of that
storage, and Optuna is told the truth: complete, pruned and failed trials are told as such.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

import optuna
from optuna.trial import TrialState

from dirtune.training.trial import TrialJob
from dirtune.tuning.confirmation import Ending, Selected, selected_trial
from dirtune.tuning.jobs import JobMaker, Settings
from dirtune.tuning.optuna_studies import TRIAL_ID, open_search, told
from dirtune.tuning.samplers import sampler_for
from dirtune.tuning.seeds import SeedSequence
from dirtune.tuning.study import Arm, ResolvedStudy

__all__ = ["Agenda", "ArmSearch", "Ending"]

REPETITIONS = 100  # asked configurations in a row that may be known before a search gives up
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
        self._budget = maker.study.budget_of(arm)
        self._optuna = open_search(maker.study, arm, storage)
        self._forget_nameless()
        earlier = [trial for trial in self._optuna.trials if TRIAL_ID in trial.user_attrs]
        self._tried: dict[str, Settings] = {
            trial.user_attrs[TRIAL_ID]: trial.params for trial in earlier
        }
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
        trial_id = selected_trial(self._endings, self._maker.study.study.objective.mode)
        return None if trial_id is None else Selected(trial_id, self._tried[trial_id])

    def open_jobs(self) -> list[TrialJob]:
        """The trials that an earlier driver had started and nobody has told the end of."""
        return [self._maker.tried(self.arm, self._tried[trial_id]) for trial_id in self._open]

    def ask(self) -> TrialJob | None:
        """A new configuration, or None when the budget is spent.

        A sampler may repeat itself in a finite space; a repetition is not run again and costs no budget.
        """
        search = self._maker.study.study.search
        for attempt in range(0 if self.is_spent else REPETITIONS):
            self._optuna.sampler = sampler_for(
                search, self.arm.name, self.arm.knobs, known=len(self._tried), attempt=attempt
            )
            trial = self._optuna.ask(
                {path: knob.as_optuna() for path, knob in self.arm.knobs.items()}
            )
            settings = trial.params
            job = self._maker.tried(self.arm, settings)
            if job.trial_id not in self._tried:
                trial.set_user_attr(TRIAL_ID, job.trial_id)
                self._tried[job.trial_id] = settings
                self._open[job.trial_id] = trial
                return job
            self._optuna.tell(trial, state=TrialState.FAIL)
        self._is_exhausted = True
        return None

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

    def _forget_nameless(self) -> None:
        """End what a driver had asked for when it was killed, before it knew which trial that is."""
        for trial in self._optuna.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if TRIAL_ID not in trial.user_attrs:
                self._optuna.tell(trial.number, state=TrialState.FAIL)


class Agenda:
    """All trials of a sweep in the order they start: what was begun, then fixed arms, then the searches in turn.

    With `confirm`, what a search selects is trained as soon as the search has settled, before the other searches go on.

    Args:
        recorded: the endings of all recorded trials, by trial id.
        queued: by arm, the configurations that its search tries first.
        on_selected: told what a search has selected and the trials that this brings; says which records it set aside.
        sequence: decides about further seeds in a sequential study.
    """

    def __init__(
        self,
        study: ResolvedStudy,
        *,
        storage: str,
        fingerprint: str,
        code_version: str,
        recorded: Mapping[str, Ending],
        queued: Mapping[str, Sequence[Settings]] | None = None,
        measured: Measured = lambda _: (),
        on_selected: Callable[[str, Selected, Sequence[TrialJob]], Collection[str]] = lambda *_: (),
        sequence: SeedSequence | None = None,
    ) -> None:
        self._study, self._on_selected = study, on_selected
        self._maker = JobMaker(study=study, fingerprint=fingerprint, code_version=code_version)
        self.searches = {
            arm.name: ArmSearch(
                self._maker, arm, storage, queued=(queued or {}).get(arm.name, ()), measured=measured
            )
            for arm in study.searched_arms
        }  # fmt: skip
        for trial_id, ending in recorded.items():
            for search in self.searches.values():
                search.tell(trial_id, ending)
        self.without_run = 0
        """Planned trials that need none: their search selected nothing, or another arm has come to be the same."""
        self._owners: dict[str, str] = {}  # arms by trial
        self._queue: deque[TrialJob] = deque()
        self._queued = set(recorded)
        self._turn = deque(self.searches.values())
        self._unconfirmed = set(self.searches) if study.confirms else set()
        self._sequence, self._awaited = sequence, set[str]()  # what may make further seeds due
        self._enqueue([job for search in self.searches.values() for job in search.open_jobs()])
        self._enqueue(self._maker.planned())
        self._confirm()
        self.further()

    @property
    def is_empty(self) -> bool:
        """Nothing is left to start, now or when what runs has ended."""
        awaited = self._awaited or any(not self.searches[arm].has_lost for arm in self._unconfirmed)
        return not self._queue and not awaited and all(search.is_spent for search in self._turn)

    def next(self) -> TrialJob | None:
        """The next trial to start, or None when there is none, or none before another one has ended."""
        if self._queue:
            return self._queue.popleft()
        while self._turn:
            job = self._turn[0].ask()
            if job is not None:
                self._turn.rotate(-1)
                return job
            self._turn.popleft()
        self._confirm()  # of a search that has only now found out that its space is exhausted
        return self._queue.popleft() if self._queue else None

    def report(self, job: TrialJob, epoch: int, value: float | None) -> None:
        if job.arm in self.searches and value is not None:
            self.searches[job.arm].report(job.trial_id, epoch, value)

    def tell(self, job: TrialJob, ending: Ending) -> None:
        if job.arm in self.searches:
            self.searches[job.arm].tell(job.trial_id, ending)
            self._confirm()
        self._awaited.discard(job.trial_id)
        if self._sequence is not None and ending.status == "complete":
            self._sequence.tell(job)

    def further(self) -> list[TrialJob]:
        """The trials that have become due since the last call, because comparisons are undecided; they are queued now."""
        if self._sequence is None:
            return []
        due = [
            job
            for job in self._maker.due(self._sequence.seeds_due())
            if job.trial_id not in self._queued
        ]
        self._enqueue(due)
        return due

    def lose(self, job: TrialJob) -> None:
        """The worker of a trial has died, and nothing is known of its end in this sweep."""
        if job.arm in self.searches:
            self.searches[job.arm].lose(job.trial_id)

    def _confirm(self) -> None:
        """Train what the searches that have settled since have selected."""
        settled = [
            arm
            for arm in self._unconfirmed
            if self.searches[arm].is_settled and not self.searches[arm].has_lost
        ]
        for arm in sorted(settled, key=list(self.searches).index):
            self._unconfirmed.remove(arm)
            selected = self.searches[arm].selected()
            if selected is None:
                takers = self._study.takers(arm)
                self.without_run += len(takers) * len(self._study.study.seeds)
                continue
            jobs = self._maker.confirmed(arm, selected.settings)
            self._queued -= set(self._on_selected(arm, selected, jobs))
            self._enqueue(jobs)

    def _enqueue(self, jobs: Sequence[TrialJob]) -> None:
        """Those that are not recorded; two arms may be the same configuration once they are tuned."""
        for job in jobs:
            self.without_run += self._owners.setdefault(job.trial_id, job.arm) != job.arm
            if job.trial_id not in self._queued:
                self._queued.add(job.trial_id)
                self._queue.append(job)
                if self._sequence is not None:
                    self._awaited.add(job.trial_id)
