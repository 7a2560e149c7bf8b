"""Trials in real trackers: MLflow in a database, Weights & Biases offline. Run with `pytest tests/trackers/test_trackers.py`."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.results.records.schema import TrialRecord
from dirtune.results.records.store import write_record
from dirtune.study.resolve import resolve
from dirtune.trackers import logging, target
from dirtune.trackers.target import Target, parse_target
from tests.results.record_factory import OFFSETS, record, write_study

# Of the trackers' packages, not of this one
pytestmark = pytest.mark.filterwarnings("ignore")

EPOCHS = [{"train/loss": 2.0, "val/all/mae": 7.5}, {"train/loss": 1.5, "val/all/mae": float("nan")}]
CONFIG = {"terms": {"conr": {"omega": 2.0}}, "model": {"hidden": [8]}, "name": "toy"}
CURVES = {("train/loss", 1): 2.0, ("val/all/mae", 1): 7.5, ("train/loss", 2): 1.5}


def make_record(arm: str, seed: int, *, minute: int = 1, status: str = "complete") -> TrialRecord:
    made = record(
        arm, seed, 4.0 + seed, status=status, config=CONFIG, error="too large" if status == "failed" else None
    )
    start = datetime(2026, 1, 1, tzinfo=UTC)
    times = {"started_at": start, "finished_at": start.replace(minute=minute)}
    return replace(made, trial={**made.trial, **times}, epochs=EPOCHS)


def write_results(root: Path) -> None:
    records = [make_record(arm, seed) for arm in ("vanilla", "conr omega=1.0") for seed in (0, 1)]
    write_study(root, [*records, make_record("vanilla", 2, status="failed")], arms=["vanilla"])


def record_again(root: Path) -> None:
    write_record(dirtune.results.records.studies.open_study(root, "study"), make_record("vanilla", 2, minute=9))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_results(tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_mlflow_gets_every_trial_once(place: Path) -> None:
    from mlflow.tracking import MlflowClient

    to = f"mlflow:sqlite:///{place}/runs.db"
    (place / "reports").mkdir()
    (place / "reports/study.html").write_text("<p>the report</p>")

    assert dirtune.log("study", to=to, results=place / "results") == 5
    assert dirtune.log("study", to=to, results=place / "results") == 0

    client = MlflowClient(to.removeprefix("mlflow:"))
    experiment = client.get_experiment_by_name("study").experiment_id

    def find_runs() -> dict[str, Any]:
        runs = client.search_runs([experiment], "tags.`dirtune.trial` LIKE '%'")
        found = {run.data.tags["trial_id"]: run for run in runs}
        assert len(found) == len(runs)
        return found

    runs = find_runs()
    assert runs.keys() == {"vanilla-0", "vanilla-1", "vanilla-2", "conr omega=1.0-0", "conr omega=1.0-1"}
    run = runs["conr omega=1.0-1"]
    assert run.data.params == {"terms.conr.omega": "2.0", "model.hidden": "[8]", "name": "toy", "seed": "1"}
    assert (
        run.data.tags.items() >= {"arm": "conr omega=1.0", "seed": "1", "study": "study", "status": "complete"}.items()
    )
    curves = {
        (name, each.step): each.value for name in EPOCHS[0] for each in client.get_metric_history(run.info.run_id, name)
    }
    assert curves == CURVES
    regions = {f"final/test/{region}/mae": 5.0 + offset for region, offset in OFFSETS.items()}
    assert run.data.metrics.items() >= regions.items()
    assert run.info.end_time - run.info.start_time == 60_000
    assert {name: each.info.status for name, each in runs.items()}["vanilla-2"] == "FAILED"
    assert runs["vanilla-2"].data.tags["error"] == "too large"
    (report,) = client.search_runs([experiment], "tags.`dirtune.report` = 'yes'")
    assert [each.path for each in client.list_artifacts(report.info.run_id)] == ["study.html"]

    # A run that was killed before its last entry, another that two processes wrote, and a trial that ran again
    client.delete_tag(run.info.run_id, "dirtune.version")
    twin = client.create_run(experiment, tags={"dirtune.trial": "vanilla-0", "dirtune.version": "of another process"})
    record_again(place / "results")
    assert dirtune.log("study", to=to, results=place / "results") in {2, 3}
    runs = find_runs()
    assert len(runs) == 5
    assert twin.info.run_id not in {each.info.run_id for each in runs.values()}
    assert runs["vanilla-2"].info.status == "FINISHED"
    assert runs["conr omega=1.0-1"].data.metrics.items() >= regions.items()


def read_wandb(file: Path) -> Iterator[Any]:
    """Yield the entries of an offline run: blocks of 32 kB with records of checksum, length and type, as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, entry = file.read_bytes(), 7, b""
    while place < len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        entry += content[place + 7 : place + 7 + length]
        place += 7 + length
        # A whole entry, or the last part of one
        if kind in {1, 4}:
            yield Record.FromString(entry)
            entry = b""


