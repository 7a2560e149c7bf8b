"""What a sweep runs next: the planned trials of fixed arms, and for searched arms what Optuna asks for.

The disk is the state: a trial that is recorded is not run again, and one that was started continues. Every searched arm
has an Optuna study of its own in the sweep's storage, and the same budget. The driver is the only writer of that
storage, and Optuna is told the truth: complete, pruned and failed trials are told as such.
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.trial import TrialState

from dirtune.config import TrialConfig
from dirtune.randomness import derive_seed
from dirtune.results.schema import Status
from dirtune.training.trial import TrialJob
from dirtune.tuning.study import Arm, ResolvedStudy, configured

TRIAL_ID = "trial_id"
REPETITIONS = 100  # asked configurations in a row that may be known before a search gives up
_UNFINISHED = {
    "complete": TrialState.FAIL,  # ran to its end, but its objective was never defined
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a trial ended: its status and the validation objective of its best epoch, if it has one."""

    status: Status
    objective: float | None


def planned_jobs(study: ResolvedStudy, fingerprint: str, code_version: str = "") -> list[TrialJob]:
    """The trials of the arms that have nothing to tune: every seed of one arm after another's same seed."""
    return [
        _job(study, arm, replicate, arm.with_seed(seed), fingerprint, code_version)
        for replicate, seed in enumerate(study.study.seeds)
        for arm in study.fixed_arms
    ]


def optuna_name(study: str, arm: str) -> str:
    """What the search of an arm is called in the sweep's Optuna storage."""
    return f"{study}/{arm}"


class ArmSearch:
    """The search inside one arm: a budget of configurations, asked from and told to an Optuna study."""

    def __init__(
        self, study: ResolvedStudy, arm: Arm, storage: str, fingerprint: str, code_version: str
    ) -> None:
        self.study, self.arm = study, arm
        self.fingerprint, self.code_version = fingerprint, code_version
        self._budget = study.trials_in(arm)
        self._optuna = optuna.create_study(
            study_name=optuna_name(study.name, arm.name), storage=storage, load_if_exists=True,
            direction="minimize" if study.study.objective.mode == "min" else "maximize",
        )  # fmt: skip
        earlier = [trial for trial in self._optuna.trials if TRIAL_ID in trial.user_attrs]
        search = study.study.search
        self._optuna.sampler = _sampler(
            search.sampler, derive_seed(search.seed, arm.name, len(earlier))
        )
        self._known = {trial.user_attrs[TRIAL_ID] for trial in earlier}
        self._open = {
            trial.user_attrs[TRIAL_ID]: optuna.Trial(self._optuna, trial._trial_id)
            for trial in earlier
            if trial.state == TrialState.RUNNING
        }

    @property
    def is_spent(self) -> bool:
        return len(self._known) >= self._budget

    def open_jobs(self) -> list[TrialJob]:
        """The trials that an earlier driver had started and nobody has told the end of."""
        return [self._job_of(trial.params) for trial in self._open.values()]

    def ask(self) -> TrialJob | None:
        """A new configuration, or None when the budget is spent.

        A sampler may repeat itself in a finite space; a repetition is not run again and costs no budget.
        """
        for _ in range(0 if self.is_spent else REPETITIONS):
            trial = self._optuna.ask()
            settings = {path: knob.suggest(trial, path) for path, knob in self.arm.knobs.items()}
            job = self._job_of(settings)
            if job.trial_id not in self._known:
                trial.set_user_attr(TRIAL_ID, job.trial_id)
                self._known.add(job.trial_id)
                self._open[job.trial_id] = trial
                return job
            self._optuna.tell(trial, state=TrialState.FAIL)
        return None

    def report(self, trial_id: str, epoch: int, value: float) -> None:
        """An intermediate validation objective."""
        self._open[trial_id].report(value, epoch)

    def tell(self, trial_id: str, ending: Ending) -> None:
        """The end of a trial, as what it is; a trial that is not open here is ignored."""
        trial = self._open.pop(trial_id, None)
        if trial is None:
            return
        if ending.status == "complete" and ending.objective is not None:
            self._optuna.tell(trial, ending.objective)
        else:
            self._optuna.tell(trial, state=_UNFINISHED[ending.status])

    def _job_of(self, settings: Mapping[str, Any]) -> TrialJob:
        config = configured(self.arm, settings, self.study.study.seeds[0])
        return _job(self.study, self.arm, 0, config, self.fingerprint, self.code_version)


class Agenda:
    """All trials of a sweep in the order they start: what was begun, then fixed arms, then the searches in turn."""

    def __init__(
        self,
        study: ResolvedStudy,
        *,
        storage: str,
        fingerprint: str,
        code_version: str,
        recorded: Mapping[str, Ending],
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # the view tells what happens
        self.searches = {
            arm.name: ArmSearch(study, arm, storage, fingerprint, code_version)
            for arm in study.searched_arms
        }
        for trial_id, ending in recorded.items():
            for search in self.searches.values():
                search.tell(trial_id, ending)
        begun = [job for search in self.searches.values() for job in search.open_jobs()]
        fixed = planned_jobs(study, fingerprint, code_version)
        self._queue = deque(job for job in [*begun, *fixed] if job.trial_id not in recorded)
        self._turn = deque(self.searches.values())

    @property
    def is_empty(self) -> bool:
        return not self._queue and all(search.is_spent for search in self._turn)

    def next(self) -> TrialJob | None:
        """The next trial to start, or None when there is none left."""
        if self._queue:
            return self._queue.popleft()
        while self._turn:
            job = self._turn[0].ask()
            if job is not None:
                self._turn.rotate(-1)
                return job
            self._turn.popleft()
        return None

    def report(self, job: TrialJob, epoch: int, value: float | None) -> None:
        if job.arm in self.searches and value is not None:
            self.searches[job.arm].report(job.trial_id, epoch, value)

    def tell(self, job: TrialJob, ending: Ending) -> None:
        if job.arm in self.searches:
            self.searches[job.arm].tell(job.trial_id, ending)


def _job(
    study: ResolvedStudy, arm: Arm, replicate: int, config: TrialConfig, fingerprint: str, code: str
) -> TrialJob:
    return TrialJob(
        study=study.name, arm=arm.name, cell=arm.cell_json, replicate=replicate,
        trial_id=config.trial_id(fingerprint), config=config, code_version=code,
    )  # fmt: skip


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    seed %= 2**32
    if name == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # Multivariate and constant-liar TPE are Optuna 5's defaults; older versions call them experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        options: dict[str, Any] = {"multivariate": True, "constant_liar": True}
        return optuna.samplers.TPESampler(seed=seed, **options)
