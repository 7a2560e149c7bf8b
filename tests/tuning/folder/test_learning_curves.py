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
from dirtune.tuning.folder.learning_curves import EarlierTrials, earlier_trials
from tests.tuning.pretended import STUDY

NAME = "val/all/mae"


def study(**search: Any) -> ResolvedStudy:
    search = {"confirm": True, "tuning_seed": 9, "scheduler": {"name": "median"}, **search}
    return resolve({**STUDY, "search": search}, where="test")


def write(folder: Storage, trial_id: str, arm: str, values: list[float | None], role: Role) -> None:
    trial = {"trial_id": trial_id, "arm": arm, "role": role, "status": "complete"}
    epochs = [{NAME: value, "train/loss": 1.0} for value in values]
    write_record(folder, TrialRecord(trial=trial, config={}, epochs=epochs))


@pytest.fixture
def folder(tmp_path: Path) -> Storage:
    found = Storage.open(tmp_path)
    write(found, "a", "conr", [3.0, 2.0, 2.5], role="search")
    write(found, "b", "wide", [7.0], role="search")
    write(found, "c", "conr", [1.0], role="evaluation")
    write(found, "d", "conr", [math.nan, 5.0], role="search")
    write(found, "e", "vanilla", [4.0], role="evaluation")
    progress = {"trial": {}, "config": {}, "epochs": [{NAME: 6.0}, {"train/loss": 1.0}, {NAME: 5.0}]}
    found.write("trials/started/progress.json", json.dumps(progress).encode())
    found.write("trials/begun/config.json", b"{}")
    return found


def test_the_curves_of_searches_are_those_of_their_ended_and_started_trials(folder: Storage) -> None:
    found = earlier_trials(folder, study())
    assert {arm: sorted(map(list, curves)) for arm, curves in found.ended.items()} == {
        "conr": [[(1, 3.0), (2, 2.0), (3, 2.5)], [(2, 5.0)]],
        "wide": [[(1, 7.0)]],
    }
    assert {name: list(curve) for name, curve in found.started.items()} == {
        "begun": [],
        "started": [(1, 6.0), (3, 5.0)],
    }


def test_without_a_confirmation_all_trials_of_a_searched_arm_count(folder: Storage) -> None:
    found = earlier_trials(folder, study(confirm=False, tuning_seed=None))
    assert len(found.ended["conr"]) == 3


def test_without_a_scheduler_nothing_is_read(folder: Storage) -> None:
    assert earlier_trials(folder, study(scheduler=None)) == EarlierTrials()
