"""Progress of long work on standard error: a bar on a terminal, dated lines in a pipe or log; nothing of work below a second."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import Event, Thread

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

SECONDS_BEFORE = 1.0
"""Time after which progress is shown."""
SECONDS_BETWEEN = 10.0
"""Time between two lines where there is no terminal."""
COUNTS = (MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
BYTES = (DownloadColumn(), TransferSpeedColumn())


@contextmanager
def show_progress(
    description: str, total: int | None = None, *, done: int = 0, is_bytes: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show the progress of the block; yield a function that receives the number of further things done.

    Args:
        description: what is done.
        total: number of things to do; None means that it is unknown.
        done: number of things that were done before.
        is_bytes: the things are bytes.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), *(BYTES if is_bytes else COUNTS))
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task(description, total=total, completed=done)
    has_ended = Event()

    def show() -> None:
        seconds = SECONDS_BEFORE
        while not has_ended.wait(seconds):
            if console.is_terminal:
                bar.start()
                return
            completed = bar.tasks[0].completed
            state = f": {completed:,.0f}" if total or completed else " ..."
            state += f" of {total:,}" if total else ""
            line = f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  {description}{state}{' bytes' * is_bytes}"
            console.out(line, highlight=False)
            seconds = SECONDS_BETWEEN

    # A thread, so that work without any steps is shown as well.
    watcher = Thread(target=show, daemon=True)
    watcher.start()
    try:
        yield lambda number: bar.advance(task, number)
    finally:
        has_ended.set()
        watcher.join()
        # Without a start it would still end a line.
        if bar.live.is_started:
            bar.stop()
