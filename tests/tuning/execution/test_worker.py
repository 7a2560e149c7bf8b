"""A resident worker without Ray: `pytest tests/tuning/execution/test_worker.py`."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune import plugins
from dirtune.config import TrialConfig
from dirtune.data.blocks import Blocks
from dirtune.data.cache import ResidentData
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_table
from dirtune.training import trial
from dirtune.training.checkpoint import load_checkpoint, save_checkpoint
from dirtune.training.trial import TrialJob, TrialRun, get_trial_folder
from dirtune.tuning.execution.device_faults import DeviceFault
from dirtune.tuning.execution.trainable import JOB, RESULT, TrialWorker
from dirtune.tuning.execution.worker import (
    ResidentWorker,
    StepResult,
    WorkerSettings,
    check_same_sources,
    get_local_device,
)
from dirtune.tuning.folder.layout import STOP_REQUEST
from tests.plugin_sources import SPREAD, forgotten_plugins, write
from tests.training.conftest import configuration
from tests.training.runs import EXPLODING, TERMS, VARYING, Configure, job_of, tables

__all__ = ["configuration", "forgotten_plugins"]

ROOM = MemoryBudget(device_bytes=2**28, host_bytes=2**28)


@pytest.fixture
def jobs(configuration: Configure, toy: ResidentData) -> list[TrialJob]:
    configs: list[TrialConfig] = [
        configuration(),
        configuration(terms=TERMS, model={"projection_dim": 4}),
        configuration(reweighting={"scheme": "sqrt_inverse"}),
    ]
    return [job_of(config, toy) for config in configs]


def make_worker(data_root: Path, study: Path) -> ResidentWorker:
    storage = Storage.open(data_root)
    settings = WorkerSettings(
        study=Storage.open(study), manifest=read_manifest(storage, "toy"), budget=ROOM, checkpoint_seconds=0.0
    )
    return ResidentWorker(settings, Blocks(storage, None), torch.device("cpu"))


def run_to_the_end(worker: ResidentWorker, jobs: list[TrialJob]) -> list[StepResult]:
    """Return the last result of every trial."""
    ended: list[StepResult] = []
    for job in jobs:
        worker.start(job)
        while not (result := worker.step()).has_ended:
            assert result.trial_id == job.trial_id
        ended.append(result)
    return ended


def read_records(study: Path) -> dict[str, list[dict[str, Any]]]:
    """Return all records without their times."""
    return {
        name: [{key: row[key] for key in row.keys() - VARYING} for row in rows]
        for name, rows in tables(Storage.open(study)).items()
    }


def test_trials_of_one_worker_are_recorded_as_those_of_workers_of_their_own(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    for job in jobs:
        run_to_the_end(make_worker(data_root, tmp_path / "own"), [job])
    found = run_to_the_end(make_worker(data_root, tmp_path / "shared"), jobs)
    assert [result.status for result in found] == ["complete"] * 3
    assert read_records(tmp_path / "shared") == read_records(tmp_path / "own")


def test_the_times_of_trials_add_up_to_what_has_passed(data_root: Path, tmp_path: Path, jobs: list[TrialJob]) -> None:
    worker = make_worker(data_root, tmp_path)
    run_to_the_end(worker, jobs)
    rows = read_table(Storage.open(tmp_path), "trials").to_pylist()
    names = ("seconds_train", "seconds_eval", "seconds_data", "seconds_overhead")
    spent = sum(row[name] for row in rows for name in names)
    begun, ended = min(row["started_at"] for row in rows), max(row["finished_at"] for row in rows)
    assert 0.5 < spent / (ended - begun).total_seconds() < 1.5


def test_a_trial_that_diverges_is_recorded_and_one_that_cannot_begin_raises(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob], configuration: Configure, toy: ResidentData
) -> None:
    wild = job_of(configuration(recipe={**EXPLODING, "epochs": 3}), toy)
    state = get_trial_folder(Storage.open(tmp_path), jobs[0].trial_id)
    save_checkpoint(state, {"of": "another program"})
    worker = make_worker(data_root, tmp_path)
    found = run_to_the_end(worker, [wild])
    with pytest.raises(KeyError):
        worker.start(jobs[0])
    found += run_to_the_end(worker, jobs[1:])
    assert [result.status for result in found] == ["failed", "complete", "complete"]
    of_failed = [row for row in read_table(Storage.open(tmp_path), "trials").to_pylist() if row["status"] == "failed"]
    assert [row["error_class"] for row in of_failed] == ["nan"]


def test_a_trial_is_handed_back_when_a_stop_is_requested_and_resumes_to_the_same_record(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    run_to_the_end(make_worker(data_root, tmp_path / "undisturbed"), jobs)
    folder = Storage.open(tmp_path / "stopped")
    for job in jobs:
        worker = make_worker(data_root, tmp_path / "stopped")
        worker.start(job)
        assert not worker.step().has_ended
        folder.write(STOP_REQUEST, b"{}")
        assert worker.step().handed_back
        folder.remove(STOP_REQUEST)
        run_to_the_end(make_worker(data_root, tmp_path / "stopped"), [job])
    assert read_records(tmp_path / "stopped") == read_records(tmp_path / "undisturbed")


def test_sigterm_ends_a_worker_after_a_step_and_another_one_goes_on_to_the_same_record(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_to_the_end(make_worker(data_root, tmp_path / "undisturbed"), jobs[:1])
    monkeypatch.setattr(trial, "STOP_CHECK_SECONDS", 0.0)
    worker, asked = make_worker(data_root, tmp_path / "ended"), TrialRun._is_pause_due

    def terminate(run: TrialRun) -> bool:
        signal.raise_signal(signal.SIGTERM)
        return asked(run)

    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "_is_pause_due", terminate)
        worker.start(jobs[0])
        with pytest.raises(SystemExit) as ended:
            worker.step()
    assert ended.value.code == 128 + signal.SIGTERM
    state = load_checkpoint(get_trial_folder(Storage.open(tmp_path / "ended"), jobs[0].trial_id))
    assert state is not None
    assert state["training"]["unfinished"]["means"]["steps"] == 1
    run_to_the_end(make_worker(data_root, tmp_path / "ended"), jobs[:1])
    assert read_records(tmp_path / "ended") == read_records(tmp_path / "undisturbed")


def make_trainable(data_root: Path, study: Path, job: TrialJob, **settings: Any) -> TrialWorker:
    storage = Storage.open(data_root)
    trainable = object.__new__(TrialWorker)
    shared = WorkerSettings(study=Storage.open(study), manifest=read_manifest(storage, "toy"), budget=ROOM, **settings)
    trainable.setup({JOB: job}, shared, Blocks(storage, None))
    return trainable


def test_short_epochs_after_the_first_share_a_report_that_has_all_of_them(
    configuration: Configure, toy: ResidentData, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However slow this machine is
    monkeypatch.setattr("dirtune.tuning.execution.worker.PROGRESS_SECONDS", 3600.0)
    job, epochs = job_of(configuration(recipe={"epochs": 5}), toy), range(1, 6)
    often = make_trainable(data_root, tmp_path / "often", job, checkpoint_seconds=0.0)
    alone: list[StepResult] = [often.step()[RESULT] for _ in epochs]
    assert [(result.epoch, result.before) for result in alone] == [(epoch, ()) for epoch in epochs]

    seldom = make_trainable(data_root, tmp_path / "seldom", job, checkpoint_seconds=3600.0)
    first, rest = seldom.step(), seldom.step()
    assert (first["done"], rest["done"]) == (False, True)
    assert first[RESULT] == alone[0]
    assert rest[RESULT] == replace(alone[-1], before=tuple((each.epoch, each.objective) for each in alone[1:-1]))
    assert read_records(tmp_path / "seldom") == read_records(tmp_path / "often")


def test_a_trial_that_a_scheduler_may_stop_reports_every_epoch(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    trainable = make_trainable(data_root, tmp_path, jobs[0], checkpoint_seconds=3600.0, scheduled_role=jobs[0].role)
    found: list[StepResult] = []
    while not found or not found[-1].has_ended:
        found.append(trainable.step()[RESULT])
    assert [(result.epoch, result.before) for result in found] == [(epoch, ()) for epoch in range(1, len(found) + 1)]
    assert len(found) > 2


def test_an_error_after_short_epochs_is_raised_once_they_are_reported_and_the_trial_goes_on(
    configuration: Configure, toy: ResidentData, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dirtune.tuning.execution.worker.PROGRESS_SECONDS", 3600.0)
    job, step = job_of(configuration(recipe={"epochs": 6}), toy), TrialRun._step
    trainable = make_trainable(data_root, tmp_path, job, checkpoint_seconds=3600.0)

    def fail_in_fourth_epoch(run: TrialRun) -> None:
        if run.training.epoch == 3:
            raise KeyError("lost")
        step(run)

    assert trainable.step()[RESULT].epoch == 1
    with monkeypatch.context() as patch:
        patch.setattr(TrialRun, "_step", fail_in_fourth_epoch)
        result = trainable.step()[RESULT]
        assert (result.epoch, [epoch for epoch, _ in result.before]) == (3, [2])
        # The record of the failure has the epochs whose progress was not due.
        progress = trial.read_progress(Storage.open(tmp_path), job.trial_id)
        assert progress is not None
        assert len(progress.epochs) == 3
        failed = trainable.step()
    assert failed["done"]
    assert failed[RESULT].failure is not None
    trainable.reset_config({JOB: job})
    assert trainable.step()[RESULT].epoch == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine whose GPUs work")
def test_a_worker_whose_gpu_does_not_work_ends_instead_of_failing_one_trial_after_another(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    trainable = make_trainable(data_root, tmp_path, jobs[0], gpus=1)
    with pytest.raises(DeviceFault, match=r"GPU \S+ of \S+: .*NVIDIA driver"):
        trainable.step()


@pytest.mark.parametrize("chosen", [None, "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_a_trial_that_shares_a_gpu_is_fenced(monkeypatch: pytest.MonkeyPatch, chosen: str | None) -> None:
    fences: list[tuple[float, torch.device]] = []
    allocators: list[str | None] = []
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        # Twice, so that what the worker sets is undone as well
        monkeypatch.setenv(name, "max_split_size_mb:128")
        if name != chosen:
            monkeypatch.delenv(name)

    def initialize_cuda() -> int:
        allocators.append(os.environ.get("PYTORCH_ALLOC_CONF"))
        return 0

    monkeypatch.setattr(torch.cuda, "current_device", initialize_cuda)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *fence: fences.append(fence))
    assert get_local_device(1.0) == get_local_device(0.25) == torch.device("cuda", 0)
    assert fences == [(pytest.approx(0.2375), torch.device("cuda", 0))]
    kept = os.environ.get(chosen) if chosen == "PYTORCH_ALLOC_CONF" else None
    assert allocators == [kept, "expandable_segments:True" if chosen is None else kept]
    assert get_local_device(0.0) == torch.device("cpu")


def test_a_fault_in_an_epoch_names_the_gpu(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(data_root, tmp_path)
    worker.start(jobs[0])

    def fail(trial: TrialRun) -> None:
        raise RuntimeError(
            "CUDA error: uncorrectable ECC error encountered\nCUDA kernel errors might be reported later"
        )

    monkeypatch.setattr(TrialRun, "step", fail)
    # On CPUs no GPU is blamed.
    with pytest.raises(RuntimeError, match=r"^CUDA error: unc"):
        worker.step()
    worker._settings = replace(worker._settings, gpus=0.5)
    with pytest.raises(DeviceFault, match=r"of .*: CUDA error: uncorrectable ECC error encountered$"):
        worker.step()


@pytest.mark.usefixtures("forgotten_plugins")
def test_other_sources_than_those_of_the_driver_are_refused(
    configuration: Configure, toy: ResidentData, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    plugins.load_files([write(tmp_path, SPREAD)])
    job = job_of(configuration(terms={"spread": {}}), toy)
    check_same_sources(job, toy.manifest)
    other = replace(job, trial_id="0" * 16)
    with pytest.raises(InputError, match="plug-ins or pretrained weights differ"):
        check_same_sources(other, toy.manifest)
