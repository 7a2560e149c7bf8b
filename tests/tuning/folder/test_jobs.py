"""Run with `pytest tests/tuning/folder/test_jobs.py`."""

from __future__ import annotations

from typing import Any

import pytest

from dirtune.nested import get_leaf
from dirtune.study.resolve import ArmSearchPlan, resolve
from dirtune.tuning.folder.jobs import JobMaker, select_settings
from tests.tuning.simulated_sweep import STUDY

OMEGA, BETA = "terms.conr.omega", "terms.conr.beta"
SPACE = {
    OMEGA: {"distribution": "uniform", "low": 0.5, "high": 9.0},
    BETA: {"distribution": "loguniform", "low": 0.01, "high": 10.0, "arms": ["conr"]},
}


def make_maker(**search: Any) -> JobMaker:
    raw = {**STUDY, "space": SPACE, "search": {**STUDY["search"], **search}}
    return JobMaker(study=resolve(raw, where="test"), fingerprint="f", code_version="v")


def get_search(maker: JobMaker, name: str) -> ArmSearchPlan:
    return next(search for search in maker.study.searches if search.name == name)


def test_search_jobs_have_the_tuning_seed_and_no_replicate() -> None:
    conr = make_maker().study.searches[0]
    job = make_maker().make_search_job(conr, {OMEGA: 2.5, BETA: 0.5})
    assert (job.arm, job.role, job.replicate, job.config.seed, job.code_version) == ("conr", "search", None, 100, "v")
    assert [get_leaf(job.config.to_plain(), path) for path in (OMEGA, BETA)] == [2.5, 0.5]
    assert job.trial_id == job.config.compute_trial_id("f")
    unconfirmed = make_maker(confirm=False, tuning_seed=None)
    plain = unconfirmed.make_search_job(unconfirmed.study.searches[0], {OMEGA: 2.5})
    assert (plain.role, plain.replicate, plain.config.seed) == ("evaluation", 0, 3)


def test_evaluation_jobs_have_the_seeds_of_the_fixed_arms() -> None:
    found = make_maker(transfer="both")
    jobs = found.make_evaluation_jobs(get_search(found, "conr"), {OMEGA: 2.5, BETA: 0.5})
    pairs = [(job.arm, job.replicate, job.config.seed) for job in jobs]
    assert pairs == [("conr", 0, 3), ("wide@transfer", 0, 3), ("conr", 1, 4), ("wide@transfer", 1, 4)]
    fixed = {(job.replicate, job.config.seed) for job in found.make_planned_jobs()}
    assert fixed == {(replicate, seed) for _, replicate, seed in pairs}
    assert [job.arm for job in found.make_evaluation_jobs(get_search(found, "wide"), {OMEGA: 2.5})] == ["wide", "wide"]


def test_a_transfer_variant_uses_the_shared_settings_and_keeps_its_own() -> None:
    found = make_maker(transfer="both")
    wide = next(arm for arm in found.study.arms if arm.name == "wide@transfer")
    assert select_settings(wide, {OMEGA: 2.5, BETA: 0.5}) == {OMEGA: 2.5}
    (_, job, *_) = found.make_evaluation_jobs(get_search(found, "conr"), {OMEGA: 2.5, BETA: 0.5})
    own = get_leaf(wide.config.to_plain(), BETA)
    assert get_leaf(job.config.to_plain(), BETA) == own != 0.5


@pytest.mark.parametrize("changes", [{}, {"splits": 2}, {"sequential": {"most_seeds": 4}}])
def test_ids_of_trials_are_listed_without_their_jobs(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    raw = {**STUDY, "space": {}, "search": {}, "arms": {"vanilla": {}, "conr": {"terms": {"conr": {}}}}, **changes}
    maker = JobMaker(study=resolve(raw, where="test"), fingerprint="f")
    arms = [arm.name for arm in maker.study.fixed_arms]
    jobs = maker.make_jobs(dict.fromkeys(arms, maker.study.possible_seeds))
    expected = {job.config.compute_trial_id("f"): job.arm for job in jobs}
    monkeypatch.setattr(JobMaker, "make_job", None)
    assert maker.list_possible_trial_arms() == expected
    assert len(expected) == 4 * (2 if changes else 1)
