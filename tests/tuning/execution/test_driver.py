"""The driver without Ray's processes: `pytest tests/tuning/execution/test_driver.py`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_table, recorded
from dirtune.study.resolve import Resources, load_study
from dirtune.training.trial import TrialJob, tidy
from dirtune.tuning.execution.driver import CRASHES_TO_STOP, Driver, Silent
from dirtune.tuning.execution.failures import CodeError
from dirtune.tuning.execution.fusing import SAFE_SHARE
from dirtune.tuning.execution.scheduler import EPOCH, OBJECTIVE
from dirtune.tuning.execution.trainable import FAILURE, HANDED_BACK
from dirtune.tuning.folder import stop_request as stop
from dirtune.tuning.folder.stop_request import STOP, StopWatch
from dirtune.tuning.search.queue import Agenda


@pytest.fixture
def driver(tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Of six trials, two at a time, that always looks whether it is asked to end."""
    monkeypatch.setattr(stop, "LOOK_SECONDS", 0.0)
    study, folder = load_study(study_file(seeds=[0, 1, 2])), Storage.at(tmp_path / "tiny")
    agenda = Agenda(study, storage=f"sqlite:///{tmp_path}/optuna.db", fingerprint="f", code_version="v", recorded={})
    return Driver(agenda, folder, Silent(), 2, "f", StopWatch(folder))


def started(driver: Driver) -> TrialJob:
    (job,) = driver.start()
    driver.training(job)
    return job


