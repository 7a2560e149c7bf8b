"""Run with `pytest tests/tuning/folder/test_stop_request.py`; requests to a real sweep are tested in `test_stopped_sweep`."""

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
from dirtune.tuning.folder.layout import STOP_REQUEST
from dirtune.tuning.folder.lock import lock
from dirtune.tuning.folder.stop_request import StopRequest, is_stop_requested, stop, watch_for_stop


def make_sweep(root: Path, name: str) -> Storage:
    folder = Storage.open(root / name)
    folder.write(RESOLVED_STUDY, b"{}")
    return folder


def test_a_running_sweep_gets_the_request_and_its_driver_is_returned(tmp_path: Path) -> None:
    folder = make_sweep(tmp_path, "study")
    with lock(folder), watch_for_stop(folder) as request:
        request.check()
        assert request.reason is None
        assert not is_stop_requested(folder)
        owner = stop("study", results=tmp_path)
        assert owner.startswith(f"process {os.getpid()} on {socket.gethostname()} since ")
        assert is_stop_requested(folder)
        # A second later
        request._checked_at = float("-inf")
        request.check()
        assert request.reason == "`dirtune stop`"
        assert request.signal is None
    assert not is_stop_requested(folder)


def test_an_idle_sweep_gets_no_request_and_running_ones_are_listed(tmp_path: Path) -> None:
    idle, busy = make_sweep(tmp_path, "idle"), make_sweep(tmp_path, "busy")
    with pytest.raises(InputError, match=r"idle: is not being swept.*running below .*: nothing$"):
        stop("idle", results=tmp_path)
    with lock(busy), pytest.raises(InputError, match=rf"busy \(process {os.getpid()} on "):
        stop("idle", results=tmp_path)
    assert idle.list_files() == [RESOLVED_STUDY]


def test_an_unknown_sweep_is_refused_and_known_ones_listed(tmp_path: Path) -> None:
    make_sweep(tmp_path, "quickstart")
    with pytest.raises(InputError, match=r"no sweep of this name, got 'quikstart'.*did you mean"):
        stop("quikstart", results=tmp_path)


def test_a_request_to_an_earlier_sweep_is_removed(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path)
    folder.write(STOP_REQUEST, b"{}")
    with watch_for_stop(folder) as request:
        request.check()
        assert request.reason is None
        assert not is_stop_requested(folder)


def test_the_folder_is_checked_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks: list[str] = []
    monkeypatch.setattr(module, "is_stop_requested", lambda folder: bool(checks.append(folder.root)))
    request = StopRequest(Storage.open(tmp_path))
    for _ in range(100):
        request.check()
    assert len(checks) <= 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_writes_the_request_and_a_second_one_raises(tmp_path: Path, number: signal.Signals) -> None:
    folder, before = Storage.open(tmp_path), signal.getsignal(number)
    with watch_for_stop(folder) as request:
        signal.raise_signal(number)
        request.check()
        assert (request.reason, request.signal) == (number.name, number)
        assert is_stop_requested(folder)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert not is_stop_requested(folder)
    assert signal.getsignal(number) is before


def test_a_storage_error_counts_as_no_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Storage.open(tmp_path)
    folder.write(STOP_REQUEST, b"{}")
    with monkeypatch.context() as broken:
        broken.setattr(Storage, "exists", lambda *_: (_ for _ in ()).throw(OSError("no network")))
        assert not is_stop_requested(folder)
    assert is_stop_requested(folder)
