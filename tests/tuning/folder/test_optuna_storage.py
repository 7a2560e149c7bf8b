"""Run with `pytest tests/tuning/folder/test_optuna_storage.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from dirtune.config import TrialConfig
from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.tuning.folder.optuna_storage import to_optuna_result
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, error_of, omega
from tests.tuning.sweeps import load_search

Step = dict[str, Any]
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
    return {trial.user_attrs["trial_id"]: trial for trial in load_search(Path(found.folder.path()), "conr").trials}


def change_steps(folder: Storage, change: Callable[[Step], None]) -> None:
    """Change the steps of a journal."""
    steps = [json.loads(line) for line in folder.read("optuna.log").splitlines()]
    for step in steps:
        change(step)
    lines = [json.dumps(step, separators=(",", ":")) for step in steps]
    folder.write("optuna.log", "".join(f"{line}\n" for line in lines).encode())


def test_a_lost_storage_is_restored_from_the_records(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    jobs = found.sweep(**CHANGES)
    before = load_trials(found)
    assert len({trial.state for trial in before.values()}) == 3
    found.folder.remove("optuna.log")
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
    found.folder.remove("optuna.log")
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
    trials = load_search(Path(found.folder.path()), "conr").trials
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


def change_settings(step: Step) -> None:
    if "param_value_internal" in step:
        step["param_value_internal"] += 1


def change_the_best_settings(step: Step) -> None:
    if step.get("trial_id") == 0 and "param_value_internal" in step:
        step["param_value_internal"] = 5.5


def change_the_last_id(step: Step) -> None:
    if step.get("trial_id") == 2 and "user_attr" in step:
        step["user_attr"]["trial_id"] = "0123456789abcdef"


@pytest.mark.parametrize("change", [change_settings, change_the_best_settings, change_the_last_id])
def test_changed_values_in_the_storage_change_no_record(tmp_path: Path, change: Callable[[Step], None]) -> None:
    changes = {**CHANGES, "space": STUDY["space"], "search": {**STUDY["search"], "trials": 3}}
    undisturbed = SimulatedSweep(tmp_path / "undisturbed")
    undisturbed.sweep(concurrent=1, **changes)
    found = SimulatedSweep(tmp_path / "found")
    with pytest.raises(Killed):
        found.sweep(concurrent=1, die_after=3, **changes)
    change_steps(found.folder, change)
    found.sweep(concurrent=1, **changes)
    assert found.find_reuse(**changes).is_complete
    assert sorted(found.read_trials(), key=str) == sorted(undisturbed.read_trials(), key=str)


def change_a_value(step: Step) -> None:
    if step.get("trial_id") == 2 and step.get("values"):
        step["values"][0] += 1


def change_a_setting(step: Step) -> None:
    if step.get("trial_id") == 2 and str(step.get("param_name")).endswith("omega"):
        step["param_value_internal"] *= 1.01


def change_a_state(step: Step) -> None:
    if step.get("state") == TrialState.COMPLETE:
        step["state"] = TrialState.PRUNED


def change_an_id(step: Step) -> None:
    if step.get("trial_id") == 2 and "user_attr" in step:
        step["user_attr"]["trial_id"] = "other"


@pytest.mark.parametrize("change", [change_a_value, change_a_setting, change_a_state, change_an_id])
def test_a_storage_that_differs_from_the_records_is_made_anew(tmp_path: Path, change: Callable[[Step], None]) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    found.sweep(**CHANGES)
    before, content = load_trials(found), found.folder.read("optuna.log")
    change_steps(found.folder, change)
    assert found.folder.read("optuna.log") != content
    assert found.sweep(**CHANGES) == []
    after = load_trials(found)
    assert after.keys() == before.keys()
    for trial_id, trial in before.items():
        same = after[trial_id]
        assert (same.state, same.values, same.params) == (trial.state, trial.values, trial.params)


def test_a_storage_that_agrees_with_the_records_is_left_alone(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path, get_outcome)
    found.sweep(**CHANGES)
    before = found.folder.read("optuna.log")
    assert found.sweep(**CHANGES) == []
    assert found.folder.read("optuna.log") == before
