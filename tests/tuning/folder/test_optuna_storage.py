"""Run with `pytest tests/tuning/folder/test_optuna_storage.py`."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.tuning.folder.optuna_storage import open_optuna_storage, to_optuna_result
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, error_of, omega

SPACE: dict[str, Any] = {
    **STUDY["space"],
    "terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 10.0},
    "model.projection_dim": {"distribution": "choice", "values": [None, 4, 8]},
    "recipe.batch_size": {"distribution": "int", "low": 16, "high": 256, "log": True},
}
SPACE = {path: {**knob, "arms": ["conr"]} for path, knob in SPACE.items()}
CHANGES: dict[str, Any] = {
    "arms": {"conr": {"model": {"projection_dim": 8}, "terms": {"conr": {}}}},
    "space": SPACE,
    "search": {**STUDY["search"], "trials": 8},
}


def get_outcome(config: TrialConfig) -> TrialOutcome:
    """Return a complete trial near the best omega, a pruned or failed one far from it."""
    statuses: list[Status] = ["complete", "complete", "pruned", "failed"]
    status = statuses[int(error_of(config)) % 4]
    return TrialOutcome(status=status, objective=None if status == "failed" else error_of(config))


def load_trials(found: SimulatedSweep) -> dict[str, FrozenTrial]:
    trials = optuna.load_study(study_name="tiny/conr", storage=found.optuna_url).trials
    return {trial.user_attrs["trial_id"]: trial for trial in trials}


def test_a_lost_storage_is_restored_from_the_records(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    jobs = found.sweep(**CHANGES)
    before = load_trials(found)
    assert len({trial.state for trial in before.values()}) == 3
    Path(found.folder.path("optuna.db")).unlink()
    # The budget stays spent
    assert found.sweep(**CHANGES) == []
    after = load_trials(found)
    assert after.keys() == before.keys() == {job.trial_id for job in jobs if job.role == "search"}
    for trial_id, trial in before.items():
        same = after[trial_id]
        assert (same.state, same.values, same.params) == (trial.state, trial.values, trial.params)
        assert same.distributions == trial.distributions


def test_a_storage_lost_during_a_search_costs_no_budget(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    with pytest.raises(Killed):
        found.sweep(die_after=5, **CHANGES)
    Path(found.folder.path("optuna.db")).unlink()
    found.sweep(**CHANGES)
    tried = [row for row in found.read_trials("conr") if row.role == "search"]
    assert len(tried) == 8
    assert len(found.read_trials("conr")) == 8 + 2


@pytest.mark.parametrize(
    ("status", "values", "expected"),
    [
        ("complete", [1.0], (TrialState.COMPLETE, [1.0])),
        ("complete", [1.0, 2.0], (TrialState.COMPLETE, [1.0, 2.0])),
        ("complete", [1.0, None], (TrialState.FAIL, None)),
        ("complete", [None], (TrialState.FAIL, None)),
        ("complete", [float("nan")], (TrialState.FAIL, None)),
        ("pruned", [1.0], (TrialState.PRUNED, None)),
        ("failed", [None], (TrialState.FAIL, None)),
    ],
)
def test_outcomes_are_converted_to_optuna_states_and_values(
    status: Status, values: list[float | None], expected: tuple[Any, ...]
) -> None:
    assert to_optuna_result(status, values) == expected


def test_a_resumed_search_adds_no_trial_twice(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = found.sweep(**CHANGES)
    assert len(load_trials(found)) == 8
    found.sweep(**CHANGES)
    trials = optuna.load_study(study_name="tiny/conr", storage=found.optuna_url).trials
    assert len(trials) == 8
    assert {omega(job.config) for job in jobs if job.role == "search"} == {
        trial.params["terms.conr.omega"] for trial in trials
    }


@pytest.mark.parametrize("table", ["trials", "metrics"])
def test_a_search_trial_whose_record_was_lost_runs_again(tmp_path: Path, table: str) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**CHANGES)
    before, selections = found.read_trials(), found.folder.read("selected.json")
    # The best trial, without which another one would be selected
    lost = json.loads(selections)["conr"]["trial_id"]
    Path(found.folder.path(f"results/{table}/{lost}.parquet")).unlink()
    assert not found.find_reuse(**CHANGES).is_complete
    assert [job.trial_id for job in found.sweep(**CHANGES)] == [lost]
    assert found.find_reuse(**CHANGES).is_complete
    assert (found.read_trials(), found.folder.read("selected.json")) == (before, selections)


def damage_middle(content: bytes) -> bytes:
    return content[: len(content) // 3] + bytes(len(content) // 3) + content[2 * len(content) // 3 :]


@pytest.mark.parametrize("damage", [lambda content: b"no database" * 99, lambda content: content[:5000], damage_middle])
def test_a_damaged_storage_is_rebuilt_from_the_records(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**CHANGES)
    database = Path(found.folder.path("optuna.db"))
    known = load_trials(found).keys()
    database.write_bytes(damage(database.read_bytes()))
    with open_optuna_storage(found.folder) as url:
        assert not database.exists()
        assert url == found.optuna_url
        assert found.sweep(**CHANGES) == []
    assert load_trials(found).keys() == known


OTHER_DATABASES = {
    "another release": "update alembic_version set version_num = 'v9.0.0.a'",
    "another program": "alter table studies rename column study_name to title",
    "no table": "drop table trial_params",
    "a changed distribution": 'update trial_params set distribution_json = \'{"name": "FloatDistrib\'',
}


@pytest.mark.parametrize("name", OTHER_DATABASES)
def test_a_storage_that_optuna_cannot_use_is_rebuilt_from_the_records(tmp_path: Path, name: str) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**CHANGES)
    known = load_trials(found).keys()
    with contextlib.closing(sqlite3.connect(found.folder.path("optuna.db"))) as database:
        database.execute(OTHER_DATABASES[name])
        database.commit()
    with open_optuna_storage(found.folder):
        assert found.sweep(**CHANGES) == []
    assert load_trials(found).keys() == known


CHANGED_VALUES = {
    "the settings of a running trial": "update trial_params set param_value = param_value + 1",
    "the id of a running trial": "update trial_user_attributes set value_json = '\"0123456789abcdef\"' where trial_id = 3",
    "the settings of the best trial": "update trial_params set param_value = 5.5 where trial_id = 1",
}


@pytest.mark.parametrize("name", CHANGED_VALUES)
def test_changed_values_in_the_storage_change_no_record(tmp_path: Path, name: str) -> None:
    changes = {**CHANGES, "space": STUDY["space"], "search": {**STUDY["search"], "trials": 3}}
    undisturbed = SimulatedSweep(tmp_path / "undisturbed")
    undisturbed.sweep(concurrent=1, **changes)
    found = SimulatedSweep(tmp_path / "found")
    with pytest.raises(Killed):
        found.sweep(concurrent=1, die_after=3, **changes)
    with contextlib.closing(sqlite3.connect(found.folder.path("optuna.db"))) as database:
        database.execute(CHANGED_VALUES[name])
        database.commit()
    with open_optuna_storage(found.folder):
        found.sweep(concurrent=1, **changes)
    assert found.find_reuse(**changes).is_complete
    assert sorted(found.read_trials(), key=str) == sorted(undisturbed.read_trials(), key=str)


def test_a_locked_storage_is_one_sentence_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**CHANGES)
    database = Path(found.folder.path("optuna.db"))
    before = database.read_bytes()
    with contextlib.closing(sqlite3.connect(database)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(InputError, match=r"optuna.db: cannot be used \(database is locked\)"),
            open_optuna_storage(found.folder) as url,
        ):
            # Optuna itself waits for seconds
            optuna.get_all_study_names(f"{url}?timeout=0.1")
    assert database.read_bytes() == before


@pytest.mark.parametrize("name", ["what?x=1", "a%2Fb", "a b#c"])
def test_the_storage_of_a_folder_of_any_name_is_inside_of_it(tmp_path: Path, name: str) -> None:
    folder = Storage.open(tmp_path / name)
    with open_optuna_storage(folder) as url:
        optuna.create_study(study_name="s", storage=url)
    assert (tmp_path / name / "optuna.db").exists()


@pytest.mark.parametrize(
    "change",
    [
        "update trial_values set value = value + 1 where trial_id = 3",
        "update trial_params set param_value = param_value * 1.01 where trial_id = 3 and param_name like '%omega'",
        "update trials set state = 'PRUNED' where trial_id in (select trial_id from trials where state = 'COMPLETE' limit 1)",
        "update trials set number = 70 where trial_id = 3",
        """update trial_user_attributes set value_json = '"other"' where trial_id = 3""",
    ],
)
def test_a_storage_that_differs_from_the_records_is_made_anew(tmp_path: Path, change: str) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    found.sweep(**CHANGES)
    before = load_trials(found)
    with contextlib.closing(sqlite3.connect(found.folder.path("optuna.db"))) as database, database:
        assert database.execute(change).rowcount == 1
    assert found.sweep(**CHANGES) == []
    after = load_trials(found)
    assert after.keys() == before.keys()
    for trial_id, trial in before.items():
        same = after[trial_id]
        assert (same.state, same.values, same.params) == (trial.state, trial.values, trial.params)


def test_a_storage_that_agrees_with_the_records_is_left_alone(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    found.sweep(**CHANGES)
    before = {trial_id: trial._trial_id for trial_id, trial in load_trials(found).items()}
    assert found.sweep(**CHANGES) == []
    assert {trial_id: trial._trial_id for trial_id, trial in load_trials(found).items()} == before
