"""One driver per study: who sweeps it leaves a sign of life in its folder, and a second one is told who that is.

The sign is a small file that is written anew every few seconds, because a study's folder may lie where no lock reaches,
on another host's disk or in an object store. A driver that was killed is gone at once for its own host, which sees that
there is no such process, and after a minute for all others. Clocks of hosts must agree to within that minute.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage

HOLDER = "driver.json"
BEAT_SECONDS, LOST_SECONDS = 10.0, 60.0
SETTLE_SECONDS = 0.2


def refuse_if_held(folder: Storage) -> None:
    """See that no other driver sweeps a study.

    Raises:
        InputError: one does; it is named.
    """
    who = sweeper(folder)
    if who is None:
        return
    rule = f"is being swept by {who}; wait for it, or `dirtune stop` it and go on with `dirtune resume`"
    raise InputError(Fault(where=folder.path(), rule=rule))


def sweeper(folder: Storage) -> str | None:
    """Who sweeps a study now: process, host and since when; none: nobody does."""
    holder = _holder(folder)
    if holder is None or not _is_alive(holder):
        return None
    since = datetime.fromtimestamp(holder["started"]).isoformat(" ", "seconds")
    return f"process {holder['pid']} on {holder['host']} since {since}"


@contextmanager
def held(folder: Storage) -> Iterator[None]:
    """Be the one driver of a study as long as the block runs.

    Raises:
        InputError: another one is.
    """
    refuse_if_held(folder)
    now = time.time()
    mine = {"token": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid(), "started": now, "beat": now}
    _write(folder, mine)
    # Of two that began in the same moment the later one has it
    time.sleep(SETTLE_SECONDS)
    if (_holder(folder) or mine)["token"] != mine["token"]:
        refuse_if_held(folder)
    ended = threading.Event()
    beats = threading.Thread(target=_beat, args=(folder, mine, ended), daemon=True)
    beats.start()
    try:
        yield
    finally:
        ended.set()
        beats.join()
        # Nobody takes it for a sign of life when it is a minute old
        with contextlib.suppress(OSError):
            if (_holder(folder) or mine)["token"] == mine["token"]:
                folder.remove(HOLDER)


def _beat(folder: Storage, mine: dict[str, Any], ended: threading.Event) -> None:
    while not ended.wait(BEAT_SECONDS):
        # A storage that fails for a minute shall not end the sweep; the trials will say if it fails for longer.
        with contextlib.suppress(OSError):
            _write(folder, {**mine, "beat": time.time()})


def _write(folder: Storage, holder: dict[str, Any]) -> None:
    folder.write(HOLDER, json.dumps(holder).encode())


def _holder(folder: Storage) -> dict[str, Any] | None:
    try:
        holder: dict[str, Any] = json.loads(folder.read(HOLDER))
    except (FileNotFoundError, ValueError):
        return None
    return holder


def _is_alive(holder: dict[str, Any]) -> bool:
    if time.time() - holder["beat"] > LOST_SECONDS:
        return False
    return holder["host"] != socket.gethostname() or _runs(holder["pid"])


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's process
        return True
    return True
