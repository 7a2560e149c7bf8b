"""Command that begins a study on own data."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from dirtune.cli.app import DATA, DataRoot, app, show
from dirtune.cli.arguments import parse_assignments

# Options of `recommend` as well
Source = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="A csv, tsv, Parquet, jsonl or npz file, a folder of images with one or by label, a URL, or an ingested data set.",
    ),
]
Label = Annotated[str | None, typer.Option(help="Column of the label.")]
SetName = Annotated[str | None, typer.Option(help="Name of the data set. Default: that of the file or folder.")]
Unit = Annotated[str | None, typer.Option(help="Unit of the label, for display.")]
Transform = Annotated[
    Literal["auto", "log", "log1p", "none"],
    typer.Option(help="Transform of the label. auto: log for positive labels over orders of magnitude."),
]
Group = Annotated[str | None, typer.Option(help="Column of groups that must not cross splits, such as the person.")]
Options = Annotated[
    list[str] | None,
    typer.Option(help="Further option of the pipeline, table or images, as name=value. Repeatable."),
]


@app.command(rich_help_panel=DATA)
def init(
    source: Source,
    label: Label = None,
    name: SetName = None,
    unit: Unit = None,
    transform: Transform = "auto",
    group: Group = None,
    option: Options = None,
    output: Annotated[Path | None, typer.Option(help="The study file. Default: NAME_methods.yaml.")] = None,
    data: DataRoot = "data",
) -> None:
    """Ingest own data and write a study of common methods, with settings that suit the data."""
    from dirtune.data.init import choose_study_name
    from dirtune.data.init import init as begin

    file = begin(
        source,
        label=label,
        name=name,
        unit=unit,
        transform=None if transform == "auto" else transform,
        group=group,
        options=parse_options(source, option),
        output=output,
        data=data,
        report=show,
    )
    plan, table = f"  dirtune plan {file}", f"  dirtune table {choose_study_name(file.stem)}"
    show(f"study: {file}", "next:", plan, f"  dirtune sweep {file}", table)


def parse_options(source: str, texts: list[str] | None) -> dict[str, Any] | None:
    """Return further options of the pipeline that own data are ingested by, or None without any."""
    if not texts:
        return None
    from dirtune.data.ingest import load_pipeline
    from dirtune.data.init import choose_pipeline

    return parse_assignments(texts, "--option", load_pipeline(choose_pipeline(Path(source))).Options)
