"""The commands about data sets: ingest and inspect them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dirtune.cli.app import DataRoot, app, show
from dirtune.cli.arguments import assignments


@app.command()
def ingest(
    name: Annotated[str, typer.Argument(help="A data set of `dirtune list data`.")],
    raw: Annotated[Path | None, typer.Option(help="The raw file, or the folder of the raw files.")] = None,
    data: DataRoot = "data",
    download: Annotated[bool, typer.Option("--download", help="Bring the raw files into the folder first.")] = False,
    sentence_model: Annotated[
        str | None, typer.Option(help="sts_b, text_pairs: model for frozen sentence features.")
    ] = None,
    option: Annotated[list[str] | None, typer.Option(help="Further option of the pipeline, as name=value.")] = None,
) -> None:
    """Write a data set as sharded Parquet with a manifest."""
    from dirtune.data.ingest import ingest as call
    from dirtune.io.storage import Storage

    options = assignments(option or [], "--option")
    if sentence_model is not None:
        options["sentence_model"] = sentence_model
    manifest = call(name, root=data, raw=raw, options=options, download=download)
    rows = ", ".join(f"{split.rows:,} {key}" for key, split in manifest.splits.items())
    show(f"{manifest.name}: {rows}; {Storage.open(data).path(manifest.name)}", *manifest.notes)


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(help="An ingested data set.")],
    data: DataRoot = "data",
    shot_rule: Annotated[str | None, typer.Option(help="A shot rule of the set's manifest.")] = None,
    bins: Annotated[bool, typer.Option("--bins", help="Count every label bin, too.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="A .png, .pdf or .svg file: histograms, density, samples.")
    ] = None,
) -> None:
    """Show counts per split and shot region, weights, leaks, and the label histogram."""
    from dirtune.data.inspection import inspect as call

    seen = call(name, root=data, shot_rule=shot_rule)
    show(seen.text(bins=bins))
    if figure is not None:
        from dirtune.data.figure import NO_IMAGES, save_figure

        show(f"figure: {save_figure(seen, root=data, output=figure)}")
        if seen.image_input is None:
            show(NO_IMAGES)
