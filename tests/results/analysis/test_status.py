from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.status import PROGRESS, status
from dirtune.results.records.store import write_record
from tests.results.record_factory import record, write_study

STUDY: dict[str, Any] = {"arms": ["vanilla", "conr"], "seeds": [0, 1, 2], "trials": {"vanilla": 3, "conr": 5}}


def begin(folder: Storage, trial_id: str, *, age: float = 0.0, **columns: Any) -> Path:
    """What a trial that runs has left on the disk `age` seconds ago."""
    row = {"arm": "conr", "seed": 1, "epochs_run": 3, "epochs_planned": 10, "objective": 4.5, **columns}
    folder.write(f"trials/{trial_id}/config.json", b"{}")
    text = json.dumps({"trial": row, "config": {}, "epochs": []})
    folder.write(f"trials/{trial_id}/{PROGRESS}", text.encode())
    path = Path(folder.path(f"trials/{trial_id}/{PROGRESS}"))
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_recorded_trials_are_counted_by_arm_and_status(tmp_path: Path) -> None:
    records = [
        record("vanilla", 0),
        record("vanilla", 1),
        record("vanilla", 2, status="failed"),
        record("conr", 0),
        record("conr", 1, status="pruned"),
        record("conr", 2, status="pruned"),
    ]
    write_study(tmp_path, records, **STUDY)
    found = status("study", results=tmp_path)
    assert found.planned == {"vanilla": 3, "conr": 5}
    assert (found.study, found.done, found.total, found.started) == ("study", 6, 8, ())
    states = ("complete", "pruned", "failed")
    assert [found.count("vanilla", state) for state in states] == [2, 0, 1]
    assert [found.count("conr", state) for state in states] == [1, 2, 0]


def test_failures_are_counted_by_their_class(tmp_path: Path) -> None:
    records = [record("conr", seed, status="failed") for seed in range(3)]
    for one, found in zip(records, ("code", "code", "nan"), strict=True):
        one.trial["error_class"] = found
    write_study(tmp_path, [record("vanilla", 0), *records], **STUDY)
    assert status("study", results=tmp_path).failures == {"code": 2, "nan": 1}


def test_a_started_trial_has_the_values_of_its_progress_file(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    begin(folder, "abc", age=100.0)
    (trial,) = status("study", results=tmp_path).started
    assert (trial.trial_id, trial.arm, trial.seed) == ("abc", "conr", 1)
    assert (trial.epochs_run, trial.epochs_planned, trial.objective) == (3, 10, 4.5)
    assert 100 <= trial.seconds_since_progress < 160


def test_a_trial_whose_objective_is_not_defined_yet_has_none(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    begin(folder, "abc", objective=None)
    assert status("study", results=tmp_path).started[0].objective is None


def test_a_trial_before_its_first_epoch_is_neither_started_nor_recorded(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    folder.write("trials/abc/config.json", b"{}")
    found = status("study", results=tmp_path)
    assert (found.done, found.started) == (0, ())


def test_a_recorded_trial_is_not_shown_as_started_while_it_is_being_tidied(tmp_path: Path) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    begin(folder, "abc")
    write_record(folder, record("conr", 1, trial_id="abc"))
    found = status("study", results=tmp_path)
    assert (found.done, found.started) == (1, ())


@pytest.mark.parametrize("moment", ["before it is read", "after it is read"])
def test_progress_that_vanishes_meanwhile_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    gone = begin(folder, "abc")
    begin(folder, "def")
    read = Storage.read

    def read_while_a_worker_tidies(storage: Storage, name: str) -> bytes:
        if "abc" not in name:
            return read(storage, name)
        if moment == "before it is read":
            gone.unlink()
        content = read(storage, name)
        gone.unlink()
        return content

    monkeypatch.setattr(Storage, "read", read_while_a_worker_tidies)
    found = [trial.trial_id for trial in status("study", results=tmp_path).started]
    assert found == (["def"] if moment == "before it is read" else ["abc", "def"])


def test_progress_that_appears_meanwhile_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_study(tmp_path, [], **STUDY)
    folder.write("trials/abc/config.json", b"{}")
    read = Storage.read

    def read_while_a_worker_ends_its_first_epoch(storage: Storage, name: str) -> bytes:
        if name.endswith(PROGRESS):
            begin(folder, "abc")
        return read(storage, name)

    monkeypatch.setattr(Storage, "read", read_while_a_worker_ends_its_first_epoch)
    assert status("study", results=tmp_path).started == ()


def test_a_study_that_has_only_begun_is_all_zeros(tmp_path: Path) -> None:
    write_study(tmp_path, [], **STUDY)
    found = status("study", results=tmp_path)
    assert (found.done, found.total, found.started) == (0, 8, ())


def test_an_unknown_sweep_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    # Single runs are no sweep
    write_study(tmp_path, [record("train", 0)], name="train")
    write_study(tmp_path, [], name="quickstart", **STUDY)
    with pytest.raises(InputError) as caught:
        status("quikstart", results=tmp_path)
    text = f"{tmp_path}: no sweep of this name, got 'quikstart'; known: quickstart (did you mean"
    assert text in str(caught.value)
    with pytest.raises(InputError, match=r"no sweep of this name, got 'train'; known: quickstart$"):
        status("train", results=tmp_path)


def test_a_damaged_study_is_an_error_that_names_its_file(tmp_path: Path) -> None:
    write_study(tmp_path, [], **STUDY).write("study.json", b"{")
    with pytest.raises(InputError, match=r"study/study\.json: not readable as JSON"):
        status("study", results=tmp_path)