@pytest.mark.slow
def test_offline_weights_and_biases_get_every_trial_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    results = place / "results"

    assert dirtune.log("study", to="wandb", results=results) == 5
    assert dirtune.log("study", to="wandb", results=results) == 0
    record_again(results)
    assert dirtune.log("study", to="wandb", results=results) == 1

    files = list(place.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 5
    (file,) = [each for each in files if each.name == "run-study-vanilla-1.wandb"]
    entries = list(read_wandb(file))
    (run,) = [each.run for each in entries if each.WhichOneof("record_type") == "run"]
    assert (run.run_group, run.job_type, run.display_name, run.project) == (
        "vanilla",
        "study",
        "vanilla, seed 1",
        "dirtune",
    )
    config = {each.key: json.loads(each.value_json) for each in run.config.update}
    assert config["settings"] == {"terms.conr.omega": 2.0, "model.hidden": "[8]", "name": "toy", "seed": 1}
    steps = [
        {each.key or each.nested_key[0]: each.value_json for each in entry.history.item}
        for entry in entries
        if entry.WhichOneof("record_type") == "history"
    ]
    assert [float(each["train/loss"]) for each in steps] == [2.0, 1.5]
    summary = {
        each.key or each.nested_key[0]: each.value_json
        for entry in entries
        if entry.WhichOneof("record_type") == "summary"
        for each in entry.summary.update
    }
    assert float(summary["final/test/few/mae"]) == 5.0 + OFFSETS["few"]


def test_a_server_that_is_lost_is_one_sentence(place: Path) -> None:
    with pytest.raises(InputError, match=r"^mlflow:http://127.0.0.1:9: .*; 0 trials written; the same command writes"):
        dirtune.log("study", to="mlflow:http://127.0.0.1:9", results=place / "results")


def test_an_interrupted_log_is_continued(place: Path) -> None:
    """A tracker that fails with its third trial gets it again, and the two before only once."""
    tracker = logging.open_tracker(Target("tensorboard", str(place / "logs")), "study")
    write, written = tracker.write, []

    def fail(trial: Any) -> None:
        written.append(trial.trial_id)
        if len(written) == 3:
            raise ConnectionError("gone")
        write(trial)

    tracker.write = fail  # type: ignore[method-assign]
    log = logging.StudyLog(dirtune.results.records.studies.open_study(place / "results", "study"), tracker)
    with pytest.raises(ConnectionError):
        log.update()
    assert len(log.list_missing()) == 5
    log.update()
    assert log.list_missing() == []
    assert sorted(set(written)) == sorted([*written[:2], *written[3:]])
    assert len(set(written)) == 5


def test_targets_are_names_with_places() -> None:
    assert parse_target("mlflow:http://host:5000", "--to") == Target("mlflow", "http://host:5000")
    assert str(parse_target("wandb", "--to")) == "wandb"
    with pytest.raises(InputError, match=r"--to: unknown tracker, got 'mlfow'; known: .*did you mean 'mlflow'"):
        parse_target("mlfow", "--to")


def test_a_missing_package_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(target.PACKAGES, "mlflow", "mlflow_of_another_world")
    with pytest.raises(InputError, match=r"mlflow: needs the package mlflow_\w+: `pip install 'dirtune\[mlflow\]'`"):
        dirtune.log("study", to="mlflow", results=place / "results")


def test_keys_of_a_location_are_in_no_message_and_no_results(place: Path) -> None:
    to = "mlflow:http://me:planted@127.0.0.1:9"
    assert str(parse_target(to, "--to")) == "mlflow:http://127.0.0.1:9"
    assert parse_target(to, "--to").place == "http://me:planted@127.0.0.1:9"
    with pytest.raises(InputError) as caught:
        dirtune.log("study", to=to, results=place / "results")
    assert "planted" not in str(caught.value)
    # A study is copied into the results.
    with pytest.raises(InputError, match="log: must have no keys: set MLFLOW_TRACKING_USERNAME"):
        resolve({"name": "tiny", "log": [to]}, where="tiny.yaml")
