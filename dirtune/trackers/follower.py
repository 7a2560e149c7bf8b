"""Follower of a sweep: a process per tracker that writes trials soon after they are recorded.

A process of its own, because a server may block for minutes and a tracker's package may do what it likes with signals and
threads; the sweep only starts it, shows its messages, and waits a limited time for it at the end. Its standard input is a
line with its task and then stays open while the sweep runs: a sweep that is killed closes it, too. What it could not write
is written by `dirtune log`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import TextIO

from dirtune.io.storage import Storage
from dirtune.trackers.logging import StudyLog, describe_error, open_tracker
from dirtune.trackers.target import Target

POLL_SECONDS = 2.0
"""Time between two looks at the results."""
FINISH_SECONDS = 30.0
"""Time that a follower has at the end of the sweep for what is not written yet."""
NICENESS = 10
"""The trials come first."""

OnMessage = Callable[[str], None]


@contextmanager
def follow(targets: Sequence[Target], results: str | Path, study: str, on_message: OnMessage) -> Iterator[None]:
    """Log a study to trackers while the block runs.

    Args:
        targets: trackers whose packages are installed.
        results: root of the results, a path or URL.
        study: name of the study's folder, which need not exist yet.
        on_message: called with a line of text, from another thread, when a tracker is lost or found again.
    """
    with ExitStack() as stack:
        for target in targets:
            stack.enter_context(_follow_one(target, results, study, on_message))
        yield


@contextmanager
def _follow_one(target: Target, results: str | Path, study: str, on_message: OnMessage) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        # Ctrl-C is for the sweep, which ends this one when it has recorded its last trial.
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # Not as arguments, which every user of the machine can list: a location may contain credentials.
    process.stdin.write(json.dumps({"target": target, "results": str(results), "study": study}) + "\n")
    process.stdin.flush()
    reader = Thread(target=_pass_on, args=(process.stdout, on_message), daemon=True)
    reader.start()
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            on_message(
                f"{target}: not finished after {FINISH_SECONDS:.0f} s; `dirtune log {study} --to {target}` writes the rest"
            )
        if process.poll():
            on_message(f"{target}: ended with code {process.returncode}; `dirtune log {study} --to {target}` says why")
        if process.poll() is None:
            # With the processes that the tracker's package has started
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(1)
        process.stdout.close()


def _pass_on(lines: TextIO, on_message: OnMessage) -> None:
    # Closed while a process of the tracker's package still had it open
    with contextlib.suppress(ValueError):
        for line in lines:
            on_message(line.rstrip("\n"))


def run(target: Target, folder: Storage, study: str, is_over: Event, on_message: OnMessage) -> None:
    """Bring the log of a study up to date until the sweep is over, and once more then.

    Args:
        target: the tracker.
        folder: the study's folder.
        study: its name.
        is_over: is set when the sweep has ended.
        on_message: called with a line when the tracker is lost, when it is found again, and if trials are missing in the end.
    """
    log: StudyLog | None = None
    tracker, is_lost = None, False
    while True:
        # Before the pass: trials recorded during it would be left out after the last one.
        is_last = is_over.is_set()
        try:
            tracker = tracker or open_tracker(target, study)
            log = log or StudyLog(folder, tracker)
            log.update()
            if is_lost:
                on_message(f"{target}: back; nothing is missing")
            is_lost = False
        # Whatever the tracker's package raises, or the results folder: the next pass tries again.
        except Exception as error:
            if not is_lost:
                on_message(f"{target}: {describe_error(error)}; its trials are written when it is back")
            is_lost = True
        if is_last:
            break
        is_over.wait(POLL_SECONDS)
    if is_lost:
        on_message(f"{target}: trials are missing there; `dirtune log {study} --to {target}` writes them")
    if tracker is not None:
        tracker.close()


def main() -> None:
    """Run the follower that standard input describes, until it is closed."""
    os.nice(NICENESS)
    task = json.loads(sys.stdin.readline())
    # Packages print what they like; only messages go to the sweep.
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    is_over = Event()

    def wait_for_end() -> None:
        sys.stdin.read()
        is_over.set()

    Thread(target=wait_for_end, daemon=True).start()

    def send(message: str) -> None:
        # The sweep may have been killed.
        with contextlib.suppress(BrokenPipeError):
            print(message, file=messages)

    folder = Storage.open(task["results"]).get_folder(task["study"])
    run(Target(*task["target"]), folder, task["study"], is_over, send)


if __name__ == "__main__":
    main()
