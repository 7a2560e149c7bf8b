"""The commands that are about a cluster: is it fit for a sweep, and sweep a study there."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from dirtune.cli.app import Expect, StudyName, app, show

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


@app.command()
def doctor(
    address: Annotated[
        str | None,
        typer.Option(
            help="host:port of a cluster, auto, or http://host:8265 to look from inside of it, by a job; "
            "default: RAY_ADDRESS, else this machine alone."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Root of the data sets, which every node must see.")] = None,
    results: Annotated[str | None, typer.Option(help="Root of the results: every node writes and reads there.")] = None,
    dirtune: Annotated[str | None, typer.Option(help="The version of dirtune that must be there.")] = None,
    python: Python = "python",
    installed: Installed = False,
) -> None:
    """Look whether this machine or a cluster is fit for a sweep, and say what to do; exit code 1 if something must be done."""
    from dirtune.cluster.checks import has_problem

    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None and address.startswith(("http://", "https://")):
        words = [] if dirtune is None else ["--dirtune", dirtune]
        roots = {"--data": data, "--results": results}
        run_there(address, "doctor", *words, roots=roots, python=python, installed=installed)
    from dirtune.cli.display import observations_table
    from dirtune.cluster.doctor import doctor as call

    found = call(address, data=data, results=results, dirtune=dirtune)
    show(observations_table(found))
    raise typer.Exit(1 if has_problem(found) else 0)


@app.command()
def submit(
    study: StudyName,
    address: Annotated[str, typer.Option(help="Of the cluster's jobs: http://host:8265.")],
    data: Annotated[str, typer.Option(help="Root of the data sets as every node reaches it: a URL or absolute path.")],
    results: Annotated[str, typer.Option(help="Root of the results, likewise.")],
    no_follow: Annotated[bool, typer.Option("--no-follow", help="Return as soon as the job is sent.")] = False,
    python: Python = "python",
    installed: Installed = False,
    expect: Expect = None,
) -> None:
    """Sweep a study on a cluster, as a job that goes on when this terminal closes; Ctrl-C only stops following it.

    The study is checked here before anything is sent; there, every node first tries the roots. A cluster with a token needs
    RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH (a file) or RAY_AUTH_TOKEN. Submitting again completes the sweep. `dirtune status`
    and `dirtune stop` work from wherever the results root is in reach, and with --address on the cluster itself.
    """
    from dirtune.cluster.submission import submit as call

    job = call(study, address=address, data=data, results=results, python=python, installed=installed, expect=expect)
    show(f"sent as job {job.id}; follow it again by `{job.follow_command}`")
    raise typer.Exit(0 if no_follow else followed(job))
