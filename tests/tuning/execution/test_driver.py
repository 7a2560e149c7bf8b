"""The driver without Ray's processes: `pytest tests/tuning/execution/test_driver.py`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from dirtune.errors import OutOfMemory
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_statuses, read_table
from dirtune.study.resolve import load_study
from dirtune.training.trial import TrialJob, remove_temporary_files
from dirtune.tuning.execution.driver import CRASHES_TO_STOP, Driver
from dirtune.tuning.execution.failures import CodeError
from dirtune.tuning.execution.worker import StepResult
from dirtune.tuning.folder import stop_request
from dirtune.tuning.folder.layout import STOP_REQUEST
from dirtune.tuning.folder.reconcile import StudyFolder
from dirtune.tuning.folder.stop_request import StopRequest
from dirtune.tuning.interface import View
from dirtune.tuning.search.queue import TrialQueue
from tests.tuning.plan.test_checks import MANIFEST


@pytest.fixture
def driver(tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Driver:
    """Driver of six trials, two at once, that checks for a stop request at every event."""
    monkeypatch.setattr(stop_request, "CHECK_SECONDS", 0.0)
    storage = Storage.open(tmp_path / "tiny")
    folder = StudyFolder(storage, load_study(study_file(seeds=[0, 1, 2])), MANIFEST, "")
    queue = TrialQueue(folder, f"sqlite:///{tmp_path}/optuna.db", [])
    return Driver(queue, folder, View(), StopRequest(storage), 2)


def started(driver: Driver) -> TrialJob:
    job = driver.start_trial()
    assert job is not None
    driver.on_trial_started(job)
    return job


def result(job: TrialJob, **fields: Any) -> StepResult:
    return StepResult(trial_id=job.trial_id, **fields)


def complete(job: TrialJob) -> StepResult:
    return result(job, status="complete", best_objective=1.0)


def test_trials_are_handed_out_as_slots_are_free(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    assert first.trial_id != second.trial_id
    assert driver.start_trial() is None
    driver.on_trial_ended(first, complete(first))
    started(driver)
    assert driver.start_trial() is None
    driver.on_trial_ended(second, result(second, status="failed"))
    for _ in range(3):
        job = started(driver)
        driver.on_trial_ended(job, complete(job))
    assert driver.is_finished
    assert driver.start_trial() is None
    assert driver.counts == {"complete": 4, "failed": 1}


def test_asked_to_end_it_hands_out_nothing_and_waits_for_those_who_train(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    driver.storage.write(STOP_REQUEST, b"{}")
    assert driver.start_trial() is None
    assert (driver.is_finished, driver.is_stopped) == (True, False)
    driver.on_trial_ended(first, result(first, handed_back=True))
    assert not driver.is_stopped
    # Another is not waited for
    driver.on_worker_lost(second, OSError("the worker died"))
    assert driver.is_stopped
    assert (driver.counts, read_statuses(driver.storage)) == ({}, {})


def test_a_trial_that_is_handed_back_tells_that_the_sweep_is_asked_to_end(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(driver.view, "report_stop", told.append)
    job = started(driver)
    monkeypatch.setattr(stop_request, "CHECK_SECONDS", 3600.0)
    driver.check_stop()
    driver.storage.write(STOP_REQUEST, b"{}")
    # Not yet again
    driver.check_stop()
    assert driver.stop.reason is None
    driver.on_trial_ended(job, result(job, handed_back=True))
    assert (driver.stop.reason, told, driver.is_stopped) == ("`dirtune stop`", ["`dirtune stop`"], True)


def test_a_trial_that_ends_while_others_are_asked_to_is_recorded(driver: Driver) -> None:
    job = started(driver)
    driver.storage.write(STOP_REQUEST, b"{}")
    driver.check_stop()
    driver.on_trial_ended(job, complete(job))
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
    driver.storage.write(f"trials/{job.trial_id}/checkpoint/state.pt", b"state")
    driver.on_trial_failed(job, error)
    (row,) = read_table(driver.storage, "trials").to_pylist()
    assert (row["trial_id"], row["status"], row["error_class"]) == (job.trial_id, "failed", found)
    assert (row["arm"], row["seed"], row["epochs_run"]) == (job.arm, job.config.seed, 0)
    assert driver.storage.exists(f"trials/{job.trial_id}/checkpoint/state.pt") is keeps
    assert driver.to_retry == ({job.trial_id} if retried else set())
    assert set(driver.crashed) == {job.trial_id}
    assert driver.counts == {"failed": 1}


def test_the_record_of_a_trial_without_memory_names_its_batch_and_the_next_accumulation(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    said = "out of memory at epoch 1, step 1: a batch of 512 rows x 2 views, 512 rows at a time"
    driver.on_trial_ended(first, result(first, failure=OutOfMemory(said, 1)))
    killed = RayActorError(None, "Task was killed due to the node running low on memory.")
    driver.on_trial_failed(second, killed)
    rows = {row["trial_id"]: row for row in read_table(driver.storage, "trials").to_pylist()}
    assert {row["error_class"] for row in rows.values()} == {"out_of_memory"}
    assert (rows[first.trial_id]["error"], rows[first.trial_id]["error_epoch"]) == (said, 1)
    assert rows[second.trial_id]["error"].endswith("; try recipe.accumulation: 2, which has 256 rows at a time")
    assert driver.counts == {"failed": 2}
    assert driver.to_retry == set()


def test_what_a_trial_raised_is_kept_as_text_and_gone_when_it_is_complete(driver: Driver) -> None:
    def broken() -> None:
        raise KeyError("no such column")

    job = started(driver)
    try:
        broken()
    except KeyError as error:
        driver.on_trial_ended(job, result(job, failure=CodeError.from_exception(error)))
    assert driver.crashed == {job.trial_id: "KeyError: 'no such column'"}
    (row,) = read_table(driver.storage, "trials").to_pylist()
    assert (row["error_class"], row["error"]) == ("code", "KeyError: 'no such column'")
    (file,) = driver.tracebacks
    assert "in broken" in Path(file).read_text()
    remove_temporary_files(driver.storage, job.trial_id)
    assert not Path(file).exists()


def test_a_record_that_cannot_be_written_ends_the_sweep_and_raises_nothing(driver: Driver) -> None:
    first, second = started(driver), started(driver)
    Path(driver.storage.path()).mkdir(parents=True, exist_ok=True)
    Path(driver.storage.path("results")).write_bytes(b"no folder")
    driver.on_trial_failed(first, ActorDiedError())
    assert isinstance(driver.storage_failure, NotADirectoryError)
    assert driver.is_finished
    # Also what trains now could not be recorded
    assert driver.is_stopped
    driver.on_trial_ended(second, complete(second))
    assert driver.start_trial() is None
    driver.storage.remove("results")
    assert read_statuses(driver.storage) == {}


def test_crashes_one_after_another_end_the_sweep_and_an_epoch_between_them_does_not(driver: Driver) -> None:
    for _ in range(CRASHES_TO_STOP - 1):
        driver.on_trial_failed(started(driver), ActorDiedError())
    job = started(driver)
    driver.on_epoch_ended(job, result(job, epoch=1, objective=2.0))
    driver.on_trial_failed(job, ActorDiedError())
    for _ in range(CRASHES_TO_STOP - 1):
        assert not driver.is_finished
        driver.on_trial_failed(started(driver), ActorDiedError())
    assert driver.is_finished
    assert not driver.queue.is_empty
