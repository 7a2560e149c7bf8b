"""What the searches of a study have selected, read from its records, and written down beside them.

The selected configuration is the one with the best validation objective among an arm's complete trials, ties by trial id.
It follows from the records alone, so that a sweep that was killed at any moment comes to the same one. `selected.json`
only repeats it for readers: tables take from it which trials stand for an arm, even where two arms came to share one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.results.records.names import SELECTIONS
from dirtune.results.records.schema import Status
from dirtune.results.records.store import read_table
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import CONFIG, TrialJob, trial_folder
from dirtune.tuning.folder.jobs import Settings
from dirtune.tuning.folder.orphans import set_aside

RECORDED = ("trial_id", "arm", "role", "seed", "status", "objective")


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a trial ended: its status and the validation objective of its best epoch, if it has one."""

    status: Status
    objective: float | None


@dataclass(frozen=True)
class Selected:
    """The configuration that a search has selected: the trial of the search, and its values of the knobs."""

    trial_id: str
    settings: Settings


def selected_trial(endings: Mapping[str, Ending], mode: Literal["min", "max"]) -> str | None:
    """The complete trial with the best objective, the first by its id of equal ones; none if none is complete."""
    sign = 1 if mode == "min" else -1
    scores = {
        trial_id: sign * ending.objective
        for trial_id, ending in endings.items()
        if ending.status == "complete" and ending.objective is not None and not math.isnan(ending.objective)
    }
    return min(scores, key=lambda trial_id: (scores[trial_id], trial_id), default=None)


def recorded_rows(folder: Storage) -> list[dict[str, Any]]:
    """Of every recorded trial of a study, the columns of `RECORDED`."""
    rows: list[dict[str, Any]] = read_table(folder, "trials", columns=RECORDED[1:]).to_pylist()
    return rows


def recorded_selections(
    folder: Storage, study: ResolvedStudy, rows: Sequence[Mapping[str, Any]]
) -> dict[str, Selected | None]:
    """By arm, what the searches select whose budget the records spend; None where no trial is complete."""
    found: dict[str, Selected | None] = {}
    for arm in study.searched_arms if study.search.confirm else ():
        endings = {
            row["trial_id"]: Ending(status=row["status"], objective=row["objective"])
            for row in rows
            if was_tried(row, arm.name, study)
        }
        if len(endings) < study.get_budget(arm):
            continue
        trial_id = selected_trial(endings, study.objective.mode)
        found[arm.name] = (
            None if trial_id is None else Selected(trial_id, settings_of(folder, trial_id, tuple(arm.space)))
        )
    return found


def was_tried(row: Mapping[str, Any], arm: str, study: ResolvedStudy) -> bool:
    """Whether a recorded trial is of the search of an arm."""
    return row["arm"] == arm and (row["role"] == "search" or not study.search.confirm)


def settings_of(folder: Storage, trial_id: str, paths: Sequence[str]) -> Settings:
    """A trial's values of settings."""
    # The trial's own file has the values as they were; a column of the table has one type for all trials.
    config = json.loads(trial_folder(folder, trial_id).read(CONFIG))
    return {path: get_leaf(config, path) for path in paths}


def confirm(folder: Storage, arm: str, selected: Selected, jobs: Sequence[TrialJob]) -> set[str]:
    """Write down what a search has selected, and set aside the records that no arm's selection needs any more.

    Args:
        jobs: the trials that the selection brings, of the arm and of those that take its settings.

    Returns:
        The trials whose records have been set aside.
    """
    written = json.loads(folder.read(SELECTIONS)) if folder.exists(SELECTIONS) else {}
    takers = dict.fromkeys(job.arm for job in jobs)
    now = {**written, **{name: _entry(name, arm, selected, jobs) for name in takers}}
    if now != written:
        _write(folder, now)
    used = {trial["trial_id"] for entry in now.values() for trial in entry["planned"]}
    trained = {row["trial_id"] for row in recorded_rows(folder) if row["arm"] in now and row["role"] != "search"}
    set_aside(folder, sorted(trained - used))
    return trained - used


def keep_selections(folder: Storage, arms: Collection[str]) -> None:
    """Forget what was selected for other arms than these."""
    if folder.exists(SELECTIONS):
        written = json.loads(folder.read(SELECTIONS))
        _write(folder, {name: entry for name, entry in written.items() if name in arms})


def _write(folder: Storage, selections: Mapping[str, Any]) -> None:
    folder.write(SELECTIONS, json.dumps(selections, indent=1, sort_keys=True).encode())


def _entry(arm: str, searched: str, selected: Selected, jobs: Sequence[TrialJob]) -> dict[str, Any]:
    """An arm of `selected.json`."""
    return {
        "search": searched,
        "trial_id": selected.trial_id,
        "settings": dict(selected.settings),
        "planned": [
            {"seed": job.config.seed, "replicate": job.replicate, "trial_id": job.trial_id}
            for job in jobs
            if job.arm == arm
        ],
    }
