"""Driver without Ray processes: `pytest tests/tuning/execution/test_driver.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage
from ray.exceptions import ActorDiedError, RayActorError, RayTaskError

from dirtune.errors import InputError, OutOfMemory
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_statuses, read_table
from dirtune.study.resolve import load_study
from dirtune.training.trial import TrialJob, remove_temporary_files
from dirtune.tuning.execution.device_faults import FAULTS_TO_SET_ASIDE, DeviceFault, GpuPlace
from dirtune.tuning.execution.driver import CRASHES_TO_STOP, Driver
from dirtune.tuning.execution.failures import CodeError
from dirtune.tuning.execution.storage_failure import raise_storage_failure
from dirtune.tuning.execution.worker import StepResult
from dirtune.tuning.folder import stop_request
from dirtune.tuning.folder.layout import LOCK, STOP_REQUEST
from dirtune.tuning.folder.lock import Lock
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
    queue = TrialQueue(folder, InMemoryStorage(), [])
    return Driver(queue, folder, View(), StopRequest(storage), 2, lambda: None)


def start_trial(driver: Driver) -> TrialJob:
    job = driver.start_trial()
    assert job is not None
    driver.on_trial_started(job)
    return job


def make_result(job: TrialJob, **fields: Any) -> StepResult:
    return StepResult(trial_id=job.trial_id, **fields)


def make_complete_result(job: TrialJob) -> StepResult:
    return make_result(job, status="complete", best_objective=1.0)


def test_a_trial_starts_whenever_a_slot_is_free(driver: Driver) -> None:
    first, second = start_trial(driver), start_trial(driver)
    assert first.trial_id != second.trial_id
    assert driver.start_trial() is None
    driver.on_trial_ended(first, make_complete_result(first))
    # Tune does not know yet that the worker of the first one is idle.
    driver.unreleased.add("0")
    assert driver.start_trial() is None
    driver.unreleased.remove("0")
    start_trial(driver)
    assert driver.start_trial() is None
    driver.on_trial_ended(second, make_result(second, status="failed"))
    for _ in range(3):
        job = start_trial(driver)
        driver.on_trial_ended(job, make_complete_result(job))
    assert driver.is_finished
    assert driver.start_trial() is None
    assert driver.counts == {"complete": 4, "failed": 1}


def test_after_a_stop_request_no_trial_starts_and_the_running_ones_are_waited_for(driver: Driver) -> None:
    first, second = start_trial(driver), start_trial(driver)
    driver.storage.write(STOP_REQUEST, b"{}")
    assert driver.start_trial() is None
    assert (driver.is_finished, driver.is_stopped) == (True, False)
    driver.on_trial_ended(first, make_result(first, handed_back=True))
    assert not driver.is_stopped
    # A trial without a worker is not waited for.
    driver.on_worker_lost(second, OSError("the worker died"))
    assert driver.is_stopped
    assert (driver.counts, read_statuses(driver.storage)) == ({}, {})


def test_a_trial_that_is_handed_back_makes_the_driver_check_for_a_stop_request_at_once(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr(driver.view, "report_stop", told.append)
    job = start_trial(driver)
    monkeypatch.setattr(stop_request, "CHECK_SECONDS", 3600.0)
    driver.check_stop()
    driver.storage.write(STOP_REQUEST, b"{}")
    # The last check was less than an hour ago.
    driver.check_stop()
    assert driver.stop.reason is None
    driver.on_trial_ended(job, make_result(job, handed_back=True))
    assert (driver.stop.reason, told, driver.is_stopped) == ("`dirtune stop`", ["`dirtune stop`"], True)


def test_a_trial_that_ends_after_a_stop_request_is_recorded(driver: Driver) -> None:
    job = start_trial(driver)
    driver.storage.write(STOP_REQUEST, b"{}")
    driver.check_stop()
    driver.on_trial_ended(job, make_complete_result(job))
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
def test_a_failed_trial_is_recorded_with_its_error_class_which_decides_what_is_kept(
    driver: Driver, error: Exception, found: str, keeps: bool, retried: bool
) -> None:
    job = start_trial(driver)
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
    first, second = start_trial(driver), start_trial(driver)
    said = "out of memory at epoch 1, step 1: a batch of 64 rows x 1 view, 64 rows at a time"
    driver.on_trial_ended(first, make_result(first, failure=OutOfMemory(said, 1)))
    killed = RayActorError(None, "Task was killed due to the node running low on memory.")
    driver.on_trial_failed(second, killed)
    rows = {row["trial_id"]: row for row in read_table(driver.storage, "trials").to_pylist()}
    assert {row["error_class"] for row in rows.values()} == {"out_of_memory"}
    assert (rows[first.trial_id]["error"], rows[first.trial_id]["error_epoch"]) == (said, 1)
    assert rows[second.trial_id]["error"].endswith("; try recipe.accumulation: 2, which has 32 rows at a time")
    assert driver.counts == {"failed": 2}
    assert driver.to_retry == set()


def test_the_traceback_of_a_failed_trial_is_written_and_removed_with_its_temporary_files(driver: Driver) -> None:
    def raise_error() -> None:
        raise KeyError("no such column")

    job = start_trial(driver)
    try:
        raise_error()
    except KeyError as error:
        driver.on_trial_ended(job, make_result(job, failure=CodeError.from_exception(error)))
    assert driver.crashed == {job.trial_id: "KeyError: 'no such column'"}
    (row,) = read_table(driver.storage, "trials").to_pylist()
    assert (row["error_class"], row["error"]) == ("code", "KeyError: 'no such column'")
    (file,) = driver.tracebacks
    assert "in raise_error" in Path(file).read_text()
    remove_temporary_files(driver.storage, job.trial_id)
    assert not Path(file).exists()


def test_a_record_that_cannot_be_written_stops_the_sweep_and_raises_nothing(driver: Driver) -> None:
    driver.storage = driver.folder.storage.with_retry(0.2)
    first, second = start_trial(driver), start_trial(driver)
    Path(driver.storage.path()).mkdir(parents=True, exist_ok=True)
    Path(driver.storage.path("results")).write_bytes(b"no folder")
    driver.on_trial_failed(first, ActorDiedError())
    assert isinstance(driver.storage_failure, NotADirectoryError)
    assert driver.is_finished
    # Trials that still train could not be recorded either.
    assert driver.is_stopped
    driver.on_trial_ended(second, make_complete_result(second))
    assert driver.start_trial() is None
    driver.storage.remove("results")
    assert read_statuses(driver.storage) == {}


def test_failures_in_a_row_stop_the_sweep_unless_an_epoch_ends_between_them(driver: Driver) -> None:
    for _ in range(CRASHES_TO_STOP - 1):
        driver.on_trial_failed(start_trial(driver), ActorDiedError())
    job = start_trial(driver)
    driver.on_epoch_ended(job, make_result(job, epoch=1, objective=2.0))
    driver.on_trial_failed(job, ActorDiedError())
    for _ in range(CRASHES_TO_STOP - 1):
        assert not driver.is_finished
        driver.on_trial_failed(start_trial(driver), ActorDiedError())
    assert driver.is_finished
    assert not driver.queue.is_empty


def test_a_driver_that_has_lost_its_lock_stops_and_records_nothing(driver: Driver) -> None:
    first, second = start_trial(driver), start_trial(driver)
    owner = {"token": "other", "host": "elsewhere", "pid": 7, "started": 0, "heartbeat": 0}
    driver.storage.write(LOCK, json.dumps(owner).encode())
    driver.check_lock = Lock(driver.storage, "own").check
    driver.on_trial_failed(first, ActorDiedError())
    driver.on_trial_ended(second, make_result(second, status="complete", best_objective=1.0))
    assert driver.start_trial() is None
    assert driver.is_stopped
    assert (driver.counts, read_statuses(driver.storage)) == ({}, {})
    with pytest.raises(InputError, match="has lost the study to process 7 on elsewhere; it has ended"):
        raise_storage_failure(driver.storage, driver.storage_failure)


def test_a_gpu_that_fails_twice_is_set_aside_and_named_while_another_works(driver: Driver) -> None:
    bad, good = GpuPlace("a1", "north", "0"), GpuPlace("a1", "north", "1")
    named: list[str] = []
    driver.view.report_set_aside = named.append  # type: ignore[method-assign]
    first, second = start_trial(driver), start_trial(driver)
    driver.on_worker_lost(first, DeviceFault(bad, "CUDA error: unknown error"))
    # An epoch on it shows that it works.
    driver.on_epoch_ended(first, make_result(first, epoch=1, place=bad))
    driver.on_worker_lost(first, DeviceFault(bad, "CUDA error: unknown error"))
    assert driver.find_gpus_to_set_aside() == []
    driver.on_worker_lost(first, DeviceFault(bad, "CUDA error: device-side assert triggered"))
    driver.on_worker_lost(first, ActorDiedError())
    assert driver.device_faults == {bad: 1}
    driver.on_worker_lost(first, DeviceFault(bad, "CUDA error: unknown error"))
    # The only GPU is not set aside.
    assert driver.find_gpus_to_set_aside() == []
    driver.on_epoch_ended(second, make_result(second, epoch=1, place=good))
    assert driver.find_gpus_to_set_aside() == [bad]
    assert driver.find_gpus_to_set_aside() == []
    assert named == ["GPU 0 of north"]


def test_a_gpu_that_fails_on_and_on_stops_the_sweep_although_another_works(driver: Driver) -> None:
    bad, good = GpuPlace("a1", "north", "0"), GpuPlace("a1", "north", "1")
    first, second = start_trial(driver), start_trial(driver)
    for _ in range(FAULTS_TO_SET_ASIDE + CRASHES_TO_STOP):
        assert not driver.is_finished
        driver.on_worker_lost(first, DeviceFault(bad, "CUDA error: unknown error"))
        driver.on_epoch_ended(second, make_result(second, epoch=1, place=good))
    assert driver.is_finished
    driver.on_trial_failed(first, DeviceFault(bad, "CUDA error: unknown error"))
    assert driver.to_retry == {first.trial_id}
    assert read_table(driver.storage, "trials")["error"].to_pylist() == ["GPU 0 of north: CUDA error: unknown error"]
