"""Command from own data to a recommended method."""

import signal
from pathlib import Path
from typing import Annotated, Literal

import typer

from dirtune.cli.app import DATA, DataRoot, ResultsRoot, app, make_console, show
from dirtune.cli.arguments import parse_assignments


@app.command(rich_help_panel=DATA)
def recommend(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A csv, tsv, Parquet, jsonl or npz file, a folder of images with one or by label, a URL, or an ingested data set.",
        ),
    ],
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    minutes: Annotated[float, typer.Option(help="Time limit.", min=0)] = 20.0,
    name: Annotated[str | None, typer.Option(help="Name of the data set. Default: that of the file or folder.")] = None,
    unit: Annotated[str | None, typer.Option(help="Unit of the label, for display.")] = None,
    transform: Annotated[
        Literal["auto", "log", "log1p", "none"],
        typer.Option(help="Transform of the label. auto: log for positive labels over orders of magnitude."),
    ] = "auto",
    group: Annotated[
        str | None, typer.Option(help="Column of groups that must not cross splits, such as the person.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Further option of the pipeline, table or images, as name=value. Repeatable."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The study file. Default: NAME_recommend.yaml.")] = None,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
) -> None:
    """Search common methods on own data within a time limit, confirm them on fresh seeds, and say which to use.

    Stopped or killed, the same command goes on from its records.
    """
    from dirtune.cli.sweep_view import SweepView
    from dirtune.data.ingest import load_pipeline
    from dirtune.data.init import choose_pipeline
    from dirtune.results.tables.comparison import TableRequest, compare
    from dirtune.results.tables.render.formats import render
    from dirtune.tuning.recommend import recommend as find

    options = None
    if option:
        options = parse_assignments(option, "--option", load_pipeline(choose_pipeline(Path(source))).Options)
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
