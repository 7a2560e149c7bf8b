"""Run with `pytest tests/tuning/folder/test_records.py`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES, Role, TrialRecord
from dirtune.results.records.store import read_table, write_record
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.tuning.folder.records import (
    LearningCurves,
    TrialOutcome,
    find_best_trial,
    list_orphans,
    orphan_records,
    read_learning_curves,
    restore_records,
)
from tests.results.record_factory import record
from tests.tuning.simulated_sweep import STUDY

NAME = "val/all/mae"


def test_the_best_complete_trial_is_selected_and_ties_go_to_the_smallest_id() -> None:
    outcomes = {
        "d": TrialOutcome(status="complete", objective=1.0),
        "c": TrialOutcome(status="complete", objective=1.0),
        "a": TrialOutcome(status="pruned", objective=0.5),
        "b": TrialOutcome(status="failed", objective=None),
        "0": TrialOutcome(status="complete", objective=math.nan),
    }
    assert find_best_trial(outcomes, "min") == "c"
    more = {**outcomes, "e": TrialOutcome(status="complete", objective=2.0)}
    assert find_best_trial(more, "max") == "e"
    assert find_best_trial({"a": outcomes["a"]}, "min") is None


def study(**search: Any) -> ResolvedStudy:
    search = {"confirm": True, "tuning_seed": 9, "scheduler": {"name": "median"}, **search}
    return resolve({**STUDY, "search": search}, where="test")


def write_curve(folder: Storage, trial_id: str, arm: str, values: list[float | None], role: Role) -> None:
    seed = 9 if role == "search" else 3
    trial = {"trial_id": trial_id, "arm": arm, "role": role, "seed": seed, "status": "complete"}
    epochs = [{NAME: value, "train/loss": 1.0} for value in values]
    metric = {"split": "val", "selection": "best_val", "region": "all", "metric": "mae", "value": values[-1], "n": 1}
    write_record(folder, TrialRecord(trial=trial, config={}, metrics=[metric], epochs=epochs))


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    found = Storage.open(tmp_path)
    write_curve(found, "a", "conr", [3.0, 2.0, 2.5], role="search")
    write_curve(found, "b", "wide", [7.0], role="search")
    write_curve(found, "c", "conr", [1.0], role="evaluation")
    write_curve(found, "d", "conr", [math.nan, 5.0], role="search")
    write_curve(found, "e", "vanilla", [4.0], role="evaluation")
    progress = {"trial": {}, "config": {}, "epochs": [{NAME: 6.0}, {"train/loss": 1.0}, {NAME: 5.0}]}
    found.write("trials/started/progress.json", json.dumps(progress).encode())
    found.write("trials/begun/config.json", b"{}")
    return found


def test_curves_are_read_from_recorded_and_started_trials_of_searches(folder: Storage) -> None:
    found = read_learning_curves(folder, study())
    assert {arm: sorted(map(list, curves)) for arm, curves in found.recorded.items()} == {
        "conr": [[(1, 3.0), (2, 2.0), (3, 2.5)], [(2, 5.0)]],
        "wide": [[(1, 7.0)]],
    }
    assert {name: list(curve) for name, curve in found.in_progress.items()} == {
        "begun": [],
        "started": [(1, 6.0), (3, 5.0)],
    }


def test_without_confirmation_all_trials_of_a_searched_arm_have_curves(folder: Storage) -> None:
    found = read_learning_curves(folder, study(confirm=False, tuning_seed=None))
    assert len(found.recorded["conr"]) == 3


def test_without_a_scheduler_nothing_is_read(folder: Storage) -> None:
    assert read_learning_curves(folder, study(scheduler=None)) == LearningCurves()


def make_folder(root: Path, *trials: str) -> Storage:
    folder = Storage.open(root)
    for trial_id in trials:
        write_record(folder, record("a", 0, trial_id=trial_id))
    return folder


def list_trials(folder: Storage, table: str = "trials") -> set[str]:
    return set(read_table(folder, table)["trial_id"].to_pylist())


def test_orphaned_records_are_in_no_table_and_are_restored_completely(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "x", "y")
    before = {table: read_table(folder, table) for table in TABLES}
    orphan_records(folder, ["x"])
    assert list_orphans(folder) == {"x"}
    assert all(list_trials(folder, table) <= {"y"} for table in TABLES)
    restore_records(folder, ["x"])
    assert list_orphans(folder) == set()
    assert all(read_table(folder, table) == rows for table, rows in before.items())


@pytest.mark.parametrize("step", [orphan_records, restore_records])
def test_a_record_is_never_partly_in_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Storage, list[str]], None]
) -> None:
    folder = make_folder(tmp_path, "x")
    if step is restore_records:
        orphan_records(folder, ["x"])
    moved: list[str] = []
    move = Storage.move

    def die_at_the_second(self: Storage, name: str, to: str) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(name)
        move(self, name, to)

    with monkeypatch.context() as patched:
        patched.setattr(Storage, "move", die_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            step(folder, ["x"])
    assert (list_trials(folder), list_trials(folder, "metrics")) == (set(), set())
    restore_records(folder, ["x"])
    assert (list_trials(folder), list_trials(folder, "metrics")) == ({"x"}, {"x"})


def test_missing_trials_are_skipped(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, "x")
    orphan_records(folder, ["gone"])
    restore_records(folder, ["gone"])
    assert (list_trials(folder), list_orphans(folder)) == ({"x"}, set())