def test_trials_are_handed_out_as_slots_are_free(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    assert first.trial_id != second.trial_id
    assert driver.start() == ()
    driver.ended(first, {"status": "complete", "best_objective": 1.0})
    started(driver)
    assert driver.start() == ()
    driver.ended(second, {"status": "failed"})
    for _ in range(3):
        driver.ended(started(driver), {"status": "complete", "best_objective": 1.0})
    assert driver.is_finished
    assert driver.start() == ()
    assert driver.counts == {"complete": 4, "failed": 1}


def test_several_of_one_seed_go_to_one_worker_and_all_workers_get_some(
    tmp_path: Path, study_file: Callable[..., str]
) -> None:
    arms = {"vanilla": {}, **{f"lr_{n}": {"recipe": {"learning_rate": n / 100}} for n in (1, 2, 3)}}
    study, folder = load_study(study_file(arms=arms)), Storage.at(tmp_path / "tiny")
    agenda = Agenda(study, storage=f"sqlite:///{tmp_path}/optuna.db", fingerprint="f", code_version="v", recorded={})
    driver = Driver(agenda, folder, Silent(), 2, "f", StopWatch(folder), Resources(fuse=3))
    bundles = [driver.start(), driver.start()]
    # The last of the first seed goes alone
    assert [len(bundle) for bundle in bundles] == [3, 1]
    assert driver.start() == ()
    for job in bundles[0][:2]:
        driver.ended(job, {"status": "complete"})
    # The worker has one left
    assert driver.start() == ()
    driver.ended(bundles[0][2], {"status": "complete"})
    bundles.append(driver.start())
    assert [job.config.seed for job in bundles[2]] == [1, 1, 1]
    assert [job.arm for bundle in bundles for job in bundle][:4] == list(arms)
    driver.ended(bundles[1][0], {"status": "complete"})
    assert [job.config.seed for job in driver.start()] == [1]
    assert driver.is_finished


def test_left_open_how_many_go_to_one_worker_it_is_what_the_first_shows_to_fit(
    tmp_path: Path, study_file: Callable[..., str]
) -> None:
    arms = {"vanilla": {}, **{f"lr_{n}": {"recipe": {"learning_rate": n / 100}} for n in range(1, 5)}}
    study, folder = load_study(study_file(arms=arms, seeds=[0])), Storage.at(tmp_path / "tiny")
    agenda = Agenda(study, storage=f"sqlite:///{tmp_path}/optuna.db", fingerprint="f", code_version="v", recorded={})
    driver = Driver(agenda, folder, Silent(), 1, "f", StopWatch(folder), Resources(fuse="auto"))
    (first,) = driver.start()
    driver.fusing.learn(1, SAFE_SHARE / 3)
    driver.ended(first, {"status": "complete"})
    assert len(driver.start()) == 3


def test_trials_of_a_search_go_alone(tmp_path: Path, study_file: Callable[..., str]) -> None:
    space = {"terms.conr.beta": {"distribution": "loguniform", "low": 1e-2, "high": 1e2}}
    study, folder = (load_study(study_file(space=space, search={"trials": 2})), Storage.at(tmp_path / "tiny"))
    agenda = Agenda(study, storage=f"sqlite:///{tmp_path}/optuna.db", fingerprint="f", code_version="v", recorded={})
    driver = Driver(agenda, folder, Silent(), 4, "f", StopWatch(folder), Resources(fuse=4))
    bundles = [driver.start() for _ in range(4)]
    assert [[job.arm for job in bundle] for bundle in bundles] == [["vanilla"], ["vanilla"], ["conr"], ["conr"]]


def test_asked_to_end_it_hands_out_nothing_and_waits_for_those_who_train(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    driver.folder.write(STOP, b"{}")
    assert driver.start() == ()
    assert (driver.is_finished, driver.is_stopped) == (True, False)
    driver.ended(first, {HANDED_BACK: True})
    assert not driver.is_stopped
    # Another is not waited for
    driver.recovering(second, OSError("the worker died"))
    assert driver.is_stopped
    assert (driver.counts, recorded(driver.folder)) == ({}, {})


def test_a_trial_that_is_handed_back_tells_that_the_sweep_is_asked_to_end(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(driver.view, "stopping", told.append)
    jobs = [started(driver)]
    monkeypatch.setattr(stop, "LOOK_SECONDS", 3600.0)
    driver.look()
    driver.folder.write(STOP, b"{}")
    # Not yet again
    driver.look()
    assert driver.watch.reason is None
    driver.ended(jobs[0], {HANDED_BACK: True})
    assert (driver.watch.reason, told, driver.is_stopped) == ("`dirtune stop`", ["`dirtune stop`"], True)


def test_a_trial_that_ends_while_others_are_asked_to_is_recorded(driver: Driver) -> None:
    job = started(driver)
    driver.folder.write(STOP, b"{}")
    driver.look()
    driver.ended(job, {HANDED_BACK: False, "status": "complete", "best_objective": 1.0})
    assert driver.is_stopped
    assert driver.counts == {"complete": 1}


@pytest.mark.parametrize(
    ("error", "found", "keeps", "retried"),
    [
        (ActorDiedError(), "infrastructure", True, True),
        (RayTaskError("f", "Traceback", MemoryError()), "out_of_memory", True, False),
        (RayTaskError("f", "Traceback\nValueError: odd", ValueError("odd")), "code", False, False),
    ],
)
def test_a_crash_is_recorded_with_its_class_which_decides_what_is_kept(
    driver: Driver, error: Exception, found: str, keeps: bool, retried: bool
) -> None:
    job = started(driver)
    driver.folder.write(f"trials/{job.trial_id}/checkpoint/state.pt", b"state")
    driver.crash(job, error)
    (row,) = read_table(driver.folder, "trials").to_pylist()
    assert (row["trial_id"], row["status"], row["error_class"]) == (job.trial_id, "failed", found)
    assert (row["arm"], row["seed"], row["epochs_run"]) == (job.arm, job.config.seed, 0)
    assert driver.folder.exists(f"trials/{job.trial_id}/checkpoint/state.pt") is keeps
    assert driver.to_retry == ({job.trial_id} if retried else set())
    assert set(driver.crashed) == {job.trial_id}
    assert driver.counts == {"failed": 1}


def without_memory(job: TrialJob) -> OutOfMemory:
    rows = job.as_run.recipe.micro_batch
    return OutOfMemory(f"out of memory at epoch 1, step 1: {rows} rows at a time", 1)


def test_a_trial_that_runs_out_of_memory_starts_again_at_half_until_the_limit(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(driver.view, "halved", lambda job, reason: told.append(reason))
    driver.resources = Resources(memory_retries=2)
    other, planned = started(driver), started(driver)
    job, rows = planned, []
    for _ in range(2):
        driver.ended(job, {FAILURE: without_memory(job)})
        assert (driver.counts, recorded(driver.folder)) == ({}, {})
        # Before what has not been started
        job = started(driver)
        rows.append(job.as_run.recipe.micro_batch)
        assert job.trial_id == planned.trial_id
    assert rows == [256, 128]
    assert [text.split(": ")[1] for text in told] == ["512 rows at a time", "256 rows at a time"]
    driver.ended(job, {FAILURE: without_memory(job)})
    (row,) = read_table(driver.folder, "trials").to_pylist()
    assert (row["trial_id"], row["error_class"]) == (planned.trial_id, "out_of_memory")
    assert (row["error"], row["error_epoch"]) == (str(without_memory(job)), 1)
    assert (row["accumulation_used"], row["config.recipe.accumulation"]) == (4, 1)
    assert driver.crashed == {planned.trial_id: str(without_memory(job))}
    assert driver.halved == {planned.trial_id}
    driver.ended(other, {"status": "complete", "best_objective": 1.0})
    assert driver.counts == {"failed": 1, "complete": 1}


def test_a_sweep_whose_last_trials_may_start_again_is_not_finished(driver: Driver) -> None:
    driver.resources = Resources(memory_retries=1)
    for _ in range(5):
        driver.ended(started(driver), {"status": "complete", "best_objective": 1.0})
    last = started(driver)
    assert driver.agenda.is_empty
    assert not driver.is_finished
    driver.ended(last, {FAILURE: without_memory(last)})
    again = started(driver)
    assert again.accumulation == 2
    driver.ended(again, {"status": "complete", "best_objective": 1.0})
    assert driver.is_finished


def test_a_later_driver_starts_a_halved_trial_where_it_had_come_to(driver: Driver) -> None:
    driver.resources = Resources(memory_retries=3)
    job = started(driver)
    driver.ended(job, {FAILURE: without_memory(job)})
    later = Driver(driver.agenda, driver.folder, Silent(), 2, "f", driver.watch)
    assert started(later) == replace(job, accumulation=2)


def test_a_worker_that_its_node_has_killed_for_memory_is_halved_too(driver: Driver) -> None:
    driver.resources = Resources(memory_retries=1)
    job = started(driver)
    driver.crash(job, RayActorError(None, "Task was killed due to the node running low on memory."))
    assert driver.counts == {}
    assert started(driver).accumulation == 2


def test_what_a_trial_raised_is_kept_as_text_and_gone_when_it_is_complete(driver: Driver) -> None:
    def broken() -> None:
        raise KeyError("no such column")

    job = started(driver)
    try:
        broken()
    except KeyError as error:
        driver.ended(job, {FAILURE: CodeError.of(error)})
    assert driver.crashed == {job.trial_id: "KeyError: 'no such column'"}
    (row,) = read_table(driver.folder, "trials").to_pylist()
    assert (row["error_class"], row["error"]) == ("code", "KeyError: 'no such column'")
    (file,) = driver.tracebacks
    assert "in broken" in Path(file).read_text()
    tidy(driver.folder, job.trial_id)
    assert not Path(file).exists()


def test_a_record_that_cannot_be_written_ends_the_sweep_and_raises_nothing(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    Path(driver.folder.path()).mkdir(parents=True, exist_ok=True)
    Path(driver.folder.path("results")).write_bytes(b"no folder")
    driver.crash(first, ActorDiedError())
    assert isinstance(driver.outage, NotADirectoryError)
    assert driver.is_finished
    # Also what trains now could not be recorded
    assert driver.is_stopped
    driver.ended(second, {"status": "complete", "best_objective": 1.0})
    assert not driver.start()
    driver.folder.remove("results")
    assert recorded(driver.folder) == {}


def test_crashes_one_after_another_end_the_sweep_and_an_epoch_between_them_does_not(driver: Driver) -> None:
    for _ in range(CRASHES_TO_STOP - 1):
        driver.crash(started(driver), ActorDiedError())
    job = started(driver)
    driver.epoch(job, {EPOCH: 1, OBJECTIVE: 2.0})
    driver.crash(job, ActorDiedError())
    for _ in range(CRASHES_TO_STOP - 1):
        assert not driver.is_finished
        driver.crash(started(driver), ActorDiedError())
    assert driver.is_finished
    assert not driver.agenda.is_empty
