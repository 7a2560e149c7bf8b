"""Recorded trials of a study folder, as a sweep needs them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.results.analysis.arms import get_values_by_trial
from dirtune.results.records.parquetfile import read_files
from dirtune.results.records.schema import Role, Status
from dirtune.results.records.store import read_table
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import CONFIG, get_trial_folder

Settings = Mapping[str, Any]
"""Values of tuned settings by dotted path."""


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """Result of a trial: its status, and the validation objective of its best epoch, if it has one."""

    status: Status
    objective: float | None


@dataclass(frozen=True, kw_only=True)
class RecordedTrial:
    """The part of a row of the table `trials` that a sweep needs."""

    trial_id: str
    arm: str
    role: Role
    seed: int
    outcome: TrialOutcome


def read_recorded_trials(folder: Storage) -> list[RecordedTrial]:
    """Return all recorded trials of a study."""
    columns = ("arm", "role", "seed", "status", "objective")
    return [
        RecordedTrial(
            trial_id=row["trial_id"],
            arm=row["arm"],
            role=row["role"],
            seed=row["seed"],
            outcome=TrialOutcome(status=row["status"], objective=row["objective"]),
        )
        for row in read_table(folder, "trials", columns=columns).to_pylist()
    ]


def select_search_trials(trials: Iterable[RecordedTrial], arm: str, study: ResolvedStudy) -> list[RecordedTrial]:
    """Return the trials of the search of an arm; without confirmation, these are all trials of the arm."""
    return [each for each in trials if each.arm == arm and (each.role == "search" or not study.search.confirm)]


def find_best_trial(outcomes: Mapping[str, TrialOutcome], mode: Literal["min", "max"]) -> str | None:
    """Return the id of the complete trial with the best objective, or None; ties go to the smallest id."""
    sign = 1 if mode == "min" else -1
    scores = {
        trial_id: sign * outcome.objective
        for trial_id, outcome in outcomes.items()
        if outcome.status == "complete" and outcome.objective is not None and not math.isnan(outcome.objective)
    }
    return min(scores, key=lambda trial_id: (scores[trial_id], trial_id), default=None)


def read_settings(folder: Storage, trial_id: str, paths: Sequence[str]) -> Settings:
    """Return a trial's values of settings by dotted path."""
    # From the trial's own file, because a column of the table has one type for all trials
    config = json.loads(get_trial_folder(folder, trial_id).read(CONFIG))
    return {path: get_leaf(config, path) for path in paths}


def read_secondary_objectives(folder: Storage, study: ResolvedStudy, trial_id: str) -> list[float | None]:
    """Return the secondary objectives of a recorded trial at its best epoch; None where one is undefined."""
    if not study.secondary:
        return []
    (metrics,) = read_files(folder, [f"results/metrics/{trial_id}.parquet"])
    return [
        get_values_by_trial(metrics, metric=each.metric, region=each.region, split="val", selection="best_val").get(
            trial_id
        )
        for each in study.secondary
    ]
