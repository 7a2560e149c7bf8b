"""Run with `pytest tests/study/test_transfer.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dirtune.errors import InputError
from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.records.studies import read_study
from dirtune.study.resolve import ResolvedStudy, resolve
from tests.tuning.simulated_sweep import STUDY, SimulatedSweep, of_arm, omega

SPACE = {
    **STUDY["space"],
    "terms.conr.beta": {"distribution": "loguniform", "low": 0.01, "high": 10.0},
    "model.projection_dim": {"distribution": "int", "low": 2, "high": 64, "arms": ["wide"]},
}


def changed(transfer: str, **changes: Any) -> dict[str, Any]:
    return {"space": SPACE, "search": {**STUDY["search"], "transfer": transfer}, **changes}


def study(transfer: str, **changes: Any) -> ResolvedStudy:
    return resolve({**STUDY, **changed(transfer, **changes)}, where="test")


def test_both_sets_an_arm_with_the_settings_of_the_reference_beside_the_tuned_one() -> None:
    found = study("both")
    assert [arm.name for arm in found.arms] == ["vanilla", "conr", "wide", "wide@transfer"]
    assert [arm.name for arm in found.searched_arms] == ["conr", "wide"]
    transferred = found.arms[3]
    assert transferred.transferred_settings == ("terms.conr.omega", "terms.conr.beta")
    assert [found.count_trials(arm) for arm in found.arms] == [2, 4 + 2, 4 + 2, 2]
    assert found.to_plain()["transfers"] == {"wide@transfer": list(transferred.transferred_settings)}


def test_only_searches_the_reference_alone() -> None:
    found = study("only")
    assert [arm.name for arm in found.searched_arms] == ["conr"]
    assert [found.count_trials(arm) for arm in found.arms] == [2, 4 + 2, 2]


def test_an_arm_that_shares_no_knob_is_trained_as_it_stands() -> None:
    space = {**SPACE, "alpha": {"distribution": "uniform", "low": 0.5, "high": 2.0, "arms": ["vanilla"]}}
    found = study("only", space=space)
    assert [arm.name for arm in found.fixed_arms] == ["vanilla"]
    assert [arm.name for arm in study("both", space=space).arms] == ["vanilla", "conr", "wide", "wide@transfer"]


@pytest.mark.parametrize(("transfer", "arm"), [("both", "wide@transfer"), ("only", "wide")])
def test_a_transferred_arm_is_trained_with_the_selection_of_the_reference_on_all_seeds(
    tmp_path: Path, transfer: str, arm: str
) -> None:
    found = SimulatedSweep(tmp_path)
    jobs = found.sweep(**changed(transfer))
    selected = [job for job in of_arm(jobs, "conr") if job.replicate == 0]
    taken = of_arm(jobs, arm)
    assert [(job.replicate, job.config.seed) for job in taken] == [(0, 3), (1, 4)]
    assert {omega(job.config) for job in taken} == {omega(selected[0].config)}
    # Its own
    assert {job.config.model.projection_dim for job in taken} == {8}
    assert found.sweep(**changed(transfer)) == []
    info = read_study(found.folder)
    arms = {each.arm: each for each in read_study_runs(found.folder, info, SELECTIONS["best_val"]).arms}
    assert set(arms[arm].chosen) == {3, 4}


def test_a_longer_search_of_the_reference_moves_the_transferred_arms_too(tmp_path: Path) -> None:
    found = SimulatedSweep(tmp_path)
    few, many = changed("only"), changed("only")
    few["search"] = {**few["search"], "trials": 1}
    many["search"] = {**many["search"], "trials": 8}
    before = {omega(job.config) for job in of_arm(found.sweep(**few), "wide")}
    assert found.find_reuse(**many).orphaned == frozenset()
    after = {omega(job.config) for job in of_arm(found.sweep(**many), "wide")}
    assert len(after) == 1
    assert after != before
    assert len(found.read_trials("wide")) == 2
    assert found.find_reuse(**many).orphaned == frozenset()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reference": "vanilla"}, "search.transfer: needs a reference arm with tuned settings"),
        (
            {"search": {"transfer": "both"}},
            "search.transfer: needs `confirm: true`, which trains the configuration selected in the reference arm",
        ),
        (
            {"arms": {**STUDY["arms"], "wide@transfer": {"alpha": 2.0}}},
            "arms.wide@transfer: is the name of an arm that `search.transfer` adds",
        ),
    ],
)
def test_a_transfer_that_cannot_be_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        study("both", **changes)
    assert any(message in str(fault) for fault in caught.value.faults)
