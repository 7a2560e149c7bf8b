"""The trials of a study as jobs for workers: those that are planned, and those that a search's selection brings.

What a job is follows from the study and, for a selection, from its settings alone, so that the driver and a plan without
one come to the same identities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dirtune.results.records.schema import Role
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.training.trial import TrialJob

Settings = Mapping[str, Any]
"""Values of knobs by dotted path."""


@dataclass(frozen=True, kw_only=True)
class JobMaker:
    """Makes the jobs of one study on one data set."""

    study: ResolvedStudy
    fingerprint: str
    code_version: str = ""

    def planned(self) -> list[TrialJob]:
        """The trials of the arms that are known as they stand: every seed of one arm after another's same seed."""
        return self.due(dict.fromkeys(self._fixed, self.study.seeds))

    def possible(self) -> list[TrialJob]:
        """The planned trials, and those that a sequential study may add."""
        return self.due(dict.fromkeys(self._fixed, self.study.possible_seeds))

    def due(self, seeds: Mapping[str, Sequence[int]]) -> list[TrialJob]:
        """The trials of these seeds, by arm."""
        return [
            self.job(arm, {}, seed, replicate)
            for replicate, seed in enumerate(self.study.possible_seeds)
            for arm in self.study.fixed_arms
            if seed in seeds[arm.name]
        ]

    def tried(self, arm: Arm, settings: Settings) -> TrialJob:
        """A trial of the search of an arm."""
        if self.study.search.confirm:
            return self.job(arm, settings, self.study.tuning_seed, None, role="search")
        return self.job(arm, settings, self.study.tuning_seed, 0)

    def confirmed(self, searched: str, settings: Settings) -> list[TrialJob]:
        """The trials that a search's selection brings: of its arm, and of those that take its settings."""
        return [
            self.job(arm, taken_by(arm, settings), seed, replicate)
            for replicate, seed in enumerate(self.study.seeds)
            for arm in self.study.arms_using(searched)
        ]

    def job(
        self, arm: Arm, settings: Settings, seed: int, replicate: int | None, *, role: Role = "evaluation"
    ) -> TrialJob:
        """An arm with these settings and this seed."""
        config = arm.with_settings(settings, seed)
        return TrialJob(
            study=self.study.name,
            arm=arm.name,
            cell=arm.axis_values_json,
            role=role,
            replicate=replicate,
            trial_id=config.compute_trial_id(self.fingerprint),
            config=config,
            code_version=self.code_version,
        )

    @property
    def _fixed(self) -> list[str]:
        return [arm.name for arm in self.study.fixed_arms]


def taken_by(arm: Arm, settings: Settings) -> Settings:
    """The settings of a selection that an arm is trained with."""
    paths = arm.transferred_settings or settings.keys()
    return {path: settings[path] for path in paths}
