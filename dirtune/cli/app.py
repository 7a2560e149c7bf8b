"""The application that the commands register with, the options that several share, and printing."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="dirtune",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Ablation sweeps for deep imbalanced regression.",
)

DataRoot = Annotated[str, typer.Option("--data", help="Root of the ingested data sets: a path or URL.")]
ResultsRoot = Annotated[str, typer.Option("--results", help="Root of the results: a path or URL.")]
StudyName = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.")]
Expect = Annotated[
    str | None,
    typer.Option(help="cluster.yaml, as `ray up` reads it: nodes that its autoscaler may start are counted, too."),
]
SweepName = Annotated[str, typer.Argument(help="The name of a study that has been swept.")]


def show(*things: Any) -> None:
    """Print texts and tables, as wide as the terminal."""
    screen = console()
    for thing in things:
        screen.print(thing, markup=False, emoji=False, highlight=False, soft_wrap=isinstance(thing, str))


def console() -> Any:
    """The `rich` console of standard output."""
    from rich.console import Console

    from dirtune.results.textgrid import WIDTH

    # A pipe has no width: what is written to one is neither folded nor cut at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)
