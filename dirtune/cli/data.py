"""Commands on data sets: ingest and inspect."""

from pathlib import Path
from typing import Annotated

import typer

from dirtune.cli.app import DATA, DataRoot, app, outlive_output, show
from dirtune.cli.arguments import parse_assignments


@app.command(rich_help_panel=DATA)
@outlive_output()
def ingest(
    name: Annotated[str, typer.Argument(help="A data set of `dirtune list data`.")],
    raw: Annotated[
        str | None, typer.Option(help="The raw file, or the folder of the raw files; own data: also a URL of either.")
    ] = None,
    data: DataRoot = "data",
    download: Annotated[bool, typer.Option("--download", help="Download the raw files into --raw first.")] = False,
    sentence_model: Annotated[
        str | None, typer.Option(help="sts_b, text_pairs: Model for frozen sentence features.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of the data set's pipeline, as name=value. Repeatable.")
    ] = None,
) -> None:
    """Write a data set as sharded Parquet files with a manifest."""
    from dirtune.data.ingest import ingest as ingest_dataset
    from dirtune.data.ingest import load_pipeline
    from dirtune.io.storage import Storage

    options = parse_assignments(option or [], "--option", load_pipeline(name).Options)
    if sentence_model is not None:
        options["sentence_model"] = sentence_model
    manifest = ingest_dataset(name, root=data, raw=raw, options=options, download=download)
    rows = ", ".join(f"{split.rows:,} {key}" for key, split in manifest.splits.items())
    show(f"{manifest.name}: {rows}; {Storage.open(data).path(manifest.name)}", *manifest.notes)
    study = "" if manifest.label.dense else f"; dirtune init {manifest.name} writes a study of it"
    show(f"next: dirtune inspect {manifest.name}{study}")


@app.command(rich_help_panel=DATA)
def inspect(
    name: Annotated[str, typer.Argument(help="An ingested data set.")],
    data: DataRoot = "data",
    shot_rule: Annotated[str | None, typer.Option(help="A shot rule of the data set's manifest.")] = None,
    bins: Annotated[bool, typer.Option("--bins", help="Show the counts of every label bin.")] = False,
    figure: Annotated[
        Path | None,
        typer.Option(help="A .png, .pdf or .svg file for a figure of histograms, label density and samples."),
    ] = None,
) -> None:
    """Show counts per split and shot region, weights, leaks, and the label histogram."""
    from dirtune.data.inspection import inspect as inspect_dataset
    from dirtune.data.inspection_text import format_inspection

    inspection = inspect_dataset(name, root=data, shot_rule=shot_rule)
    show(format_inspection(inspection, bins=bins))
    if figure is not None:
        from dirtune.data.figure import NO_IMAGES, save_figure

        show(f"figure: {save_figure(inspection, root=data, output=figure)}")
        if inspection.image_input is None:
            show(NO_IMAGES)
