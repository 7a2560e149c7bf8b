"""Population based training inside one arm: segments of trainings, and who goes on from whom.

Every segment is a trial of its own, with settings, record and id; what it goes on from is part of its identity
(`dirtune.config.Segment`). Who goes on from whom follows from the records and the seed alone, so that a sweep that was killed at
any moment comes to the same population.

Source: `dirtune.study.search_settings.Population`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from dirtune.config import Segment, leaf
from dirtune.randomness import derive_seed
from dirtune.study.resolve import Arm
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.jobs import JobMaker, Settings
from dirtune.tuning.folder.learning_curves import Curve
from dirtune.tuning.folder.optuna_storage import SEGMENT, TRIAL_ID
from dirtune.tuning.search.arm_search import ArmSearch
from dirtune.tuning.search.unit_interval import value_at

Curves = Callable[[], Mapping[str, Curve]]
"""Validation objective by epoch of every recorded trial."""


class PopulationSearch(ArmSearch):
    """A search whose first configurations come from the sampler, and all later ones from the best of those before."""

    def __init__(self, maker: JobMaker, arm: Arm, storage: str, *, queued: Sequence[Settings], curves: Curves) -> None:
        super().__init__(maker, arm, storage, queued=queued)
        search = maker.study.study.search
        assert search.population is not None, "only made for population based training"
        self._rule, self._size, self._curves = search.population, search.trials, curves
        self._seed, self._mode = search.seed, maker.study.study.objective.mode
        self._parts = self._rule.segments(arm.config.epochs_planned)
        # Of the generation that is being asked
        self._due: list[TrialJob] = []

    @property
    def is_spent(self) -> bool:
        # What a trial that has lost its worker comes to, only a resumed sweep knows.
        is_between = len(self._tried) % self._size == 0 and bool(self._tried)
        return super().is_spent or (self.has_lost and is_between)

    @property
    def is_waiting(self) -> bool:
        return not self.is_spent

    def ask(self) -> TrialJob | None:
        """The next segment; None also while a generation has not ended."""
        if self.is_spent:
            return None
        generation = len(self._tried) // self._size
        if generation == 0:
            start, end = self._parts[0]
            return self._propose(Segment(parent=None, start=start, end=end))
        if not self._due:
            self._due = self._generation(generation)
        return self._add(self._due.pop(0)) if self._due else None

    def _generation(self, number: int) -> list[TrialJob]:
        """The segments that follow a generation and are not asked yet; none while it has not ended."""
        before = self._members(number - 1)
        if any(trial_id not in self._endings for trial_id in before):
            return []
        ranked = self._ranked(before, epoch=self._parts[number - 1][1])
        if not ranked:
            # All have failed
            self._is_exhausted = True
        jobs = self._followers(number, before, ranked) if ranked else {}
        return [job for trial_id, job in jobs.items() if trial_id not in self._tried]

    def _members(self, generation: int) -> list[str]:
        """In an order that does not depend on which was asked first."""
        start = self._parts[generation][0]
        return sorted(id_ for id_, segment in self._segments.items() if segment.start == start)

    def _ranked(self, members: Sequence[str], *, epoch: int) -> list[str]:
        """Those that are complete, the best at the end of their segment first."""
        curves, sign = self._curves(), 1 if self._mode == "min" else -1
        scores = {
            trial_id: sign * dict(curves[trial_id])[epoch]
            for trial_id in members
            if self._endings[trial_id].status == "complete" and epoch in dict(curves.get(trial_id, ()))
        }
        return sorted(scores, key=lambda trial_id: (scores[trial_id], trial_id))

    def _followers(self, generation: int, before: Sequence[str], ranked: Sequence[str]) -> dict[str, TrialJob]:
        count = max(1, int(self._rule.share * len(before)))
        best, kept = ranked[:count], ranked[: max(1, len(before) - count)]
        start, end = self._parts[generation]
        jobs: dict[str, TrialJob] = {}
        for member in before:
            drawn = random.Random(derive_seed(self._seed, self.arm.name, generation, member))
            parent = member if member in kept else drawn.choice(best)
            segment = Segment(parent=parent, start=start, end=end)
            settings, resample = self._tried[parent], self._rule.resample
            while True:
                if parent != member:
                    settings = dict(self._explored(self._tried[parent], drawn, resample))
                job = self._maker.tried(self.arm, settings, segment)
                if job.trial_id not in jobs:
                    break
                # The same as another's: then anywhere
                resample = 1.0
            jobs[job.trial_id] = job
        return jobs

    def _explored(self, settings: Settings, drawn: random.Random, resample: float) -> Iterator[tuple[str, Any]]:
        """Each setting changed by the factor, or drawn anew; a choice is drawn anew or stays."""
        for path, knob in self.arm.knobs.items():
            space, value = knob.as_optuna(), settings[path]
            is_anew, up = drawn.random() < resample, drawn.random() < 0.5
            if isinstance(space, CategoricalDistribution):
                yield path, drawn.choice(space.choices) if is_anew else value
                continue
            if is_anew:
                yield path, value_at(space, drawn.random())
                continue
            moved = value * self._rule.factor if up else value / self._rule.factor
            whole = round(moved) if isinstance(space, IntDistribution) else moved
            yield path, min(max(whole, space.low), space.high)

    def _add(self, job: TrialJob) -> TrialJob:
        """Tell Optuna at once and as a whole what is to run, so that no death leaves half of it."""
        params = {path: leaf(job.config.plain(), path) for path in self.arm.knobs}
        assert job.config.segment is not None
        frozen = create_trial(
            state=TrialState.RUNNING,
            params=params,
            distributions={path: knob.as_optuna() for path, knob in self.arm.knobs.items()},
            user_attrs={TRIAL_ID: job.trial_id, SEGMENT: job.config.segment.model_dump()},
        )
        self._optuna.add_trial(frozen)
        added = self._optuna.get_trials(deepcopy=False)[-1]
        self._keep(job, optuna.Trial(self._optuna, added._trial_id))
        return job
