"""Request to stop a running sweep: by a file in the study folder, or by a signal to its driver.

The file is the one channel, because all shells, hosts and workers of a sweep can reach the study folder. Every worker checks
it after each epoch; if it exists, the worker writes a checkpoint, so that nothing is lost, and hands its trial back. The
driver checks it every second, starts no more trials, and ends when all workers have handed back. On a signal, the driver
writes the file itself. The file has no meaning outside a sweep: it is removed when a sweep begins and when it ends.
"""

import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.storage import Storage
from dirtune.process import defer_first_signal
from dirtune.results.analysis.status import open_sweep
from dirtune.tuning.folder.layout import STOP_REQUEST
from dirtune.tuning.folder.lock import find_lock_owner

CHECK_SECONDS = 1.0
"""Time between two checks of the folder by the driver."""


def stop(study: str, *, results: str | Path = "results") -> str:
    """Request a running sweep to stop after the current epoch of every trial; the sweep may run on another host.

    Return process, host and start of its driver, without waiting for the end. `resume` continues without loss.

    Raises:
        InputError: there is no sweep of that name below `results`, or it is not running; the error lists the running ones.
    """
    folder = open_sweep(study, results=results)
    owner = find_lock_owner(folder)
    if owner is None:
        root = Storage.open(results)
        owners = {name: find_lock_owner(root.get_folder(name)) for name in root.list_folders()}
        running = "; ".join(f"{name} ({each})" for name, each in owners.items() if each is not None) or "nothing"
        where = remove_credentials(results)
        rule = f"is not being swept, so there is nothing to stop; running below {where}: {running}"
        raise InputError(Fault(where=folder.path(), rule=rule))
    _write_request(folder)
    return owner


def is_stop_requested(folder: Storage) -> bool:
    """Return True if a stop was requested. A storage error counts as no; the next epoch checks again."""
    with contextlib.suppress(OSError):
        return folder.exists(STOP_REQUEST)
    return False


@dataclass
class StopRequest:
    """Request to stop as seen by the driver, which polls it."""

    folder: Storage
    get_signal: Callable[[], signal.Signals | None] = lambda: None
    """Returns the signal that was received, if any."""
    reason: str | None = None
    """Source of the request; None if there is none."""
    _checked_at: float = float("-inf")

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that requested the stop, if any."""
        return self.get_signal()

    def check(self) -> None:
        """Check for a signal and, if the last check is a second ago, the folder; cheap enough for every event."""
        self._check(every=CHECK_SECONDS)

    def check_now(self) -> None:
        """Check for a signal and the folder, such as when a worker has handed its trial back."""
        self._check(every=0.0)

    def _check(self, *, every: float) -> None:
        if self.reason is not None:
            return
        if (number := self.get_signal()) is not None:
            self.reason = number.name
            # The signal reaches this process only; the workers look for the file
            _write_request(self.folder)
        elif time.monotonic() - self._checked_at >= every:
            self.reason = "`dirtune stop`" if is_stop_requested(self.folder) else None
            self._checked_at = time.monotonic()


@contextmanager
def watch_for_stop(folder: Storage) -> Iterator[StopRequest]:
    """Watch for signals and for the file of a request; remove the file on entry and on exit."""
    folder.remove(STOP_REQUEST)
    try:
        with defer_first_signal(signal.SIGINT, signal.SIGTERM) as get_signal:
            yield StopRequest(folder, get_signal)
    finally:
        # If this fails, the next sweep removes the file
        with contextlib.suppress(OSError):
            folder.remove(STOP_REQUEST)


def _write_request(folder: Storage) -> None:
    source = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
    folder.write(STOP_REQUEST, json.dumps(source).encode())
