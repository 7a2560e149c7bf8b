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
