"""Heartbeat lock: at most one driver per study folder.

The lock is a small file with a heartbeat, which its owner rewrites every few seconds, because a study folder may be where no
file lock works, on another host's disk or in an object store. On the owner's host, the lock is valid while its process
exists, whatever the clock says and however long it was paused; elsewhere, a heartbeat is valid for a minute, and clocks of
hosts must agree to within that minute.

A driver of another host may therefore take over from one that is only paused. So an owner reads the lock before each
heartbeat and before it records anything (`Lock.check`): once another driver has taken it, the sweep ends without a write.
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
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import RETRY_SECONDS, Storage
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
    try:
        since = datetime.fromtimestamp(lock["started"]).isoformat(" ", "seconds")
    # A year that no calendar has
    except (ValueError, OverflowError, OSError):
        since = "an unknown time"
    return f"process {lock['pid']} on {lock['host']} since {since}"


class LockLostError(InputError):
    """Another driver has taken the lock of a sweep, or the lock was removed."""


@dataclass(frozen=True)
class Lock:
    """A lock that this process has taken."""

    folder: Storage
    token: str

    def check(self) -> None:
        """Raise if this process does not own the lock any more.

        Raises:
            LockLostError: another driver has taken the lock, or it was removed.
            OSError: the lock cannot be read.
        """
        lock = _read_lock(self.folder)
        if lock is not None and lock["token"] == self.token:
            return
        owner = "a removed lock" if lock is None else f"process {lock['pid']} on {lock['host']}"
        rule = f"this driver was paused and has lost the study to {owner}; it has ended and records nothing more"
        raise LockLostError(Fault(where=self.folder.path(), rule=rule))


@contextmanager
def lock(folder: Storage) -> Iterator[Lock]:
    """Hold the lock of a study folder while the block runs.

    Raises:
        InputError: another driver owns the lock.
    """
    check_unlocked(folder)
    now = time.time()
    token = uuid.uuid4().hex
    own: dict[str, Any] = {
        "token": token,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process_start": _get_process_start(os.getpid()),
        "started": now,
        "heartbeat": now,
    }
    _write_lock(folder, own)
    # Two drivers that start at the same moment both write: the one that wrote last owns the lock
    time.sleep(SETTLE_SECONDS)
    if (_read_lock(folder) or own)["token"] != token:
        check_unlocked(folder)
    held = Lock(folder, token)
    released = threading.Event()

    def keep_alive() -> None:
        while not released.wait(HEARTBEAT_SECONDS):
            # A storage that fails for a minute must not end the sweep; writing the trials raises if it fails for longer
            with contextlib.suppress(OSError):
                try:
                    held.check()
                # The driver finds out before its next record
                except LockLostError:
                    return
                _write_lock(folder, {**own, "heartbeat": time.time()})

    thread = threading.Thread(target=keep_alive, daemon=True)
    thread.start()
    try:
        yield Lock(folder.with_retry(RETRY_SECONDS), token)
    finally:
        released.set()
        thread.join()
        # If this fails, the lock expires
        with contextlib.suppress(OSError):
            lock = _read_lock(folder)
            if lock is not None and lock["token"] == token:
                folder.remove(LOCK)


def _write_lock(folder: Storage, lock: dict[str, Any]) -> None:
    folder.write(LOCK, json.dumps(lock).encode())


def _read_lock(folder: Storage) -> dict[str, Any] | None:
    """Return the content of the lock, or None if there is none, or no driver has written it."""
    try:
        lock = json.loads(folder.read(LOCK))
    # ValueError: not JSON, such as a file that a full disk has cut short; RecursionError: nested too deeply
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    forms = {"token": str, "host": str, "pid": int, "started": int | float, "heartbeat": int | float}
    is_valid = isinstance(lock, dict) and all(isinstance(lock.get(key), form) for key, form in forms.items())
    return lock if is_valid else None


def _is_alive(lock: dict[str, Any]) -> bool:
    """Return True if the process exists, on its own host, or has a recent heartbeat, on another."""
    if lock["host"] != socket.gethostname():
        # The clock of a host that is far ahead must not lock the folder for good
        age: float = time.time() - lock["heartbeat"]
        return abs(age) <= LOST_SECONDS
    try:
        os.kill(lock["pid"], 0)
    # OverflowError: no process has such a number
    except (ProcessLookupError, OverflowError):
        return False
    # PermissionError: the process exists and belongs to another user
    except PermissionError:
        pass
    start, before = _get_process_start(lock["pid"]), lock.get("process_start")
    # Another process may have got the number of a driver that was killed
    return before is None or start == before


def _get_process_start(pid: int) -> str | None:
    """Return when a process started, in ticks since its host did; None if it has ended or the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # A zombie has ended, and its parent has not asked for it
    return None if fields[0] == "Z" else fields[19]
