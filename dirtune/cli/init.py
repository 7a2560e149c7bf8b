"""Command that begins a study on own data."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from dirtune.cli.app import DATA, DataRoot, app, show
from dirtune.cli.arguments import parse_assignments


@app.command(rich_help_panel=DATA)
def init(
    source: Annotated[
        str,
        typer.Argument(
            metavar="DATA",
            help="A csv, tsv, Parquet, jsonl or npz file, a folder of images with one or by label, a URL, or an ingested data set.",
        ),
    ],
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
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
    output: Annotated[Path | None, typer.Option(help="The study file. Default: NAME_methods.yaml.")] = None,
    data: DataRoot = "data",
) -> None:
    """Ingest own data and write a study of common methods, with settings that suit the data."""
    from dirtune.data.ingest import load_pipeline
    from dirtune.data.init import choose_pipeline, choose_study_name
    from dirtune.data.init import init as begin

    options = None
    if option:
        options = parse_assignments(option, "--option", load_pipeline(choose_pipeline(Path(source))).Options)
    file = begin(
        source,
        label=label,
        name=name,
        unit=unit,
        transform=None if transform == "auto" else transform,
        group=group,
        options=options,
        output=output,
        data=data,
        report=show,
    )
    plan, table = f"  dirtune plan {file}", f"  dirtune table {choose_study_name(file.stem)}"
    show(f"study: {file}", "next:", plan, f"  dirtune sweep {file}", table)
