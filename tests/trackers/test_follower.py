"""Logs that follow a sweep, in a process of their own. Run with `pytest tests/trackers/test_follower.py`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import pytest

import dirtune
from dirtune.results.records.store import read_statuses, write_record
from dirtune.results.records.studies import open_study
from dirtune.trackers import follower
from dirtune.trackers.target import Target
from tests.trackers.test_trackers import make_record, write_results
from tests.training.conftest import data_root, toy
from tests.tuning.conftest import study_file
from tests.tuning.sweeps import STUDY, rows, sweep_without_ray

__all__ = ["data_root", "study_file", "toy"]
pytestmark = pytest.mark.filterwarnings("ignore")


def list_logged(folder: Path) -> set[str]:
    return {file.read_text().split("\n")[0] for file in folder.glob("*/*/*/recorded.txt")}


@pytest.mark.slow
def test_a_sweep_is_followed_by_the_trackers_of_its_study(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dirtune.tuning.execution.run", None)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(follower, "FINISH_SECONDS", 300)
    base = {**STUDY["base"], "recipe": {**STUDY["base"]["recipe"], "epochs": 1}}
    path = study_file(base=base, log=[f"tensorboard:{tmp_path / 'logs'}"])
    plain = study_file(base=base)
    assert sweep_without_ray(plain, data_root, tmp_path) == 4
    before = rows("select trial_id, study from trials order by all", tmp_path)

    path = study_file(base=base, log=[f"tensorboard:{tmp_path / 'logs'}"])
    summary = dirtune.sweep(path, data=data_root, results=tmp_path)

    # The key changes no trial.
    assert (summary.reused, summary.left, summary.orphaned) == (4, 0, 0)
    assert rows("select trial_id, study from trials order by all", tmp_path).equals(before)
    assert list_logged(tmp_path / "logs") == set(before["trial_id"])


def test_a_tracker_that_comes_back_gets_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its folder cannot be made at first."""
    monkeypatch.setattr(follower, "POLL_SECONDS", 0.02)
    write_results(tmp_path / "results")
    folder = open_study(tmp_path / "results", "study")
    place, messages, is_over = tmp_path / "logs", list[str](), Event()
    place.write_text("a file where the folder belongs")
    target = Target("tensorboard", str(place))
    thread = Thread(target=follower.run, args=(target, folder, "study", is_over, messages.append))
    thread.start()
    while not messages:
        time.sleep(0.01)
    place.unlink()
    write_record(folder, make_record("conr omega=1.0", 7))
    while len(messages) < 2:
        time.sleep(0.01)
    # Recorded between the last pass and the end
    write_record(folder, make_record("conr omega=1.0", 8))
    is_over.set()
    thread.join()

    assert len(messages) == 2
    assert messages[0].endswith("its trials are written when it is back")
    assert messages[1] == f"{target}: back; nothing is missing"
    assert list_logged(place) == read_statuses(folder).keys()


def test_an_unknown_tracker_ends_a_sweep_before_anything_is_written(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str]
) -> None:
    with pytest.raises(dirtune.InputError, match="unknown tracker, got 'mlfow'"):
        dirtune.sweep(study_file(), data=data_root, results=tmp_path / "results", log=["mlfow"])
    with pytest.raises(dirtune.InputError, match="'mlfow' must begin with one of tensorboard, mlflow"):
        dirtune.sweep(study_file(log=["mlfow"]), data=data_root, results=tmp_path / "results")
    assert not (tmp_path / "results").exists()


class Server:
    """An MLflow server on this machine."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder = folder

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--workers",
            "1",
        ]
        stores = [
            "--backend-store-uri",
            f"sqlite:///{self.folder}/runs.db",
            "--artifacts-destination",
            str(self.folder / "artifacts"),
        ]
        self.process = subprocess.Popen(
            [*command, *stores],
            cwd=self.folder,
            # Its processes for jobs would use up the machine.
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while True:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}/health", timeout=5):
                return
            assert self.process.poll() is None
            time.sleep(0.5)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.soak
def test_nothing_is_lost_if_the_server_is_killed_in_mid_sweep(
    data_root: Path, tmp_path: Path, study_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    server, messages = Server(tmp_path), list[str]()
    target, results, path = Target("mlflow", server.url), tmp_path / "results", study_file(seeds=list(range(4)))

    def list_runs() -> list[str]:
        client = MlflowClient(server.url)
        experiment = client.get_experiment_by_name("tiny")
        found = [] if experiment is None else client.search_runs([experiment.experiment_id])
        assert all(run.info.status in {"FINISHED", "RUNNING"} for run in found)
        return sorted(run.data.tags["trial_id"] for run in found)

    server.start()
    try:
        with follower.follow([target], results, "tiny", messages.append):
            assert sweep_without_ray(path, data_root, results, limit=3) == 3
            while not list_runs():
                time.sleep(0.5)
            server.kill()
            assert sweep_without_ray(path, data_root, results) == 5
            while not messages:
                time.sleep(0.5)
        assert (
            messages[-1].endswith(f"`dirtune log tiny --to {target}` writes them") or "writes the rest" in messages[-1]
        )
        server.start()
        assert dirtune.log("tiny", to=str(target), results=results) >= 5
        assert dirtune.log("tiny", to=str(target), results=results) == 0
        assert list_runs() == sorted(read_statuses(open_study(results, "tiny")))
        assert len(list_runs()) == 8
    finally:
        server.kill()
