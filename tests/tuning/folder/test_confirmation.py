"""Run with `pytest tests/tuning/folder/test_confirmation.py`."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from dirtune.config import TrialConfig
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.searches import list_ended_trials
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.query.query import query
from dirtune.results.records.names import SELECTED
from dirtune.results.records.studies import read_study
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.render.formats import render
from dirtune.tuning.folder.records import TrialOutcome
from tests.tuning.simulated_sweep import STUDY, Killed, SimulatedSweep, error_of, of_arm, omega


def with_search(**changes: Any) -> dict[str, Any]:
    return {"search": {**STUDY["search"], **changes}}


def find_best_omega(found: SimulatedSweep, arm: str) -> float:
    """Return the omega that an arm's search must select, by the recorded objectives."""
    tried = [row for row in found.read_trials(arm) if row.role == "search"]
    best = min(tried, key=lambda row: (row.outcome.objective, row.trial_id))
    config = json.loads(found.folder.read(f"trials/{best.trial_id}/config.json"))
    return float(config["terms"]["conr"]["omega"])


def read_omegas(found: SimulatedSweep, arm: str) -> dict[int, float]:
    """Return the omega of an arm's evaluation trials by seed."""
    rows = [row for row in found.read_trials(arm) if row.role == "evaluation"]
    configs = [json.loads(found.folder.read(f"trials/{r.trial_id}/config.json")) for r in rows]
    return {row.seed: config["terms"]["conr"]["omega"] for row, config in zip(rows, configs, strict=True)}


