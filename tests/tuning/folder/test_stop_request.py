"""Asking a sweep to end, without one: `pytest tests/tuning/folder/test_stop_request.py`; with one it is in `test_stopped_sweep`."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.results.records.names import RESOLVED_STUDY
from dirtune.tuning.folder import stop_request as module
from dirtune.tuning.folder.lock import held
from dirtune.tuning.folder.stop_request import STOP, StopWatch, is_asked, stop, stoppable


def sweep_of(root: Path, name: str) -> Storage:
    folder = Storage.open(root / name)
    folder.write(RESOLVED_STUDY, b"{}")
    return folder


def test_a_running_sweep_is_asked_and_its_driver_named(tmp_path: Path) -> None:
    folder = sweep_of(tmp_path, "study")
    with held(folder), stoppable(folder) as watch:
        watch.look()
        assert watch.reason is None
        assert not is_asked(folder)
        who = stop("study", results=tmp_path)
        assert who.startswith(f"process {os.getpid()} on {socket.gethostname()} since ")
        assert is_asked(folder)
        # A second later
        watch._looked = float("-inf")
        watch.look()
        assert watch.reason == "`dirtune stop`"
        assert watch.signal is None
    assert not is_asked(folder)


def test_where_nothing_runs_nothing_is_written_and_what_runs_is_said(tmp_path: Path) -> None:
    idle, busy = sweep_of(tmp_path, "idle"), sweep_of(tmp_path, "busy")
    with pytest.raises(InputError, match=r"idle: is not being swept.*running below .*: nothing$"):
        stop("idle", results=tmp_path)
    with held(busy), pytest.raises(InputError, match=rf"busy \(process {os.getpid()} on "):
        stop("idle", results=tmp_path)
    assert idle.list_files() == [RESOLVED_STUDY]


def test_an_unknown_sweep_is_said_with_those_that_there_are(tmp_path: Path) -> None:
    sweep_of(tmp_path, "quickstart")
    with pytest.raises(InputError, match=r"no sweep of this name, got 'quikstart'.*did you mean"):
        stop("quikstart", results=tmp_path)


def test_what_an_earlier_sweep_was_asked_is_forgotten(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    folder.write(STOP, b"{}")
    with stoppable(folder) as watch:
        watch.look()
        assert watch.reason is None
        assert not is_asked(folder)


def test_the_folder_is_looked_at_once_in_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    monkeypatch.setattr(module, "is_asked", lambda folder: bool(looks.append(folder.root)))
    watch = StopWatch(Storage.open(tmp_path))
    for _ in range(100):
        watch.look()
    assert len(looks) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_all_workers_by_the_file_and_a_second_one_raises(tmp_path: Path, number: signal.Signals) -> None:
    folder, before = Storage.open(tmp_path), signal.getsignal(number)
    with stoppable(folder) as watch:
        signal.raise_signal(number)
        watch.look()
        assert (watch.reason, watch.signal) == (number.name, number)
        assert is_asked(folder)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not is_asked(folder)
    assert signal.getsignal(number) is before


def test_a_storage_that_cannot_tell_is_asked_again_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Storage.open(tmp_path)
    folder.write(STOP, b"{}")
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "exists", lambda *_: (_ for _ in ()).throw(OSError("no network")))
        assert not is_asked(folder)
    assert is_asked(folder)
