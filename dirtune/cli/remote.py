"""What commands share that run on a cluster as jobs: their options, and following them to their end."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dirtune.cli.app import show

if TYPE_CHECKING:
    from dirtune.cluster.jobs import Job

Python = Annotated[str, typer.Option(help="With --address http://: the Python of the cluster, as its shell finds it.")]
Installed = Annotated[
    bool, typer.Option("--installed", help="Use the dirtune that is installed there, not the one of here.")
]
JobsAddress = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="http://host:8265 of a cluster, to run this there as a job: for a results root that is not in reach from here.",
    ),
]


def run_there(
    address: str,
    verb: str,
    *words: str,
    roots: Mapping[str, str | None],
    python: str = "python",
    installed: bool = False,
) -> NoReturn:
    """Run a verb on a cluster instead of here, show what it prints, and end with its exit code."""
    from dirtune.cluster.submission import Destination
    from dirtune.cluster.submission import run_there as call

    there = Destination(address=address, python=python, installed=installed)
    named = {option: root for option, root in roots.items() if root is not None}
    raise typer.Exit(followed(call(there, verb, *words, roots=named)))


def followed(job: Job) -> int:
    """Show a job's log until it ends, and give its exit code; Ctrl-C ends the showing alone."""
    from dirtune.cluster.jobs import follow

    try:
        return follow(job, _write)
    except KeyboardInterrupt:
        show(f"job {job.id} goes on; follow it again by `{job.follow_command}`")
        return 128 + signal.SIGINT


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
