"""Records of a study folder as a sweep needs them: trials, learning curves, orphans.

A scheduler compares a trial with those before it. Tune would restore them from its own snapshot; here the disk is the state,
and the driver that resumes a sweep reads them again: of recorded trials from the table `epochs`, of others from their
progress.

Records that a study no longer plans are orphaned: moved out of all tables, and back when they are planned again.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow.compute as pc

from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.results.analysis.arms import get_values_by_trial
from dirtune.results.records import kept, parquetfile, schema, store
from dirtune.study.resolve import ArmSearchPlan, ResolvedStudy
from dirtune.training.trial import CONFIG, get_trial_folder, read_progress
from dirtune.tuning.folder.layout import ORPHANED

Settings = Mapping[str, Any]
"""Values of tuned settings by dotted path."""


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """Result of a trial: its status, and the validation objective of its best epoch, if it has one."""

    status: schema.Status
    objective: float | None


@dataclass(frozen=True, kw_only=True)
class RecordedTrial:
    """The part of a row of the table `trials` that a sweep needs."""

    trial_id: str
    arm: str
    role: schema.Role
    seed: int
    outcome: TrialOutcome


Curve = Sequence[tuple[int, float]]
"""Epoch and validation objective, first epoch first."""


@dataclass(frozen=True, kw_only=True)
class LearningCurves:
    """Learning curves of the trials of all searches of a study."""

    recorded: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    """Curves of recorded trials by search."""
    in_progress: Mapping[str, Curve] = field(default_factory=dict)
    """Curves of started trials by trial id."""


def read_recorded_trials(folder: Storage) -> list[RecordedTrial]:
    """Return all recorded trials of a study; one that is complete without its metrics has lost them, and runs again."""
    columns = ("arm", "role", "seed", "status", "objective")
    evaluated = {name.removesuffix(".parquet") for name in folder.list_files("results/metrics", suffix=".parquet")}
    return [
        RecordedTrial(
            trial_id=row["trial_id"],
            arm=row["arm"],
            role=row["role"],
            seed=row["seed"],
            outcome=TrialOutcome(status=row["status"], objective=row["objective"]),
        )
        for row in store.read_table(folder, "trials", columns=columns).to_pylist()
        if row["status"] != "complete" or row["trial_id"] in evaluated
    ]


def select_search_trials(
    trials: Iterable[RecordedTrial], search: ArmSearchPlan, study: ResolvedStudy
) -> list[RecordedTrial]:
    """Return the trials of a search; without confirmation, these are all trials of the arm."""
    own = [each for each in trials if each.arm == search.arm.name]
    if not study.search.confirm:
        return own
    return [each for each in own if each.role == "search" and each.seed == search.seed]


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
    config = read_json_object(get_trial_folder(folder, trial_id), CONFIG)
    return {path: get_leaf(config, path) for path in paths}


def read_secondary_objectives(folder: Storage, study: ResolvedStudy, trial_id: str) -> list[float | None]:
    """Return the secondary objectives of a recorded trial at its best epoch; None where one is undefined."""
    if not study.secondary:
        return []
    (metrics,) = parquetfile.read_files(folder, [f"results/metrics/{trial_id}.parquet"])
    return [
        get_values_by_trial(metrics, metric=each.metric, region=each.region, split="val", selection="best_val").get(
            trial_id
        )
        for each in study.secondary
    ]


def read_learning_curves(folder: Storage, study: ResolvedStudy) -> LearningCurves:
    """Return the learning curves in a study folder; empty if the study has no scheduler."""
    if study.search.scheduler is None:
        return LearningCurves()
    trials, curves = read_recorded_trials(folder), read_recorded_curves(folder, study)
    recorded = {
        search.name: [
            curves[each.trial_id] for each in select_search_trials(trials, search, study) if each.trial_id in curves
        ]
        for search in study.searches
    }
    # A trial without a record may run again under this driver; its curve so far is replayed when it reports
    started = set(folder.list_folders("trials")) - {each.trial_id for each in trials}
    in_progress = {trial_id: _read_curve(folder, study.objective.name, trial_id) for trial_id in sorted(started)}
    return LearningCurves(recorded=recorded, in_progress=in_progress)


def read_recorded_curves(folder: Storage, study: ResolvedStudy) -> dict[str, Curve]:
    """Return the learning curves of recorded trials by trial id; undefined values are left out."""
    table = store.read_table(folder, "epochs", columns=["epoch", "name", "value"])
    table = table.filter(pc.equal(table["name"], study.objective.name))
    curves: dict[str, list[tuple[int, float]]] = {}
    for row in table.to_pylist():
        # An undefined objective has no place in an order, and Tune's schedulers would compare with it
        if _is_finite(row["value"]):
            curves.setdefault(row["trial_id"], []).append((row["epoch"], row["value"]))
    return {trial_id: sorted(curve) for trial_id, curve in curves.items()}


def orphan_records(folder: Storage, trial_ids: Iterable[str]) -> None:
    """Move the records of trials out of the tables."""
    for trial_id in trial_ids:
        # The file in `trials/`, the last of `TABLES`, commits a record: it is moved out first, and back last
        for table in reversed(schema.TABLES):
            _move(folder, f"results/{table}/{trial_id}.parquet", f"{ORPHANED}/{table}/{trial_id}.parquet")
        _move_model(folder, "", f"{ORPHANED}/", trial_id)


def restore_records(folder: Storage, trial_ids: Iterable[str]) -> None:
    """Move the records of trials back into the tables."""
    for trial_id in trial_ids:
        # Before the record, which a model is written before, too
        _move_model(folder, f"{ORPHANED}/", "", trial_id)
        for table in schema.TABLES:
            _move(folder, f"{ORPHANED}/{table}/{trial_id}.parquet", f"results/{table}/{trial_id}.parquet")


def list_orphans(folder: Storage) -> set[str]:
    """Return the ids of trials with an orphaned record."""
    # The file in `trials/` is the last to be moved out of the orphans, so this finds partly restored records as well
    names = folder.list_files(f"{ORPHANED}/trials", suffix=".parquet")
    return {name.removesuffix(".parquet") for name in names}


def _read_curve(folder: Storage, name: str, trial_id: str) -> Curve:
    progress = read_progress(folder, trial_id)
    epochs = [] if progress is None else progress.epochs
    return [(epoch, values[name]) for epoch, values in enumerate(epochs, start=1) if _is_finite(values.get(name))]


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)


def _move_model(folder: Storage, before: str, after: str, trial_id: str) -> None:
    model = kept.get_model_folder(trial_id)
    # The last file commits a model
    for name in kept.MODEL_FILES:
        _move(folder, f"{before}{model}/{name}", f"{after}{model}/{name}")
    folder.remove(f"{before}{model}")


def _move(folder: Storage, name: str, to: str) -> None:
    if folder.exists(name):
        folder.move(name, to)
