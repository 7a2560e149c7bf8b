"""Asking a running sweep to end: by a file in the study's folder, or by a signal to its driver.

The file is the one channel, because a study's folder is what all shells, hosts and workers of a sweep have in common. Every
worker looks for it when an epoch has ended; one that finds it writes a checkpoint, so that nothing is lost, and hands its
trial back. The driver looks every second, starts nothing more, and ends when all workers have handed back. A signal makes
the driver write the file itself. The file tells nothing afterwards: it is removed when a sweep begins and when it ends.
"""

from __future__ import annotations

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
from dirtune.io.storage import Storage, remove_credentials
from dirtune.process import defer_first_signal
from dirtune.results.analysis.status import sweep_folder
from dirtune.tuning.folder.lock import sweeper

STOP = "stop.json"
LOOK_SECONDS = 1.0


def stop(study: str, *, results: str | Path = "results") -> str:
    """Ask a running sweep, also one of another host, to finish the epoch of every running trial, write everything and end.

    Returns at once, with who has been asked; the sweep ends when its slowest epoch has. `resume` goes on without loss.

    Raises:
        InputError: there is no sweep of that name below `results`, or nobody runs it; those that run are named.
    """
    folder = sweep_folder(study, results=results)
    who = sweeper(folder)
    if who is None:
        running = "; ".join(_running(Storage.open(results))) or "nothing"
        rule = (
            f"is not being swept, so there is nothing to stop; running below {remove_credentials(results)}: {running}"
        )
        raise InputError(Fault(where=folder.path(), rule=rule))
    _ask(folder)
    return who


def is_asked(folder: Storage) -> bool:
    """Whether the sweep of a study shall end; a storage that cannot tell just now is asked again after the next epoch."""
    with contextlib.suppress(OSError):
        return folder.exists(STOP)
    return False


@dataclass
class StopWatch:
    """The driver's look at whether its sweep shall end."""

    folder: Storage
    signaled: Callable[[], signal.Signals | None] = lambda: None
    reason: str | None = None
    """Why the sweep ends before its agenda does; none: it goes on."""
    _looked: float = float("-inf")

    @property
    def signal(self) -> signal.Signals | None:
        """The signal that asked, if one did."""
        return self.signaled()

    def look(self) -> None:
        """Ask the signals, and once in a second the folder; call it as often as you like."""
        self._look(every=LOOK_SECONDS)

    def look_now(self) -> None:
        """Ask the signals and the folder, as when a worker has just found out that it was asked."""
        self._look(every=0.0)

    def _look(self, *, every: float) -> None:
        if self.reason is not None:
            return
        if (number := self.signaled()) is not None:
            self.reason = number.name
            _ask(self.folder)
        elif time.monotonic() - self._looked >= every:
            self.reason = "`dirtune stop`" if is_asked(self.folder) else None
            self._looked = time.monotonic()


@contextmanager
def stoppable(folder: Storage) -> Iterator[StopWatch]:
    """Be a sweep that can be asked to end; what an earlier one was asked is forgotten, before and afterwards."""
    folder.remove(STOP)
    try:
        with defer_first_signal(signal.SIGINT, signal.SIGTERM) as signaled:
            yield StopWatch(folder, signaled)
    finally:
        # The next sweep removes it, too
        with contextlib.suppress(OSError):
            folder.remove(STOP)


def _ask(folder: Storage) -> None:
    asker = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time()}
    folder.write(STOP, json.dumps(asker).encode())


def _running(root: Storage) -> Iterator[str]:
    for name in root.list_folders():
        if (who := sweeper(root.get_folder(name))) is not None:
            yield f"{name} ({who})"
