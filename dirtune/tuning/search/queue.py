"""What a sweep runs next: the planned trials of fixed arms, what Optuna asks for in searched ones, what those select.

The disk is the state: a trial that is recorded is not run again, and one that was started continues. Every searched arm
has an Optuna study of its own in the sweep's storage, and the same budget. The driver is the only writer of that
storage, and Optuna is told the truth: complete, pruned and failed trials are told as such.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence

from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.confirmation import Ending, Selected
from dirtune.tuning.folder.jobs import JobMaker, Settings
from dirtune.tuning.search.arm_search import ArmSearch, Measured
from dirtune.tuning.search.sequential_seeds import SeedSequence

__all__ = ["Agenda", "Ending"]


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
            arm.name: ArmSearch(self._maker, arm, storage, queued=(queued or {}).get(arm.name, ()), measured=measured)
            for arm in study.searched_arms
        }
        for trial_id, ending in recorded.items():
            for search in self.searches.values():
                search.tell(trial_id, ending)
        self.without_run = 0
        """Planned trials that need none: their search selected nothing, or another arm has come to be the same."""
        # Arms by trial
        self._owners: dict[str, str] = {}
        self._queue: deque[TrialJob] = deque()
        self._queued = set(recorded)
        self._turn = deque(self.searches.values())
        self._unconfirmed = set(self.searches) if study.search.confirm else set()
        # What may make further seeds due
        self._sequence, self._awaited = sequence, set[str]()
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
        job = self._ask()
        if job is not None:
            return job
        # Of a search that has only now found out that its space is exhausted
        self._confirm()
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
        due = [job for job in self._maker.due(self._sequence.seeds_due()) if job.trial_id not in self._queued]
        self._enqueue(due)
        return due

    def lose(self, job: TrialJob) -> None:
        """The worker of a trial has died, and nothing is known of its end in this sweep."""
        if job.arm in self.searches:
            self.searches[job.arm].lose(job.trial_id)

    def _ask(self) -> TrialJob | None:
        """The next configuration of the searches, which take turns."""
        for search in list(self._turn):
            self._turn.remove(search)
            job = search.ask()
            if job is not None:
                self._turn.append(search)
                return job
        return None

    def _confirm(self) -> None:
        """Train what the searches that have settled since have selected."""
        settled = [
            arm for arm in self._unconfirmed if self.searches[arm].is_settled and not self.searches[arm].has_lost
        ]
        for arm in sorted(settled, key=list(self.searches).index):
            self._unconfirmed.remove(arm)
            selected = self.searches[arm].selected()
            if selected is None:
                takers = self._study.arms_using(arm)
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
