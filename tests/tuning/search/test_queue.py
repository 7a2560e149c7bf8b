"""Run with `pytest tests/tuning/search/test_queue.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome
from dirtune.tuning.search.queue import TrialQueue
from tests.tuning.plan.test_checks import MANIFEST
from tests.tuning.sweeps import load_search

COMPLETE = TrialOutcome(status="complete", objective=1.0)


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


def make_queue(
    root: Path, study: ResolvedStudy, recorded: Sequence[TrialJob] = (), outcome: TrialOutcome = COMPLETE
) -> TrialQueue:
    folder = StudyFolder(Storage.open(root), study, MANIFEST, "")
    trials = [
        RecordedTrial(trial_id=job.trial_id, arm=job.arm, role=job.role, seed=job.config.seed, outcome=outcome)
        for job in recorded
    ]
    with folder.open_journal() as journal:
        return TrialQueue(folder, journal, trials, code_version="v")


def drain(queue: TrialQueue) -> list[TrialJob]:
    jobs = []
    while (job := queue.get_next()) is not None:
        jobs.append(job)
    return jobs


def test_seeds_of_an_arm_are_paired_with_the_same_seeds_of_the_others() -> None:
    jobs = JobMaker(study=study(), fingerprint="f").make_planned_jobs()
    assert [(job.arm, job.replicate, job.config.seed) for job in jobs] == [
        ("vanilla", 0, 3),
        ("wide", 0, 3),
        ("vanilla", 1, 4),
        ("wide", 1, 4),
    ]


def test_the_queue_has_all_fixed_trials_and_the_budget_of_every_search(tmp_path: Path) -> None:
    found = make_queue(tmp_path, study())
    assert not found.is_empty
    jobs = drain(found)
    assert found.is_empty
    assert len({job.trial_id for job in jobs}) == len(jobs) == 4 + 4
    searched = [job for job in jobs if job.arm == "conr"]
    assert {job.config.seed for job in searched} == {3}
    assert all(0.5 <= get_leaf(job.config.to_plain(), "terms.conr.omega") <= 9 for job in searched)


def test_recorded_trials_are_not_run_again_and_started_ones_come_first(tmp_path: Path) -> None:
    resolved = study()
    first = make_queue(tmp_path, resolved)
    # Four fixed, two asked
    jobs = [first.get_next() for _ in range(6)]
    recorded = [*jobs[:3], jobs[4]]
    second = make_queue(tmp_path, resolved, recorded)
    left = drain(second)
    # Asked by the killed driver, which did not tell the outcome
    assert left[0].trial_id == jobs[5].trial_id
    assert left[0].config == jobs[5].config
    assert left[1].trial_id == jobs[3].trial_id
    assert len(left) == 2 + 2
    assert {job.trial_id for job in left}.isdisjoint(job.trial_id for job in recorded)


def test_optuna_gets_the_outcomes_of_the_trials(tmp_path: Path) -> None:
    found = make_queue(tmp_path, study(arms={"vanilla": {}, "conr": {"terms": {"conr": {}}}}))
    jobs = [job for job in drain(found) if job.arm == "conr"]
    # A trial that resumes from its checkpoint repeats epochs
    for _ in range(2):
        found.report(jobs[1], 1, 5.0)
    outcomes = [
        TrialOutcome(status="complete", objective=2.0),
        TrialOutcome(status="pruned", objective=5.0),
        TrialOutcome(status="failed", objective=None),
        TrialOutcome(status="complete", objective=None),
    ]
    for job, outcome in zip(jobs, outcomes, strict=True):
        found.tell(job, outcome)
    trials = load_search(tmp_path, "conr").trials
    assert [trial.state for trial in trials] == [
        TrialState.COMPLETE,
        TrialState.PRUNED,
        TrialState.FAIL,
        TrialState.FAIL,
    ]
    assert trials[0].value == 2.0
    assert trials[1].intermediate_values == {1: 5.0}


def test_every_arm_has_its_own_optuna_study_and_the_same_budget(tmp_path: Path) -> None:
    space = {"model.projection_dim": {"distribution": "int", "low": 2, "high": 99}}
    arms = {"vanilla": {}, "a": {"model": {"projection_dim": 8}}, "b": {"model": {"projection_dim": 9}, "alpha": 2.0}}
    jobs = drain(make_queue(tmp_path, study(arms=arms, space=space)))
    asked = [job.arm for job in jobs if job.arm != "vanilla"]
    # In turn
    assert asked == ["a", "b"] * 4
    assert [len(load_search(tmp_path, name).trials) for name in ("a", "b")] == [4, 4]


def test_a_finite_space_is_searched_without_repetition(tmp_path: Path) -> None:
    space = {"model.projection_dim": {"distribution": "choice", "values": [8, 16, 32]}}
    arms = {"vanilla": {}, "a": {"model": {"projection_dim": 8}}}
    jobs = [job for job in drain(make_queue(tmp_path, study(arms=arms, space=space))) if job.arm == "a"]
    assert sorted(job.config.model.projection_dim for job in jobs) == [8, 16, 32]


def test_the_same_sampler_seed_asks_the_same_first_configurations(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    one, two = (drain(make_queue(tmp_path / name, study()))[4].trial_id for name in "xy")
    other = drain(make_queue(tmp_path, study(search={"trials": 4, "seed": 1})))[4].trial_id
    assert one == two != other


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_samplers_are_made_by_name(tmp_path: Path, sampler: str) -> None:
    assert len(drain(make_queue(tmp_path, study(search={"trials": 2, "sampler": sampler})))) == 4 + 2


def test_a_planned_trial_that_a_selection_orphaned_is_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = study(search={"trials": 1, "confirm": True, "tuning_seed": 9})
    first = make_queue(tmp_path, resolved)
    jobs = [first.get_next() for _ in range(5)]
    for job in jobs:
        first.tell(job, COMPLETE)
    evaluation = drain(first)
    assert [(job.arm, job.config.seed) for job in evaluation] == [("conr", 3), ("conr", 4)]
    recorded = [*jobs, *evaluation]
    assert drain(make_queue(tmp_path, resolved, recorded)) == []
    orphaned = {evaluation[1].trial_id}
    monkeypatch.setattr("dirtune.tuning.folder.confirmation.record_selection", lambda *_: orphaned)
    left = drain(make_queue(tmp_path, resolved, recorded))
    assert [job.trial_id for job in left] == [evaluation[1].trial_id]