def test_a_selection_is_trained_with_every_seed(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = of_arm(found.sweep(), "conr")
    assert [(job.replicate, job.config.seed) for job in jobs] == [(None, 100)] * 4 + [(0, 3), (1, 4)]
    assert len({omega(job.config) for job in jobs[:4]}) == 4
    best = min(jobs[:4], key=lambda job: error_of(job.config))
    assert {omega(job.config) for job in jobs[4:]} == {omega(best.config)}
    assert found.sweep() == []


def test_the_largest_objective_is_selected_if_higher_is_better(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = of_arm(found.sweep(objective={"metric": "pearson"}), "conr")
    worst = max(jobs[:4], key=lambda job: error_of(job.config))
    assert {omega(job.config) for job in jobs[4:]} == {omega(worst.config)}


@pytest.mark.parametrize("moment", [1, 4, 8, 9, 11])
def test_a_driver_killed_at_any_moment_ends_with_the_same_trials(tmp_path: Path, moment: int) -> None:
    undisturbed, killed = SimulatedSweep(tmp_path / "undisturbed"), SimulatedSweep(tmp_path / "killed")
    undisturbed.sweep(concurrent=1)
    with pytest.raises(Killed):
        killed.sweep(concurrent=1, die_after=moment)
    assert killed.find_reuse().orphaned == frozenset()
    killed.sweep(concurrent=1)
    assert killed.read_trials() == undisturbed.read_trials()
    assert killed.folder.read(SELECTED) == undisturbed.folder.read(SELECTED)


def test_more_seeds_train_only_the_new_ones_of_the_selected_configuration(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    first = found.sweep()
    reuse = found.find_reuse(seeds=[3, 4, 5])
    assert (len(reuse.trial_ids), reuse.orphaned) == (len(first), frozenset())
    added = found.sweep(seeds=[3, 4, 5])
    assert sorted((job.arm, job.config.seed) for job in added) == [("conr", 5), ("vanilla", 5), ("wide", 5)]
    assert len(set(read_omegas(found, "conr").values())) == 1
    fewer = found.find_reuse(seeds=[3])
    assert len(fewer.orphaned) == 2 * 3


def test_a_longer_search_that_selects_another_configuration_replaces_the_trials_of_the_old_one(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**with_search(trials=1))
    old = {arm: set(read_omegas(found, arm).values()) for arm in ("conr", "wide")}
    # Not known before
    assert found.find_reuse(**with_search(trials=8)).orphaned == frozenset()
    found.sweep(**with_search(trials=8))
    for arm, before in old.items():
        selected = find_best_omega(found, arm)
        assert read_omegas(found, arm) == {3: selected, 4: selected}
        assert {selected} != before
    aside = found.folder.list_files("orphaned/trials")
    assert len(aside) == 2 * 2
    assert found.find_reuse(**with_search(trials=8)).orphaned == frozenset()


def test_a_driver_killed_between_selection_and_orphaning_mixes_no_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(**with_search(trials=1))

    def die(_: Storage, trial_ids: Collection[str]) -> None:
        if trial_ids:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("dirtune.tuning.folder.records.orphan_records", die)
        with pytest.raises(Killed):
            found.sweep(**with_search(trials=8))
    storage = found.folder
    chosen = read_study_runs(storage, read_study(storage), SELECTIONS["best_val"]).arms[1].chosen
    # What the tables see is no longer the old selection
    assert chosen.keys() <= set()
    assert len(found.find_reuse(**with_search(trials=8)).orphaned) == 2
    found.sweep(**with_search(trials=8))
    assert set(read_omegas(found, "conr").values()) == {find_best_omega(found, "conr")}


def test_tables_hold_the_confirmed_trials_alone_and_count_the_tried_ones(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep()
    info = read_study(found.folder)
    arms = {arm.arm: arm for arm in read_study_runs(found.folder, info, SELECTIONS["best_val"]).arms}
    assert {name: set(arm.chosen) for name, arm in arms.items()} == {name: {3, 4} for name in arms}
    assert {name: arm.searched for name, arm in arms.items()} == {"vanilla": 0, "conr": 4, "wide": 4}
    table = compare(tmp_path, TableRequest(studies=("tiny",)))
    row = next(row for row in table.parts[0].rows if row.arm == "conr")
    selected = find_best_omega(found, "conr")
    assert row.cells["all"].values == pytest.approx({seed: abs(selected - 4) + 0.01 * seed for seed in (3, 4)})
    text = render(table, "markdown")
    assert "Configurations tried per seed: vanilla 1; conr 4; wide 4." in text
    assert "Left out" not in text
    tried = [trial for trial in list_ended_trials(found.folder, info) if trial.arm == "conr"]
    assert {trial.trial_id for trial in tried} == {
        row.trial_id for row in found.read_trials("conr") if row.role == "search"
    }


def test_search_trials_are_in_the_tables_but_not_in_the_view_of_arms(tmp_path: Path) -> None:
    SimulatedSweep(tmp_path).sweep()
    arms = "select n from arms where arm = 'conr' and split = 'test' and region = 'all'"
    # Best_val and last
    assert query(arms, tmp_path)["n"].to_pylist() == [2, 2]
    trials = "select count(*) as n from trials where arm = 'conr' and role = 'search'"
    assert query(trials, tmp_path)["n"].to_pylist() == [4]


def test_search_trials_do_not_evaluate_an_arm_before_the_selection(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    with pytest.raises(Killed):
        found.sweep(die_after=6)
    info = read_study(found.folder)
    (_, conr, _) = read_study_runs(found.folder, info, SELECTIONS["best_val"]).arms
    assert (conr.chosen, conr.searched > 0) == ({}, True)
    assert [hole.seed for hole in conr.missing] == [3, 4]


def test_an_arm_without_a_complete_trial_selects_nothing_and_ends_the_sweep(tmp_path: Path) -> None:
    def wide_fails(config: TrialConfig) -> TrialOutcome:
        failed = config.model.projection_dim == 8 and omega(config) > 0
        status = "failed" if failed else "complete"
        return TrialOutcome(status=status, objective=None if failed else error_of(config))

    found = SimulatedSweep(tmp_path, wide_fails)
    jobs = found.sweep()
    assert {job.role for job in of_arm(jobs, "wide")} == {"search"}
    assert len(of_arm(jobs, "conr")) == 4 + 2
    queue = found.make_queue()
    assert queue.is_empty
    assert queue.skipped == 2


def test_arms_with_the_same_selected_configuration_share_its_trials(tmp_path: Path) -> None:
    space = {"terms.conr.omega": {"distribution": "choice", "values": [2.0, 4.0, 8.0]}}
    terms = {"terms": {"conr": {"omega": 2.0}}}
    arms = {"conr": terms, "wide": {**terms, "model": {"projection_dim": 8}}}
    changes = {"arms": arms, "space": space, **with_search(transfer="both")}
    found = SimulatedSweep(tmp_path)
    jobs = found.sweep(**changes)
    # Conr, and what wide and wide@transfer share
    assert sum(job.role == "evaluation" for job in jobs) == 2 + 2
    runs = read_study_runs(found.folder, read_study(found.folder), SELECTIONS["best_val"])
    assert {arm.arm: set(arm.chosen) for arm in runs.arms} == {"conr": {3, 4}, "wide": {3, 4}, "wide@transfer": {3, 4}}
    assert found.find_reuse(**changes).orphaned == frozenset()
    assert found.sweep(**changes) == []
    study = found.make_folder(**changes).study
    planned = sum(study.count_trials(arm) for arm in study.arms)
    assert found.make_queue(**changes).skipped == planned - len(found.read_trials()) == 2


def test_a_shared_trial_is_kept_when_its_recording_arm_selects_another(tmp_path: Path) -> None:
    def get_outcome(config: TrialConfig) -> TrialOutcome:
        best = 8.0 if config.model.projection_dim == 8 else 4.0
        return TrialOutcome(status="complete", objective=abs(omega(config) - best))

    space = {"terms.conr.omega": {"distribution": "choice", "values": [4.0, 8.0]}}
    terms = {"terms": {"conr": {"omega": 4.0}}}
    changes = {"arms": {"wide": {**terms, "model": {"projection_dim": 8}}, "conr": terms}, "space": space}

    def trials(count: int) -> dict[str, Any]:
        return with_search(trials=count, transfer="both", warm_start={"presets": True}) | changes

    found = SimulatedSweep(tmp_path, get_outcome)
    first = found.sweep(**trials(1))
    assert {job.arm for job in first if job.role == "evaluation"} == {"wide", "conr"}
    found.sweep(**trials(2))
    runs = read_study_runs(found.folder, read_study(found.folder), SELECTIONS["best_val"])
    assert [set(arm.chosen) for arm in runs.arms] == [{3, 4}] * 3
    assert len({arm.chosen[3].trial_id for arm in runs.arms}) == 3
    assert found.find_reuse(**trials(2)).orphaned == frozenset()
    assert found.sweep(**trials(2)) == []


def test_a_lost_trial_is_not_awaited_in_this_sweep(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    queue = found.make_queue(arms={"conr": STUDY["arms"]["conr"]})
    jobs = [queue.get_next() for _ in range(4)]
    for job in jobs[:3]:
        queue.tell(job, TrialOutcome(status="complete", objective=1.0))
    # The fourth decides with them
    assert (queue.get_next(), queue.is_empty) == (None, False)
    queue.mark_lost(jobs[3])
    assert queue.is_empty


def test_settings_of_a_changed_search_are_not_mixed_with_the_old(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep()
    changed = with_search(tuning_seed=101)
    assert len(found.find_reuse(**changed).orphaned) == 2 * (4 + 2)
    found.sweep(**changed)
    assert {row.seed for row in found.read_trials("conr")} == {101, 3, 4}


def test_a_search_continues_after_new_settings_were_added_to_the_schema(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    found.sweep(concurrent=1)
    everything = len(found.read_trials())
    plain = read_json_object(found.folder, "study.json")
    for config in plain["configs"].values():
        del config["data"]["fraction"]
    found.folder.write("study.json", json.dumps(plain).encode())
    reuse = found.find_reuse()
    assert (len(reuse.kept), reuse.orphaned) == (everything, frozenset())
