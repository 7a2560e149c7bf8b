"""Run with `pytest tests/tuning/folder/test_learning_curves.py`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dirtune.io.storage import Storage
from dirtune.results.records.schema import Role, TrialRecord
from dirtune.results.records.store import write_record
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.tuning.folder.learning_curves import LearningCurves, read_learning_curves
from tests.tuning.simulated_sweep import STUDY

NAME = "val/all/mae"


def study(**search: Any) -> ResolvedStudy:
    search = {"confirm": True, "tuning_seed": 9, "scheduler": {"name": "median"}, **search}
    return resolve({**STUDY, "search": search}, where="test")


def write_curve(folder: Storage, trial_id: str, arm: str, values: list[float | None], role: Role) -> None:
    trial = {"trial_id": trial_id, "arm": arm, "role": role, "status": "complete"}
    epochs = [{NAME: value, "train/loss": 1.0} for value in values]
    write_record(folder, TrialRecord(trial=trial, config={}, epochs=epochs))


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
