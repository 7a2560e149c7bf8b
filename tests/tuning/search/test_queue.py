"""Run with `pytest tests/tuning/search/test_queue.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from dirtune.nested import get_leaf
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.search.queue import Agenda, Ending

COMPLETE = Ending(status="complete", objective=1.0)


def study(**changes: Any) -> ResolvedStudy:
    raw = {
        "name": "tiny",
        "question": "?",
        "reference": "vanilla",
        "seeds": [3, 4],
        "base": {"data": {"name": "digits"}, "model": {"encoder": {"name": "cnn"}}},
        "arms": {"vanilla": {}, "wide": {"model": {"projection_dim": 8}}, "conr": {"terms": {"conr": {}}}},
        "search": {"trials": 4},
        "space": {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}},
    }
    return resolve({**raw, **changes}, where="test")


def agenda(folder: Path, resolved: ResolvedStudy, recorded: dict[str, Ending] | None = None) -> Agenda:
    storage = f"sqlite:///{folder}/optuna.db"
    return Agenda(resolved, storage=storage, fingerprint="f", code_version="v", recorded=recorded or {})


def drain(found: Agenda) -> list[Any]:
    jobs = []
    while (job := found.next()) is not None:
        jobs.append(job)
    return jobs


def test_seeds_of_an_arm_are_paired_with_the_same_seeds_of_the_others() -> None:
    jobs = JobMaker(study=study(), fingerprint="f").planned()
    assert [(job.arm, job.replicate, job.config.seed) for job in jobs] == [
        ("vanilla", 0, 3),
        ("wide", 0, 3),
        ("vanilla", 1, 4),
        ("wide", 1, 4),
    ]


def test_the_agenda_runs_fixed_arms_and_spends_the_budget_of_every_search(tmp_path: Path) -> None:
    found = agenda(tmp_path, study())
    assert not found.is_empty
    jobs = drain(found)
    assert found.is_empty
    assert len({job.trial_id for job in jobs}) == len(jobs) == 4 + 4
    searched = [job for job in jobs if job.arm == "conr"]
    assert {job.config.seed for job in searched} == {3}
    assert all(0.5 <= get_leaf(job.config.to_plain(), "terms.conr.omega") <= 9 for job in searched)


def test_recorded_trials_are_not_run_again_and_started_ones_come_first(tmp_path: Path) -> None:
    resolved = study()
    first = agenda(tmp_path, resolved)
    # Four fixed, two asked
    jobs = [first.next() for _ in range(6)]
    recorded = {job.trial_id: COMPLETE for job in [*jobs[:3], jobs[4]]}
    second = agenda(tmp_path, resolved, recorded)
    left = drain(second)
    # Asked by the dead driver, never told
    assert left[0].trial_id == jobs[5].trial_id
    assert left[0].config == jobs[5].config
    assert left[1].trial_id == jobs[3].trial_id
    assert len(left) == 2 + 2
    assert {job.trial_id for job in left}.isdisjoint(recorded)


def test_optuna_is_told_what_the_trials_were(tmp_path: Path) -> None:
    found = agenda(tmp_path, study(arms={"vanilla": {}, "conr": {"terms": {"conr": {}}}}))
    jobs = [job for job in drain(found) if job.arm == "conr"]
    # A trial that goes on from its checkpoint says again what it had said
    for _ in range(2):
        found.report(jobs[1], 1, 5.0)
    endings = [
        Ending(status="complete", objective=2.0),
        Ending(status="pruned", objective=5.0),
        Ending(status="failed", objective=None),
        Ending(status="complete", objective=None),
    ]
    for job, ending in zip(jobs, endings, strict=True):
        found.tell(job, ending)
    trials = optuna.load_study(study_name="tiny/conr", storage=f"sqlite:///{tmp_path}/optuna.db").trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert trials[0].value == 2.0
    assert trials[1].intermediate_values == {1: 5.0}


def test_every_arm_has_a_study_of_its_own_and_the_same_budget(tmp_path: Path) -> None:
    space = {"model.projection_dim": {"distribution": "int", "low": 2, "high": 99}}
    arms = {"vanilla": {}, "a": {"model": {"projection_dim": 8}}, "b": {"model": {"projection_dim": 9}, "alpha": 2.0}}
    jobs = drain(agenda(tmp_path, study(arms=arms, space=space)))
    asked = [job.arm for job in jobs if job.arm != "vanilla"]
    # In turn
    assert asked == ["a", "b"] * 4
    names = optuna.get_all_study_names(f"sqlite:///{tmp_path}/optuna.db")
    assert sorted(names) == ["tiny/a", "tiny/b"]


def test_a_finite_space_is_searched_without_repetition(tmp_path: Path) -> None:
    space = {"model.projection_dim": {"distribution": "choice", "values": [8, 16, 32]}}
    arms = {"vanilla": {}, "a": {"model": {"projection_dim": 8}}}
    jobs = [job for job in drain(agenda(tmp_path, study(arms=arms, space=space))) if job.arm == "a"]
    assert sorted(job.config.model.projection_dim for job in jobs) == [8, 16, 32]


def test_the_same_seed_of_the_sampler_asks_the_same_first_configurations(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    one, two = (drain(agenda(tmp_path / name, study()))[4].trial_id for name in "xy")
    other = drain(agenda(tmp_path, study(search={"trials": 4, "seed": 1})))[4].trial_id
    assert one == two != other


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_are_built_by_name(tmp_path: Path, sampler: str) -> None:
    assert len(drain(agenda(tmp_path, study(search={"trials": 2, "sampler": sampler})))) == 4 + 2


def test_what_a_selection_has_set_aside_is_run_again_where_it_is_planned(tmp_path: Path) -> None:
    resolved = study(search={"trials": 1, "confirm": True, "tuning_seed": 9})
    first = agenda(tmp_path, resolved)
    jobs = [first.next() for _ in range(5)]
    for job in jobs:
        first.tell(job, COMPLETE)
    confirming = drain(first)
    assert [(job.arm, job.config.seed) for job in confirming] == [("conr", 3), ("conr", 4)]
    options = {
        "storage": f"sqlite:///{tmp_path}/optuna.db",
        "fingerprint": "f",
        "code_version": "v",
        "recorded": {job.trial_id: COMPLETE for job in [*jobs, *confirming]},
    }
    assert drain(Agenda(resolved, **options)) == []
    aside = {confirming[1].trial_id}
    left = drain(Agenda(resolved, **options, on_selected=lambda *_: aside))
    assert [job.trial_id for job in left] == [confirming[1].trial_id]
