"""Live view of a sweep: a line for every trial that ended and, in a terminal, a table of arms and a bar below them.

Without a terminal only the lines are written, each with its date, as a log that can be searched.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dirtune.cli.display import STATUSES, format_duration, format_recorded, make_table
from dirtune.cli.sweep_progress import SweepProgress
from dirtune.tuning.interface import View
from dirtune.wording import format_count

if TYPE_CHECKING:
    from dirtune.training.trial import TrialJob
    from dirtune.tuning.folder.records import RecordedTrial, TrialOutcome
    from dirtune.tuning.plan.plan import Plan

OTHER_LINES = 8
"""Lines of a terminal that are not for arms: log lines, the table's frame, the bar."""
BAR_WIDTH = 40
"""Characters."""


class SweepView(View):
    """Live view of a running sweep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._progress: SweepProgress | None = None
        self._live = Live(
            console=console,
            get_renderable=self._render,
            # Twice a second is enough for epochs, and costs the driver little.
            refresh_per_second=2,
            # The table is removed at the end: the lines of the trials remain.
            transient=True,
            auto_refresh=console.is_terminal,
        )

    def __enter__(self) -> SweepView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def begin(self, plan: Plan, recorded: Sequence[RecordedTrial] = ()) -> None:
        self._progress = SweepProgress(plan, recorded)
        self._print(
            f"{plan.study.name}: {format_count(plan.total_trials, 'trial')}, {format_recorded(plan)}, {plan.concurrency} at once"
        )

    def report_activity(self, activity: str) -> None:
        self._print(activity)

    def report_epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        self._get_progress().update_epoch(job, epoch)

    def report_end(self, job: TrialJob, outcome: TrialOutcome) -> None:
        progress = self._get_progress()
        progress.add_outcome(job, outcome)
        value = ""
        if outcome.objective is not None:
            value = f" {job.config.objective.name} {outcome.objective:.4g}"
        self._print(
            f"[{progress.done:>{len(str(progress.total))}}/{progress.total}] {self._get_elapsed():5.0f} s  {job.arm}, "
            f"seed {job.config.seed}: {outcome.status}{value}"
        )

    def report_worker_loss(self, job: TrialJob, reason: str) -> None:
        self._print(f"{job.arm}, seed {job.config.seed}: {reason}; resumes from its checkpoint on another worker")

    def report_set_aside(self, gpu: str) -> None:
        self._print(f"{gpu} keeps failing and gets no more trials; `dirtune doctor` tests the GPUs of every node")

    def report_new_trials(self, jobs: Sequence[TrialJob]) -> None:
        self._get_progress().add_trials(jobs)
        # Arms that are compared get the same new seeds, so that one line by seed is short.
        seeds: dict[int, list[str]] = {}
        for job in jobs:
            seeds.setdefault(job.config.seed, []).append(job.arm)
        trials = "; ".join(f"seed {seed} of {', '.join(arms)}" for seed, arms in seeds.items())
        self._print(f"still open, added trials: {trials}")

    def report_stop(self, reason: str) -> None:
        self._print(f"{reason}: the sweep ends after the current epoch of every trial; Ctrl-C ends it at once")

    def _get_progress(self) -> SweepProgress:
        assert self._progress is not None, "a sweep begins before its trials"
        return self._progress

    def _get_elapsed(self) -> float:
        return time.monotonic() - self._started

    def _print(self, text: str) -> None:
        # A log is read later; a terminal is watched.
        date = "" if self._console.is_terminal else f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S}  "
        # `out` neither folds nor cuts: a line of a log remains one line.
        self._console.out(f"{date}{text}", highlight=False)

    def _render(self) -> RenderableType:
        if self._progress is None:
            return Text("starting")
        progress, elapsed = self._progress, self._get_elapsed()
        left = progress.estimate_seconds_left(elapsed)
        text = f"{progress.done}/{progress.total}  {format_duration(elapsed)}"
        text += "" if left is None else f", about {format_duration(left)} left"
        bar = Table.grid(padding=(0, 1))
        bar.add_row(ProgressBar(total=max(1, progress.total), completed=progress.done, width=BAR_WIDTH), text)
        return Group(format_arms(progress, most=max(1, self._console.height - OTHER_LINES)), bar)


def format_arms(progress: SweepProgress, *, most: int) -> Table:
    """Return the table of trials by arm and status: arms with running trials first, finished ones last.

    Args:
        progress: of the sweep.
        most: arms to show; the number of the others is the last row.
    """
    table = make_table()
    for column in ("arm", "planned", *STATUSES, "running", "best"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    names = sorted(progress.arms, key=lambda name: (not progress.arms[name].running, not progress.arms[name].missing))
    for name in names[:most]:
        arm = progress.arms[name]
        running = ", ".join(f"seed {each.seed} {each.epoch}/{each.epochs}" for each in arm.running.values())
        table.add_row(
            name,
            str(arm.trials),
            *(str(arm.counts[status]) for status in STATUSES),
            running,
            "-" if arm.best is None else f"{arm.best:.4g}",
        )
    if len(names) > most:
        table.add_row(f"and {len(names) - most} more arms")
    return table
