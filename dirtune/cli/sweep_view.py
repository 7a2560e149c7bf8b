"""A running sweep in a terminal: a line for every trial that ended, and below them its arms, a bar and the time left.

Where there is no terminal only the lines are written: a log that one can read and search.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dirtune.cli.display import STATUSES, duration, of_recorded, plain_table

if TYPE_CHECKING:
    from dirtune.cli.sweep_progress import ArmTally, Tally
    from dirtune.training.trial import TrialJob
    from dirtune.tuning.plan.checks import Plan
    from dirtune.tuning.search.queue import Ending

# Lines of a terminal that are not for arms
ROOM = 8
# Characters
BAR = 40


class SweepView:
    """The view of a sweep; the methods are those of `dirtune.tuning.execution.driver.View`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self._tally: Tally | None = None
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            refresh_per_second=2,
            transient=True,
            auto_refresh=console.is_terminal,
        )

    def __enter__(self) -> SweepView:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def begin(self, plan: Plan) -> None:
        from dirtune.cli.sweep_progress import Tally

        self._tally = Tally(plan)
        self._say(f"{plan.study.name}: {plan.total} trials, {of_recorded(plan)}, {plan.concurrent} at once")

    def epoch(self, job: TrialJob, epoch: int, objective: float | None) -> None:
        self._counted.epoch(job, epoch)

    def ended(self, job: TrialJob, ending: Ending) -> None:
        tally = self._counted
        tally.ended(job, ending)
        value = ""
        if ending.objective is not None:
            value = f" {job.config.objective.name} {ending.objective:.4g}"
        self._say(
            f"[{tally.done:>{len(str(tally.planned))}}/{tally.planned}] {self._elapsed:5.0f} s  {job.arm}, "
            f"seed {job.config.seed}: {ending.status}{value}"
        )

    def recovering(self, job: TrialJob, reason: str) -> None:
        said = f"{reason}; on another worker it goes on from its checkpoint"
        self._say(f"{job.arm}, seed {job.config.seed}: {said}")

    def halved(self, job: TrialJob, reason: str) -> None:
        rows = job.as_run.recipe.micro_batch
        self._say(f"{job.arm}, seed {job.config.seed}: {reason}; again, {rows} rows at a time")

    def further(self, jobs: Sequence[TrialJob]) -> None:
        self._counted.further(jobs)
        seeds: dict[int, list[str]] = {}
        for job in jobs:
            seeds.setdefault(job.config.seed, []).append(job.arm)
        trials = "; ".join(f"seed {seed} of {', '.join(arms)}" for seed, arms in seeds.items())
        self._say(f"undecided, further trials: {trials}")

    def stopping(self, reason: str) -> None:
        self._say(f"{reason}: every running trial finishes its epoch, then the sweep ends; Ctrl-C ends it at once")

    @property
    def _counted(self) -> Tally:
        assert self._tally is not None, "a sweep begins before its trials"
        return self._tally

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _say(self, text: str) -> None:
        self._console.out(text, highlight=False)

    def _picture(self) -> RenderableType:
        if self._tally is None:
            return Text("starting")
        return Group(
            arms_table(self._tally, most=max(1, self._console.height - ROOM)), _bar(self._tally, self._elapsed)
        )


def arms_table(tally: Tally, *, most: int) -> Table:
    """Trials by arm and state, what trains first and what is done last; `most` arms, the others as a number."""
    table = plain_table()
    for column in ("arm", "planned", *STATUSES, "running", "best"):
        table.add_column(column, justify="left" if column == "arm" else "right", no_wrap=True)
    names = sorted(tally.arms, key=lambda arm: _urgency(tally.arms[arm]))
    for name in names[:most]:
        arm = tally.arms[name]
        running = ", ".join(f"seed {each.seed} {each.epoch}/{each.epochs}" for each in arm.running.values())
        table.add_row(
            Text(name),
            str(arm.planned),
            *(str(arm.ended[status]) for status in STATUSES),
            running,
            "-" if arm.best is None else f"{arm.best:.4g}",
        )
    if len(names) > most:
        table.add_row(Text(f"and {len(names) - most} more arms"))
    return table


def _urgency(arm: ArmTally) -> int:
    if arm.running:
        return 0
    return 1 if arm.left else 2


def _bar(tally: Tally, elapsed: float) -> RenderableType:
    left = tally.seconds_left(elapsed)
    said = f"{tally.done}/{tally.planned}  {duration(elapsed)}"
    said += "" if left is None else f", about {duration(left)} left"
    grid = Table.grid(padding=(0, 1))
    grid.add_row(ProgressBar(total=max(1, tally.planned), completed=tally.done, width=BAR), said)
    return grid
