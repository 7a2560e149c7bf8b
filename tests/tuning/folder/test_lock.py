"""Run with `pytest tests/tuning/folder/test_lock.py`."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.tuning.folder import lock as module
from dirtune.tuning.folder.layout import LOCK
from dirtune.tuning.folder.lock import LOST_SECONDS, check_unlocked, lock


def write_lock(folder: Path, **changes: object) -> Storage:
    content = {"token": "other", "host": "elsewhere", "pid": 1, "started": 1.7e9, "heartbeat": time.time()}
    (folder / LOCK).write_text(json.dumps(content | changes))
    return Storage.open(folder)


def test_a_second_driver_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path / "study")
    with lock(folder):
        owner = rf"is being swept by process {os.getpid()} on {socket.gethostname()} since \d{{4}}-"
        with pytest.raises(InputError, match=owner), lock(folder):
            pass
        is_locked = folder.exists(LOCK)
    assert is_locked
    assert not folder.exists(LOCK)
    with lock(folder):
        pass


def test_a_heartbeat_of_another_host_counts_for_a_minute(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        check_unlocked(write_lock(tmp_path))
    check_unlocked(write_lock(tmp_path, heartbeat=time.time() - LOST_SECONDS - 1))


def test_a_dead_process_of_this_host_owns_no_lock(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = write_lock(tmp_path, host=socket.gethostname(), pid=dead.pid)
    with lock(folder):
        assert json.loads(folder.read(LOCK))["pid"] == os.getpid()


def test_a_damaged_lock_has_no_owner(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("{")
    check_unlocked(Storage.open(tmp_path))


def test_the_heartbeat_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    folder = Storage.open(tmp_path)
    with lock(folder):
        first, deadline = json.loads(folder.read(LOCK))["heartbeat"], time.monotonic() + 60
        while json.loads(folder.read(LOCK))["heartbeat"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_the_lock_of_another_driver_is_not_removed(tmp_path: Path) -> None:
    with lock(Storage.open(tmp_path)):
        write_lock(tmp_path)
    assert (tmp_path / LOCK).exists()


def test_a_process_of_this_host_owns_its_lock_however_long_it_was_paused(tmp_path: Path) -> None:
    with lock(Storage.open(tmp_path)):
        own = json.loads((tmp_path / LOCK).read_text())
        folder = write_lock(tmp_path, **{**own, "heartbeat": time.time() - 10 * LOST_SECONDS})
        with pytest.raises(InputError, match=f"process {os.getpid()} on"):
            check_unlocked(folder)
        # Another process that has got the number since
        check_unlocked(write_lock(tmp_path, **{**own, "process_start": "1"}))


def test_a_heartbeat_of_the_future_does_not_lock_for_good(tmp_path: Path) -> None:
    check_unlocked(write_lock(tmp_path, heartbeat=time.time() + LOST_SECONDS + 9))


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"token": 1}', "[" * 100_000])
def test_a_torn_or_oddly_typed_lock_has_no_owner(tmp_path: Path, content: str) -> None:
    (tmp_path / LOCK).write_text(content)
    with lock(Storage.open(tmp_path)) as held:
        held.check()


def test_a_beat_does_not_overwrite_the_lock_of_another_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.01)
    with lock(Storage.open(tmp_path)) as held:
        write_lock(tmp_path)
        time.sleep(0.1)
        assert json.loads((tmp_path / LOCK).read_text())["token"] == "other"
        with pytest.raises(InputError, match="has lost the study to process 1 on elsewhere"):
            held.check()
        (tmp_path / LOCK).unlink()
        with pytest.raises(InputError, match="has lost the study to a removed lock"):
            held.check()
