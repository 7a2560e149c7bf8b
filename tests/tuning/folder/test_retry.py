"""Run with `pytest tests/tuning/folder/test_retry.py`; retries in a real sweep are tested in `test_failed_sweep`."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import TrialState

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import read_statuses, read_table, write_record
from dirtune.tuning.folder.optuna_storage import TRIAL_ID
from dirtune.tuning.folder.retry import ALWAYS_RETRIED, parse_error_classes, reset_failed_trials

CLASSES = ("out_of_memory", "nan", "infrastructure", "code")


def write_failures(folder: Storage) -> None:
    """Write a failed trial of every class, and a complete one."""
    for name in CLASSES:
        trial = {"trial_id": name, "status": "failed", "error_class": name}
        write_record(folder, TrialRecord(trial=trial, config={}, epochs=[{"loss": 1.0}]))
        folder.write(f"trials/{name}/checkpoint/state.pt", b"state")
        folder.write(f"trials/{name}/progress.json", b"{}")
    write_record(folder, TrialRecord(trial={"trial_id": "good", "status": "complete"}, config={}))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], {"infrastructure"}),
        (["failed"], set(CLASSES)),
        (["nan"], {"nan", "infrastructure"}),
        (["code", "out_of_memory"], {"code", "out_of_memory", "infrastructure"}),
    ],
)
def test_infrastructure_failures_and_requested_classes_are_retried(names: list[str], expected: set[str]) -> None:
    assert parse_error_classes(names) == expected


def test_all_unknown_classes_are_listed() -> None:
    with pytest.raises(InputError) as caught:
        parse_error_classes(["nans", "all"])
    first, second = str(caught.value).splitlines()
    assert first.startswith("--retry: unknown error class, got 'nans'; known: code, failed, ")
    assert "did you mean 'nan'?" in first
    assert "got 'all'" in second


def test_a_reset_trial_has_no_record_and_the_others_keep_theirs(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    write_failures(folder)
    assert reset_failed_trials(folder, parse_error_classes(["nan"]), InMemoryStorage(), []) == ["infrastructure", "nan"]
    assert set(read_statuses(folder)) == {"out_of_memory", "code", "good"}
    assert set(read_table(folder, "epochs")["trial_id"].to_pylist()) == {"out_of_memory", "code"}
    assert reset_failed_trials(folder, ALWAYS_RETRIED, InMemoryStorage(), []) == []


def test_checkpoints_are_kept_for_classes_that_resume(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    write_failures(folder)
    reset_failed_trials(folder, parse_error_classes(["failed"]), InMemoryStorage(), [])
    kept = {name for name in CLASSES if folder.exists(f"trials/{name}/checkpoint")}
    assert kept == {"out_of_memory", "infrastructure"}
    assert folder.exists("trials/infrastructure/progress.json")
    assert not folder.exists("trials/nan/progress.json")


def make_search(storage: BaseStorage, trial_id: str, state: TrialState) -> optuna.Study:
    search = optuna.create_study(study_name="s/conr", storage=storage)
    trial = search.ask()
    trial.suggest_float("beta", 0, 1)
    trial.set_user_attr(TRIAL_ID, trial_id)
    if state.is_finished():
        search.tell(trial, state=state)
    return search


@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.RUNNING])
def test_a_search_has_one_running_copy_with_the_same_settings(tmp_path: Path, state: TrialState) -> None:
    folder, storage = Storage.open(tmp_path), InMemoryStorage()
    search = make_search(storage, "infrastructure", state)
    # The second time is that of a sweep that was killed in between
    for _ in range(2):
        write_failures(folder)
        reset_failed_trials(folder, ALWAYS_RETRIED, storage, ["s/conr", "s/not begun"])
    running = [trial for trial in search.trials if trial.state == TrialState.RUNNING]
    assert [trial.user_attrs[TRIAL_ID] for trial in running] == ["infrastructure"]
    assert running[0].params == search.trials[0].params
    assert len(search.trials) == (2 if state == TrialState.FAIL else 1)
