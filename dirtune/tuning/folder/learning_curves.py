"""The intermediate objectives of the trials that earlier drivers of a sweep have run, as its folder holds them.

A scheduler judges a trial by those before it. Tune would know them from its own snapshot; here the disk is the state, and the
driver that resumes a sweep learns them anew: of ended trials from the table `epochs`, of started ones from their progress.
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
from dirtune.tuning.folder.confirmation import recorded_rows, was_tried

Curve = Sequence[tuple[int, float]]
"""Epoch and validation objective, first epoch first."""


@dataclass(frozen=True, kw_only=True)
class EarlierTrials:
    """The curves of the searches of a study."""

    ended: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    """By arm."""
    started: Mapping[str, Curve] = field(default_factory=dict)
    """By trial id."""


def earlier_trials(folder: Storage, study: ResolvedStudy) -> EarlierTrials:
    """What has been recorded and started of the searches of a study."""
    search = study.search
    if search.scheduler is None:
        return EarlierTrials()
    rows = recorded_rows(folder)
    curves = recorded_curves(folder, study)
    ended = {
        arm.name: [
            curves[row["trial_id"]] for row in rows if was_tried(row, arm.name, study) and row["trial_id"] in curves
        ]
        for arm in study.searched_arms
    }
    names = set(folder.list_folders("trials")) - {row["trial_id"] for row in rows}
    started = {name: _started_curve(folder, study, name) for name in sorted(names)}
    return EarlierTrials(ended=ended, started=started)


def recorded_curves(folder: Storage, study: ResolvedStudy) -> dict[str, list[tuple[int, float]]]:
    """The curve of every recorded trial that has one, by trial id."""
    table = read_table(folder, "epochs", columns=["epoch", "name", "value"])
    table = table.filter(pc.equal(table["name"], study.objective.name))
    found: dict[str, list[tuple[int, float]]] = {}
    for row in table.to_pylist():
        if _is_number(row["value"]):
            found.setdefault(row["trial_id"], []).append((row["epoch"], row["value"]))
    return {trial_id: sorted(curve) for trial_id, curve in found.items()}


def _started_curve(folder: Storage, study: ResolvedStudy, trial_id: str) -> Curve:
    progress = read_progress(folder, trial_id)
    values = [] if progress is None else progress.epochs
    name = study.objective.name
    return [(epoch, row[name]) for epoch, row in enumerate(values, start=1) if _is_number(row.get(name))]


def _is_number(value: Any) -> bool:
    return value is not None and math.isfinite(value)
