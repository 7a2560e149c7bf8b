"""Heartbeat lock: at most one driver per study folder.

The lock is a small file with a heartbeat, which its owner rewrites every few seconds, because a study folder may be where no
file lock works, on another host's disk or in an object store. The lock of a killed driver expires at once on its own host,
where its process no longer exists, and after a minute on other hosts. Clocks of hosts must agree to within that minute.
"""

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
from dirtune.tuning.folder.layout import LOCK

HEARTBEAT_SECONDS = 10.0
LOST_SECONDS = 60.0
"""Age of a heartbeat after which the driver counts as dead."""
SETTLE_SECONDS = 0.2


def check_unlocked(folder: Storage) -> None:
    """Raise if another driver owns the lock.

    Raises:
        InputError: the study is being swept; the error names the driver.
    """
    owner = find_lock_owner(folder)
    if owner is None:
        return
    rule = f"is being swept by {owner}; wait for it, or `dirtune stop` it and go on with `dirtune resume`"
    raise InputError(Fault(where=folder.path(), rule=rule))


def find_lock_owner(folder: Storage) -> str | None:
    """Return process, host and start of the driver that sweeps a study, or None if no driver does."""
    lock = _read_lock(folder)
    if lock is None or not _is_alive(lock):
        return None
    since = datetime.fromtimestamp(lock["started"]).isoformat(" ", "seconds")
    return f"process {lock['pid']} on {lock['host']} since {since}"


@contextmanager
def lock(folder: Storage) -> Iterator[None]:
    """Hold the lock of a study folder while the block runs.

    Raises:
        InputError: another driver owns the lock.
    """
    check_unlocked(folder)
    now = time.time()
    own = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": now,
        "heartbeat": now,
    }
    _write_lock(folder, own)
    # Two drivers that start at the same moment both write: the one that wrote last owns the lock
    time.sleep(SETTLE_SECONDS)
    if (_read_lock(folder) or own)["token"] != own["token"]:
        check_unlocked(folder)
    released = threading.Event()

    def keep_alive() -> None:
        while not released.wait(HEARTBEAT_SECONDS):
            # A storage that fails for a minute must not end the sweep; writing the trials raises if it fails for longer
            with contextlib.suppress(OSError):
                _write_lock(folder, {**own, "heartbeat": time.time()})

    thread = threading.Thread(target=keep_alive, daemon=True)
    thread.start()
    try:
        yield
    finally:
        released.set()
        thread.join()
        # If this fails, the lock expires
        with contextlib.suppress(OSError):
            if (_read_lock(folder) or own)["token"] == own["token"]:
                folder.remove(LOCK)


def _write_lock(folder: Storage, lock: dict[str, Any]) -> None:
    folder.write(LOCK, json.dumps(lock).encode())


def _read_lock(folder: Storage) -> dict[str, Any] | None:
    try:
        lock: dict[str, Any] = json.loads(folder.read(LOCK))
    # ValueError: not JSON, such as a file that a full disk has cut short
    except (FileNotFoundError, ValueError):
        return None
    return lock


def _is_alive(lock: dict[str, Any]) -> bool:
    """Return True if the heartbeat is recent and, on this host, the process exists."""
    if time.time() - lock["heartbeat"] > LOST_SECONDS:
        return False
    if lock["host"] != socket.gethostname():
        return True
    try:
        os.kill(lock["pid"], 0)
    except ProcessLookupError:
        return False
    # PermissionError: the process exists and belongs to another user
    except PermissionError:
        return True
    return True
