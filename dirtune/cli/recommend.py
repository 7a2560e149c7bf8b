"""Command from own data to a recommended method."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from dirtune.cli.app import DATA, DataRoot, ResultsRoot, app, make_console, outlive_output, show
from dirtune.cli.init import Group, Label, Options, SetName, Source, Transform, Unit, parse_options


@app.command(rich_help_panel=DATA)
@outlive_output()
def recommend(
    source: Source,
    label: Label = None,
    minutes: Annotated[float, typer.Option(help="Time limit.", min=0)] = 20.0,
    name: SetName = None,
    unit: Unit = None,
    transform: Transform = "auto",
    group: Group = None,
    option: Options = None,
    output: Annotated[Path | None, typer.Option(help="The study file. Default: NAME_recommend.yaml.")] = None,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
) -> None:
    """Search common methods on own data within a time limit, confirm them on fresh seeds, and say which to use.

    Stopped or killed, the same command goes on from its records.
    """
    from dirtune.cli.sweep_view import SweepView
    from dirtune.results.tables.comparison import TableRequest, compare
    from dirtune.results.tables.render.formats import render
    from dirtune.tuning.recommend import recommend as find

    options = parse_options(source, option)
    try:
        with SweepView(make_console()) as view:
            found = find(
                source,
                label=label,
                minutes=minutes,
                name=name,
                unit=unit,
                transform=None if transform == "auto" else transform,
                group=group,
                options=options,
                output=output,
                data=data,
                results=results,
                view=view,
                report=show,
            )
    except KeyboardInterrupt:
        show("interrupted; everything that was written is kept, the same command goes on from it")
        raise typer.Exit(128 + signal.SIGINT) from None
    if found.report is None:
        show("no recommendation yet; the same command goes on from the records")
        raise typer.Exit(128 + signal.Signals[found.stopped] if found.stopped else 1)
    show("", *found.sentences, "", f"{found.budget}", f"report: {found.report}", f"study: {found.file}", "")
    show(render(compare(results, TableRequest(studies=(found.study,))), "table"))
