"""Sweeps without missing trials, which start no Ray: run with `pytest tests/tuning/test_complete_sweep.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.compaction import Records
from dirtune.results.records.store import read_statuses
from dirtune.tuning.folder.layout import ORPHANED
from dirtune.tuning.interface import SweepSummary
from tests.tuning.sweeps import open_folder, sweep_without_ray

TOY: dict[str, Any] = {
    "base": {
        "data": {"name": "toy"},
        "model": {"encoder": {"name": "mlp", "hidden": [4]}},
        "recipe": {"epochs": 1, "batch_size": 64},
    },
    "arms": {"vanilla": {}, "conr": {"terms": {"conr": {}}}},
}
SEARCH: dict[str, Any] = {
    "search": {"trials": 3, "sampler": "random", "confirm": True, "tuning_seed": 7},
    "space": {"terms.conr.omega": {"distribution": "uniform", "low": 0.5, "high": 9.0}},
}
CALL = """
import sys, dirtune
study, data, results = sys.argv[1:]
print(dirtune.sweep(study, data=data, results=results).reused, "ray" in sys.modules)
"""


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sweep fail that needs Ray."""
    monkeypatch.setitem(sys.modules, "dirtune.tuning.execution.run", None)


def summarize(summary: SweepSummary) -> list[Any]:
    return [summary.reused, summary.orphaned, dict(summary.run), summary.left]


@pytest.mark.parametrize(("changes", "trials"), [({}, 4), (SEARCH, 2 + 3 + 2)], ids=["fixed arms", "a search"])
def test_a_complete_study_is_swept_and_resumed_without_ray(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], changes: dict[str, Any], trials: int
) -> None:
    path = study_file(**TOY, **changes)
    folder = open_folder(path, data_root, tmp_path)
    assert not folder.find_reuse().is_complete
    assert sweep_without_ray(path, data_root, tmp_path, limit=trials - 1) == trials - 1
    assert not folder.find_reuse().is_complete
    assert sweep_without_ray(path, data_root, tmp_path) == 1
    assert folder.find_reuse().is_complete
    for summary in (
        dirtune.sweep(path, data=data_root, results=tmp_path),
        dirtune.resume("tiny", data=data_root, results=tmp_path),
    ):
        assert summarize(summary) == [trials, 0, {}, 0]


@pytest.mark.slow
def test_a_complete_study_is_swept_without_importing_ray(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**TOY)
    sweep_without_ray(path, data_root, tmp_path)
    command = [sys.executable, "-c", CALL, path, str(data_root), str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "4 False\n"


def test_what_a_driver_that_was_killed_behind_its_last_record_has_not_done_is_done(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    sweep_without_ray(study_file(**TOY), data_root, tmp_path)
    storage = Storage.open(tmp_path / "tiny")
    half = tmp_path / f"tiny/results/metrics/.x.parquet.{'0' * 32}"
    half.write_bytes(b"half a file")
    os.utime(half, (0, 0))
    assert not Records(storage).is_compacted("metrics")
    dirtune.resume("tiny", data=data_root, results=tmp_path)
    assert Records(storage).is_compacted("metrics")
    assert not half.exists()


@pytest.mark.parametrize("lost", [["study.yaml"], ["study.yaml", "study.json", "selected.json", "optuna.log"]])
def test_files_that_something_else_has_deleted_are_written_again(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], lost: list[str]
) -> None:
    path = study_file(**TOY, **SEARCH)
    sweep_without_ray(path, data_root, tmp_path)
    before = {name: (tmp_path / "tiny" / name).read_bytes() for name in lost if name != "optuna.log"}
    statuses = read_statuses(Storage.open(tmp_path / "tiny"))
    for name in lost:
        (tmp_path / "tiny" / name).unlink()
    with pytest.raises(InputError, match="no sweep of this study to resume"):
        dirtune.resume("tiny", data=data_root, results=tmp_path)
    assert sweep_without_ray(path, data_root, tmp_path) == 0
    assert {name: (tmp_path / "tiny" / name).read_bytes() for name in before} == before
    assert read_statuses(Storage.open(tmp_path / "tiny")) == statuses


def test_records_that_the_study_no_longer_plans_are_orphaned_without_ray(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    sweep_without_ray(study_file(**TOY), data_root, tmp_path)
    smaller = study_file(**{**TOY, "arms": {"vanilla": {}}})
    assert summarize(dirtune.sweep(smaller, data=data_root, results=tmp_path)) == [2, 2, {}, 0]
    storage = Storage.open(tmp_path / "tiny")
    assert len(read_statuses(storage)) == 2
    assert len(storage.list_files(f"{ORPHANED}/trials", suffix=".parquet")) == 2
    # The larger study restores them.
    assert summarize(dirtune.sweep(study_file(**TOY), data=data_root, results=tmp_path)) == [4, 0, {}, 0]
    assert not storage.list_files(f"{ORPHANED}/trials", suffix=".parquet")


def test_a_complete_study_that_another_driver_sweeps_is_refused(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(**TOY)
    sweep_without_ray(path, data_root, tmp_path)
    folder = open_folder(path, data_root, tmp_path)
    with folder.lock(), pytest.raises(InputError, match="is being swept by process"):
        dirtune.sweep(path, data=data_root, results=tmp_path)
