"""One driver at a time: `pytest tests/tuning/folder/test_lock.py`."""

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
from dirtune.tuning.folder import lock as holder
from dirtune.tuning.folder.lock import HOLDER, LOST_SECONDS, held, refuse_if_held


def _sign(folder: Path, **changes: object) -> Storage:
    sign = {"token": "other", "host": "elsewhere", "pid": 1, "started": 1.7e9, "beat": time.time()}
    (folder / HOLDER).write_text(json.dumps(sign | changes))
    return Storage.open(folder)


def test_the_second_driver_is_told_who_the_first_is_and_comes_in_afterwards(tmp_path: Path) -> None:
    folder = Storage.open(tmp_path / "study")
    with held(folder):
        who = rf"is being swept by process {os.getpid()} on {socket.gethostname()} since \d{{4}}-"
        with pytest.raises(InputError, match=who), held(folder):
            pass
        refused_leaves = folder.exists(HOLDER)
    assert refused_leaves
    assert not folder.exists(HOLDER)
    with held(folder):
        pass


def test_a_driver_on_another_host_is_believed_for_a_minute(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="process 1 on elsewhere"):
        refuse_if_held(_sign(tmp_path))
    refuse_if_held(_sign(tmp_path, beat=time.time() - LOST_SECONDS - 1))


def test_a_driver_of_this_host_that_is_dead_holds_nothing(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = _sign(tmp_path, host=socket.gethostname(), pid=dead.pid)
    with held(folder):
        assert json.loads(folder.read(HOLDER))["pid"] == os.getpid()


def test_a_damaged_sign_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / HOLDER).write_text("{")
    refuse_if_held(Storage.open(tmp_path))


def test_the_sign_of_life_is_written_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holder, "BEAT_SECONDS", 0.01)
    folder = Storage.open(tmp_path)
    with held(folder):
        first, deadline = json.loads(folder.read(HOLDER))["beat"], time.monotonic() + 60
        while json.loads(folder.read(HOLDER))["beat"] == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_sign_that_another_driver_has_put_is_left_alone(tmp_path: Path) -> None:
    with held(Storage.open(tmp_path)):
        _sign(tmp_path)
    assert (tmp_path / HOLDER).exists()
