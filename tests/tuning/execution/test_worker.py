"""A resident worker without Ray: `pytest tests/tuning/execution/test_worker.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.data.memory_budget import Residency
from dirtune.data.store import read_manifest
from dirtune.data.stream import Blocks
from dirtune.io.storage import Storage
from dirtune.results.records.store import read_table
from dirtune.training.trial import TrialJob, trial_folder
from dirtune.tuning.execution.worker import ResidentWorker, StepResult, WorkerSettings
from dirtune.tuning.folder.stop_request import STOP
from tests.training.conftest import configuration
from tests.training.runs import EXPLODING, TERMS, VARYING, Configure, job_of, tables

__all__ = ["configuration"]

ROOM = Residency(device_bytes=2**28, host_bytes=2**28)


@pytest.fixture
def jobs(configuration: Configure, toy: ResidentData) -> list[TrialJob]:
    """Three trials that see the same batches."""
    configs: list[TrialConfig] = [
        configuration(),
        configuration(terms=TERMS, model={"projection_dim": 4}),
        configuration(reweighting={"scheme": "sqrt_inverse"}),
    ]
    return [job_of(config, toy) for config in configs]


def worker_on(data_root: Path, study: Path) -> ResidentWorker:
    storage = Storage.at(data_root)
    settings = WorkerSettings(
        study=Storage.at(study), manifest=read_manifest(storage, "toy"), residency=ROOM, checkpoint_seconds=0.0
    )
    return ResidentWorker(settings, Blocks(storage, None), torch.device("cpu"))


def to_the_end(worker: ResidentWorker, jobs: list[TrialJob]) -> list[StepResult]:
    """The last results of all."""
    worker.start(jobs)
    ended: list[StepResult] = []
    while len(ended) < len(jobs):
        ended += [result for result in worker.step() if result.has_ended]
    return ended


def recorded(study: Path) -> dict[str, list[dict[str, Any]]]:
    """Everything that is recorded, without times."""
    return {
        name: [{key: row[key] for key in row.keys() - VARYING} for row in rows]
        for name, rows in tables(Storage.at(study)).items()
    }


def test_trials_side_by_side_are_recorded_as_those_that_ran_one_after_another(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    alone, beside = worker_on(data_root, tmp_path / "alone"), worker_on(data_root, tmp_path / "beside")
    for job in jobs:
        to_the_end(alone, [job])
    found = to_the_end(beside, jobs)
    assert [result.status for result in found] == ["complete"] * 3
    assert recorded(tmp_path / "beside") == recorded(tmp_path / "alone")


def test_the_times_of_trials_side_by_side_add_up_to_what_has_passed(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    worker = worker_on(data_root, tmp_path)
    to_the_end(worker, jobs)
    rows = read_table(Storage.at(tmp_path), "trials").to_pylist()
    names = ("seconds_train", "seconds_eval", "seconds_data", "seconds_overhead")
    spent = sum(row[name] for row in rows for name in names)
    begun, ended = min(row["started_at"] for row in rows), max(row["finished_at"] for row in rows)
    assert 0.5 < spent / (ended - begun).total_seconds() < 1.5


def test_one_that_diverges_or_cannot_begin_ends_alone(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob], configuration: Configure, toy: ResidentData
) -> None:
    wild = job_of(configuration(recipe={**EXPLODING, "epochs": 3}), toy)
    state = trial_folder(Storage.at(tmp_path), jobs[0].trial_id)
    state.write("checkpoint/state.pt", b"no checkpoint")
    found = {result.trial_id: result for result in to_the_end(worker_on(data_root, tmp_path), [wild, *jobs])}
    failure = found[jobs[0].trial_id].failure
    assert failure is not None
    assert failure.said.startswith("UnpicklingError")
    assert [found[job.trial_id].status for job in (wild, *jobs[1:])] == ["failed", "complete", "complete"]
    of_failed = [row for row in read_table(Storage.at(tmp_path), "trials").to_pylist() if row["status"] == "failed"]
    assert [row["error_class"] for row in of_failed] == ["nan"]


def test_when_the_sweep_shall_end_all_are_handed_back_and_go_on_to_the_same_end(
    data_root: Path, tmp_path: Path, jobs: list[TrialJob]
) -> None:
    to_the_end(worker_on(data_root, tmp_path / "undisturbed"), jobs)
    worker = worker_on(data_root, tmp_path / "stopped")
    worker.start(jobs)
    worker.step()
    Storage.at(tmp_path / "stopped").write(STOP, b"{}")
    assert [result.handed_back for result in worker.step()] == [True] * 3
    Storage.at(tmp_path / "stopped").remove(STOP)
    to_the_end(worker_on(data_root, tmp_path / "stopped"), jobs)
    assert recorded(tmp_path / "stopped") == recorded(tmp_path / "undisturbed")
