"""Run with `pytest tests/trackers/test_tensorboard.py`."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from dirtune.errors import InputError
from dirtune.results.analysis.status import PROGRESS
from dirtune.trackers.logging import log
from tests.results.record_factory import record, write_study

Scalars = dict[tuple[str, int], float]
EPOCHS = [{"train/loss": 2.0, "val/all/mae": 7.5}, {"train/loss": 1.5, "val/all/mae": float("nan")}]


def scalars(folder: Path) -> Scalars:
    """All scalars in the event files of a folder, by name and step; a record is length, checksum, bytes, checksum."""
    found: Scalars = {}
    for path in folder.glob("events.*"):
        content = path.read_bytes()
        while content:
            (size,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + size])
            for value in event.summary.value:
                if not value.HasField("simple_value") or value.tag.startswith("final/"):
                    continue
                assert (value.tag, event.step) not in found
                found[value.tag, event.step] = value.simple_value
            content = content[16 + size :]
    return found


def write_logs(root: Path, study: str = "study") -> int:
    return log(study, to=f"tensorboard:{root / 'logs'}", results=root)


def store(root: Path) -> None:
    records = [replace(record(arm, 3, trial_id=f"t-{arm}"), epochs=EPOCHS) for arm in ("vanilla", "conr omega=1.0")]
    folder = write_study(root, records, arms=["vanilla", "conr omega=1.0"])
    running = {"trial": {"arm": "a/b", "seed": 0}, "config": {}, "epochs": [{"train/loss": 9.0}]}
    folder.write(f"trials/running/{PROGRESS}", json.dumps(running).encode())
    folder.write("trials/started/config.json", b"{}")
    # Recorded since
    folder.write(f"trials/t-vanilla/{PROGRESS}", json.dumps(running).encode())


def test_every_trial_has_a_folder_with_its_curves(tmp_path: Path) -> None:
    store(tmp_path)
    logs = tmp_path / "logs/study"
    assert write_logs(tmp_path) == 2
    folders = {str(path.relative_to(logs)) for path in logs.glob("*/*")}
    assert folders == {"vanilla/seed-3-t-vanilla", "conr omega=1.0/seed-3-t-conr omega=1.0", "a%2Fb/seed-0-running"}
    expected = {("train/loss", 1): 2.0, ("val/all/mae", 1): 7.5, ("train/loss", 2): 1.5}
    # What is undefined is left out
    assert scalars(logs / "vanilla/seed-3-t-vanilla") == expected
    assert scalars(logs / "a%2Fb/seed-0-running") == {("train/loss", 1): 9.0}


def test_writing_again_doubles_nothing(tmp_path: Path) -> None:
    store(tmp_path)
    write_logs(tmp_path)
    folders = [tmp_path / "logs/study/vanilla/seed-3-t-vanilla", tmp_path / "logs/study/a%2Fb/seed-0-running"]
    once = [scalars(folder) for folder in folders]
    assert write_logs(tmp_path) == 0
    assert [scalars(folder) for folder in folders] == once


def test_an_unknown_study_is_refused(tmp_path: Path) -> None:
    store(tmp_path)
    with pytest.raises(InputError, match="unknown study, got 'stdy'; known: study"):
        write_logs(tmp_path, "stdy")


def test_names_in_records_do_not_lead_out_of_the_output(tmp_path: Path) -> None:
    write_study(tmp_path, [replace(record("..", 3, trial_id="t"), epochs=EPOCHS)], arms=[".."])
    write_logs(tmp_path)
    assert [path.name for path in (tmp_path / "logs").iterdir()] == ["study"]
    assert [path.name for path in (tmp_path / "logs" / "study").iterdir()] == ["%2E%2E"]
