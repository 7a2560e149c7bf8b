"""Failed trials that are run again: `pytest tests/tuning/folder/test_retry.py`; in a sweep: `test_failed_sweep`."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import read_statuses, read_table, write_record
from dirtune.tuning.folder.optuna_storage import TRIAL_ID
from dirtune.tuning.folder.retry import ALWAYS, classes_to_retry, reopen

CLASSES = ("out_of_memory", "nan", "infrastructure", "code")


def write_failures(folder: Storage) -> None:
    """One failed trial of every class, one of an older file, and one that is complete."""
    for name in (*CLASSES, None):
        trial = {"trial_id": name or "old", "status": "failed", "error_class": name}
        write_record(folder, TrialRecord(trial=trial, config={}, epochs=[{"loss": 1.0}]))
        folder.write(f"trials/{name or 'old'}/checkpoint/state.pt", b"state")
        folder.write(f"trials/{name or 'old'}/progress.json", b"{}")
    write_record(folder, TrialRecord(trial={"trial_id": "good", "status": "complete"}, config={}))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ([], {"infrastructure"}),
        (["failed"], set(CLASSES)),
        (["nan"], {"nan", "infrastructure"}),
        (["code", "out_of_memory"], {"code", "out_of_memory", "infrastructure"}),
    ],
)
def test_infrastructure_is_always_retried_and_else_what_is_asked_for(asked: list[str], expected: set[str]) -> None:
    assert classes_to_retry(asked) == expected


def test_unknown_classes_are_said_all_at_once() -> None:
    with pytest.raises(InputError) as caught:
        classes_to_retry(["nans", "all"])
    first, second = str(caught.value).splitlines()
    assert first.startswith("--retry: unknown class of failures, got 'nans'; known: code, failed, ")
    assert "did you mean 'nan'?" in first
    assert "got 'all'" in second


def test_a_reopened_trial_is_no_longer_recorded_and_the_others_stay(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    write_failures(folder)
    assert reopen(folder, classes_to_retry(["nan"]), "", []) == ["infrastructure", "nan", "old"]
    assert set(read_statuses(folder)) == {"out_of_memory", "code", "good"}
    assert set(read_table(folder, "epochs")["trial_id"].to_pylist()) == {"out_of_memory", "code"}
    assert reopen(folder, ALWAYS, "", []) == []


def test_what_a_class_says_nothing_against_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    write_failures(folder)
    reopen(folder, classes_to_retry(["failed"]), "", [])
    kept = {name for name in (*CLASSES, "old") if folder.exists(f"trials/{name}/checkpoint")}
    assert kept == {"out_of_memory", "infrastructure"}
    assert folder.exists("trials/infrastructure/progress.json")
    assert not folder.exists("trials/nan/progress.json")


def search_with(storage: str, trial_id: str, state: TrialState) -> optuna.Study:
    search = optuna.create_study(study_name="s/conr", storage=storage)
    trial = search.ask()
    trial.suggest_float("beta", 0, 1)
    trial.set_user_attr(TRIAL_ID, trial_id)
    if state.is_finished():
        search.tell(trial, state=state)
    return search


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.RUNNING])
def test_a_search_has_the_trial_open_once_with_the_same_settings(tmp_path: Path, state: TrialState) -> None:
    folder, storage = Storage.open(tmp_path), f"sqlite:///{tmp_path}/optuna.db"
    search = search_with(storage, "infrastructure", state)
    # Killed between the two steps, it begins anew
    for _ in range(2):
        write_failures(folder)
        reopen(folder, ALWAYS, storage, ["s/conr", "s/not begun"])
    open_ = [trial for trial in search.trials if trial.state == TrialState.RUNNING]
    assert [trial.user_attrs[TRIAL_ID] for trial in open_] == ["infrastructure"]
    assert open_[0].params == search.trials[0].params
    assert len(search.trials) == (2 if state == TrialState.FAIL else 1)
