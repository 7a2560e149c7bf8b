"""Commands on trained models: predict, export."""

from pathlib import Path
from typing import Annotated

import typer

from dirtune.cli.app import RESULTS, AllowPlugins, ResultsRoot, SweepName, app, show
from dirtune.wording import format_count

Arm = Annotated[str | None, typer.Option(help="The arm; may be left out if the study has only one.")]
Seeds = Annotated[
    list[int] | None, typer.Option("--seed", help="Use the model of this seed; default: all. Repeatable.")
]


@app.command(rich_help_panel=RESULTS)
def predict(
    study: SweepName,
    raw: Annotated[
        str,
        typer.Option(help="New samples: a table as at the ingest (file or URL), an image, or a folder of images."),
    ],
    arm: Arm = None,
    results: ResultsRoot = "results",
    output: Annotated[
        Path | None,
        typer.Option(help="File for the predictions (.csv, .parquet, .json); default: predictions/STUDY-ARM.csv."),
    ] = None,
    seed: Seeds = None,
    each_seed: Annotated[
        bool, typer.Option("--each-seed", help="Add a column with the predictions of every seed.")
    ] = False,
    unknown_categories: Annotated[
        str, typer.Option(help="A text that is no category of the training rows: error, or zeros for none of them.")
    ] = "error",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    allow_plugins: AllowPlugins = False,
) -> None:
    """Predict new samples with the trained models of an arm: mean and spread over its seeds, and the error to expect."""
    from dirtune.cli.arguments import check_device
    from dirtune.errors import Fault, InputError
    from dirtune.io.files import format_file_name
    from dirtune.results.query.formats import SUFFIXES, save_table

    if unknown_categories not in {"error", "zeros"}:
        rule = "unknown value"
        raise InputError(
            Fault(where="--unknown-categories", rule=rule, got=unknown_categories, known=("error", "zeros"))
        )
    # Before the models are read and run
    if output is not None and output.suffix not in SUFFIXES:
        raise InputError(Fault(where="--output", rule="unknown suffix", got=output.suffix, known=tuple(SUFFIXES)))
    if output is not None and output.resolve() == Path(raw).resolve():
        raise InputError(
            Fault(where="--output", rule="is the file of the new samples, which it would replace", got=raw)
        )
    check_device(device)
    from dirtune.prediction.arm import load

    trained = load(study, arm=arm, results=results, seeds=seed, device=device, allow_plugins=allow_plugins)
    table = trained.predict_table(raw, each_seed=each_seed, unknown_categories=unknown_categories)
    file = output or Path("predictions") / f"{format_file_name(f'{study}-{trained.arm}')}.csv"
    show(
        f"predictions of {format_count(table.num_rows, 'sample')} by {format_count(len(trained.models), 'model')}: {save_table(table, file)}"
    )
    if note := trained.describe_range(table):
        show(note)


@app.command()
def export(
    study: SweepName,
    arm: Arm = None,
    results: ResultsRoot = "results",
    format_: Annotated[str, typer.Option("--format", help="pt2, onnx or safetensors.")] = "safetensors",
    output: Annotated[
        Path | None, typer.Option(help="Folder for the files; default: exports/STUDY-ARM-FORMAT.")
    ] = None,
    seed: Seeds = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Export the trained models of an arm, with a model card, for use without dirtune."""
    from dirtune.prediction.export import export as write_export

    show(
        f"exported: {write_export(study, arm=arm, results=results, format=format_, output=output, seeds=seed, allow_plugins=allow_plugins)}"
    )
