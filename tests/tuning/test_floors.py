"""Floors and gradient shares of sweeps: run with `pytest tests/tuning/test_floors.py`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dirtune
from dirtune.cli.display import format_summary
from dirtune.io.storage import Storage
from dirtune.results.analysis.soundness import check_study
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table
from dirtune.training import floors, gradient_shares
from tests.tuning.sweeps import open_folder, sweep_without_ray

VARYING = ("seconds", "peak", "worker", "samples_per_second", "started_at", "finished_at")


@pytest.fixture(autouse=True)
def _no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a sweep fail that needs Ray."""
    monkeypatch.setitem(sys.modules, "dirtune.tuning.execution.run", None)


def tables_of(results: Path) -> dict[str, Any]:
    """All that is recorded of the trials, without times and gradient shares."""
    study = Storage.open(results / "tiny")
    return {
        name: sorted(
            repr({key: value for key, value in row.items() if not key.startswith(VARYING)})
            for row in read_table(study, name).to_pylist()
            if not str(row.get("name")).startswith("gradient/")
        )
        for name in TABLES
    }


def test_trials_are_bitwise_the_same_without_floors_and_shares(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file()
    sweep_without_ray(path, data_root, tmp_path / "with")
    dirtune.sweep(path, data=data_root, results=tmp_path / "with")
    monkeypatch.setattr(gradient_shares, "start_measurement", lambda training: None)
    sweep_without_ray(path, data_root, tmp_path / "without")
    found, plain = tables_of(tmp_path / "with"), tables_of(tmp_path / "without")
    assert len(plain["trials"]) == 4
    assert found == plain
    shares = dirtune.query("select distinct arm from curves where name like 'gradient/%'", results=tmp_path / "with")
    assert shares["arm"].tolist() == ["conr"]
    assert (tmp_path / "with/tiny/floors").is_dir()
    assert not (tmp_path / "without/tiny/floors").exists()


@pytest.mark.slow
def test_a_second_sweep_computes_no_floor_again_and_a_resume_none(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file()
    sweep_without_ray(path, data_root, tmp_path)
    assert "no floors" in str(check_study(tmp_path, "tiny"))
    assert dirtune.sweep(path, data=data_root, results=tmp_path).floors_problem == ""
    assert "no floors" not in str(check_study(tmp_path, "tiny"))
    monkeypatch.setattr(floors.blocks, "read_without_ray", None)
    assert dirtune.sweep(path, data=data_root, results=tmp_path).floors_problem == ""
    assert dirtune.resume("tiny", data=data_root, results=tmp_path).floors_problem == ""
    # Floors are no records of trials that a study could have planned.
    assert not open_folder(path, data_root, tmp_path).find_reuse().orphaned
    rows = dirtune.query("select floor, count(*) as n from floors where metric = 'mae' group by all", results=tmp_path)
    assert {row["floor"]: row["n"] for row in rows.to_dict("records")} == {"median": 8, "mean": 8}


def test_arms_of_two_shot_rules_have_floors_of_both(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    path = study_file(arms={"vanilla": {}, "other": {"data": {"shot_rule": "no_few"}}})
    sweep_without_ray(path, data_root, tmp_path)
    dirtune.sweep(path, data=data_root, results=tmp_path)
    rows = dirtune.query("select distinct floor, shot_rule from floors order by all", results=tmp_path).to_dict(
        "records"
    )
    assert [tuple(row.values()) for row in rows] == [
        (floor, rule) for floor in ("mean", "median") for rule in ("no_few", "toy")
    ]
    labels = [row.label for row in dirtune.table("tiny", results=tmp_path).comparison.parts[0].floors]
    assert labels[:2] == ["median (floor, rule no_few)", "median (floor, rule toy)"]


def test_a_failure_of_the_floors_is_reported_and_no_failure_of_the_sweep(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = study_file()
    sweep_without_ray(path, data_root, tmp_path)

    def fail(*args: object) -> None:
        raise MemoryError("too many inputs")

    monkeypatch.setattr(floors, "predict_floors", fail)
    summary = dirtune.sweep(path, data=data_root, results=tmp_path)
    assert summary.reused == 4
    assert summary.floors_problem == "no floors to compare the trials with: MemoryError: too many inputs"
    assert summary.floors_problem in format_summary(summary).splitlines()
