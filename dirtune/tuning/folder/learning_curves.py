"""Learning curves of the searches of a study, recorded or in progress, for the scheduler of a resumed sweep.

A scheduler compares a trial with those before it. Tune would restore them from its own snapshot; here the disk is the state,
and the driver that resumes a sweep reads them again: of recorded trials from the table `epochs`, of others from their
progress.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow.compute as pc

from dirtune.io.storage import Storage
from dirtune.results.records.store import read_table
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import read_progress
from dirtune.tuning.folder.records import read_recorded_trials, select_search_trials

Curve = Sequence[tuple[int, float]]
"""Epoch and validation objective, first epoch first."""


@dataclass(frozen=True, kw_only=True)
class LearningCurves:
    """Learning curves of the trials of all searches of a study."""

    recorded: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    """Curves of recorded trials by arm."""
    in_progress: Mapping[str, Curve] = field(default_factory=dict)
    """Curves of started trials by trial id."""


def read_learning_curves(folder: Storage, study: ResolvedStudy) -> LearningCurves:
    """Return the learning curves in a study folder; empty if the study has no scheduler."""
    if study.search.scheduler is None:
        return LearningCurves()
    trials = read_recorded_trials(folder)
    table = read_table(folder, "epochs", columns=["epoch", "name", "value"])
    table = table.filter(pc.equal(table["name"], study.objective.name))
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in table.to_pylist():
        if _is_finite(row["value"]):
            curves.setdefault(row["trial_id"], []).append((row["epoch"], row["value"]))
    recorded = {
        arm.name: [
            sorted(curves[each.trial_id])
            for each in select_search_trials(trials, arm.name, study)
            if each.trial_id in curves
        ]
        for arm in study.searched_arms
    }
    started = set(folder.list_folders("trials")) - {each.trial_id for each in trials}
    in_progress = {trial_id: _read_curve(folder, study.objective.name, trial_id) for trial_id in sorted(started)}
    return LearningCurves(recorded=recorded, in_progress=in_progress)


def _read_curve(folder: Storage, name: str, trial_id: str) -> Curve:
    progress = read_progress(folder, trial_id)
    epochs = [] if progress is None else progress.epochs
    return [(epoch, values[name]) for epoch, values in enumerate(epochs, start=1) if _is_finite(values.get(name))]


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
