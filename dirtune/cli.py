"""The command line: parse, call one public function, print.

Heavy imports happen inside the verb that needs them, so that `--help` answers at once and reading results loads neither
torch nor Ray. What the user can mend is one message and exit code 2, never a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dirtune.arguments import assignments, check_device, trial_settings

if TYPE_CHECKING:
    from dirtune.errors import Fault
    from dirtune.results.tables.comparison import TableRequest
    from dirtune.tuning.sweep import SweepSummary

app = typer.Typer(
    name="dirtune", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Ablation sweeps for deep imbalanced regression.",
)  # fmt: skip

DataRoot = Annotated[
    str, typer.Option("--data", help="Root of the ingested data sets: a path or URL.")
]
ResultsRoot = Annotated[str, typer.Option("--results", help="Root of the results: a path or URL.")]
StudyName = Annotated[str, typer.Argument(help="A study file, or the name of a shipped study.")]
SweepName = Annotated[str, typer.Argument(help="The name of a study that has been swept.")]


def main() -> None:
    """Run the command line; the user's mistakes end with exit code 2 and without a traceback."""
    from dirtune.errors import InputError

    try:
        app()
    # A place that cannot be reached, read or written names itself.
    except (InputError, OSError) as error:
        print(f"dirtune: {error}", file=sys.stderr)
        sys.exit(2)


@app.command()
def ingest(
    name: Annotated[str, typer.Argument(help="A data set of `dirtune list data`.")],
    raw: Annotated[
        Path | None, typer.Option(help="The raw file, or the folder of the raw files.")
    ] = None,
    data: DataRoot = "data",
    download: Annotated[
        bool, typer.Option("--download", help="Bring the raw files into the folder first.")
    ] = False,
    sentence_model: Annotated[
        str | None, typer.Option(help="sts_b, text_pairs: model for frozen sentence features.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Further option of the pipeline, as name=value.")
    ] = None,
) -> None:
    """Write a data set as sharded Parquet with a manifest."""
    from dirtune.data.ingest import ingest as call
    from dirtune.storage import Storage

    options = assignments(option or [], "--option")
    if sentence_model is not None:
        options["sentence_model"] = sentence_model
    manifest = call(name, root=data, raw=raw, options=options, download=download)
    rows = ", ".join(f"{split.rows:,} {key}" for key, split in manifest.splits.items())
    _print(f"{manifest.name}: {rows}; {Storage.at(data).path(manifest.name)}", *manifest.notes)


@app.command()
def inspect(
    name: Annotated[str, typer.Argument(help="An ingested data set.")],
    data: DataRoot = "data",
    shot_rule: Annotated[
        str | None, typer.Option(help="A shot rule of the set's manifest.")
    ] = None,
    bins: Annotated[bool, typer.Option("--bins", help="Count every label bin, too.")] = False,
    figure: Annotated[
        Path | None, typer.Option(help="A .png, .pdf or .svg file: histograms, density, samples.")
    ] = None,
) -> None:
    """Show counts per split and shot region, weights, leaks, and the label histogram."""
    from dirtune.data.inspection import inspect as call

    seen = call(name, root=data, shot_rule=shot_rule)
    _print(seen.text(bins=bins))
    if figure is not None:
        from dirtune.data.gallery import NO_IMAGES, save_figure

        _print(f"figure: {save_figure(seen, root=data, output=figure)}")
        if seen.image_input is None:
            _print(NO_IMAGES)


@app.command()
def train(
    file: Annotated[
        Path | None, typer.Argument(help="A YAML file with a trial configuration.")
    ] = None,
    study: Annotated[
        str | None, typer.Option(help="Take the configuration of an arm of this study.")
    ] = None,
    arm: Annotated[
        str | None, typer.Option(help="The arm; default: the study's reference.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as terms.conr.omega=2.")
    ] = None,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Run one trial, from a file, from an arm of a study, or from settings alone."""
    from dirtune.display import train_with_bar, trained_text
    from dirtune.training.train import train as call

    check_device(device)
    settings = assignments(set_ or [], "--set")
    config, where = trial_settings(file, study, arm, seed, settings)
    with train_with_bar(_console()) as on_epoch:
        result = call(config, data=data, results=results, arm=arm or "train", threads=threads,
                      device=device, on_epoch=on_epoch, where=where)  # fmt: skip
    _print(trained_text(result))
    raise typer.Exit(1 if result.status == "failed" else 0)


@app.command()
def plan(study: StudyName, data: DataRoot = "data", results: ResultsRoot = "results") -> None:
    """Show what a study would run; run nothing."""
    from dirtune.display import plan_table
    from dirtune.tuning.sweep import plan as call

    _print(plan_table(call(study, data=data, results=results)))


@app.command()
def sweep(study: StudyName, data: DataRoot = "data", results: ResultsRoot = "results") -> None:
    """Run everything of a study that is not recorded yet."""
    from dirtune.tuning.sweep import sweep as call

    _drive(call, study, data, results)


@app.command()
def resume(study: SweepName, data: DataRoot = "data", results: ResultsRoot = "results") -> None:
    """Continue a sweep that was interrupted or killed."""
    from dirtune.tuning.sweep import resume as call

    _drive(call, study, data, results)


@app.command()
def status(study: SweepName, results: ResultsRoot = "results") -> None:
    """Show how far a sweep is; also while it runs or after it has died."""
    from dirtune.display import status_table
    from dirtune.results.status import status as call

    _print(status_table(call(study, results=results)))


@app.command()
def compact(study: SweepName, results: ResultsRoot = "results") -> None:
    """Write a study's many small files once more as a few, which tables read at once; also while it is swept."""
    from dirtune.results.compaction import compact_study

    rows = compact_study(study, results=results)
    _print("compacted: " + ", ".join(f"{count:,} rows of {name}" for name, count in rows.items()))


@app.command()
def query(
    sql: Annotated[
        str,
        typer.Argument(
            help="SQL over trials, metrics, epochs, predictions and the views results, arms, curves."
        ),
    ],
    results: ResultsRoot = "results",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="table, csv, json, markdown or parquet; default: table, or the file's suffix.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write into this file.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most rows of the answer.", min=0)] = None,
    seconds: Annotated[
        float | None, typer.Option(help="The longest that the statement may run.", min=0.01)
    ] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Name damaged files and go on without them.")
    ] = False,
) -> None:
    """Ask the results tables, read-only."""
    from dirtune.results.answers import format_table, save_table
    from dirtune.results.query import query as call

    on_damaged = _say_skipped if skip_damaged else None
    found = call(sql, results, limit=limit, seconds=seconds, on_damaged=on_damaged)
    if output is None:
        print(format_table(found, format_ or "table"))
    else:
        _print(f"answer: {save_table(found, output, format_)}")
    if found.num_rows == limit:
        print(f"dirtune: stopped at {limit} rows (--limit)", file=sys.stderr)


def _say_skipped(fault: Fault) -> None:
    print(f"dirtune: left out: {fault}", file=sys.stderr)


@app.command()
def table(
    studies: Annotated[
        list[str], typer.Argument(help="The names of studies that have been swept.")
    ],
    results: ResultsRoot = "results",
    metric: Annotated[
        list[str] | None,
        typer.Option(help="May be repeated; default: the metric of the objective."),
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="all, many, medium or few; may be repeated.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="An arm or a pattern such as conr*; may be repeated.")
    ] = None,
    row: Annotated[
        list[str] | None, typer.Option(help="What names a row: arm, or an axis by its path.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Of several studies: below or beside.")] = "below",
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    selection: Annotated[str, typer.Option(help="best_val, last or oracle.")] = "best_val",
    reference: Annotated[
        str | None, typer.Option(help="Compare with this arm; default: the study's.")
    ] = None,
    margin: Annotated[
        str,
        typer.Option(
            help="What counts as no difference: 2% of the reference's mean, or 0.5 in the metric's unit."
        ),
    ] = "2%",
    spread: Annotated[str, typer.Option(help="What ± is: sd, se or ci95.")] = "sd",
    bold: Annotated[
        str, typer.Option(help="better (than the reference), best or none.")
    ] = "better",
    published: Annotated[
        str | None, typer.Option(help="Show published numbers too: of dir or natural splits.")
    ] = None,
    published_as: Annotated[
        list[str] | None, typer.Option(help="ARM=METHOD: what an arm is called in the papers.")
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", help="table, markdown, latex, html, csv or json.")
    ] = "table",
    trace: Annotated[
        bool, typer.Option("--trace", help="Show the trials behind every cell.")
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(help="Say which numbers of this table the results do not support."),
    ] = None,
) -> None:
    """Compare the arms of studies: all, many, medium and few, with paired differences."""
    from dirtune.results.schema import REGIONS
    from dirtune.results.tables.comparison import TableRequest, compare
    from dirtune.results.tables.rendering import render
    from dirtune.results.tables.tracing import trace_text

    request = TableRequest(
        studies=tuple(studies), metrics=tuple(metric or ()), regions=tuple(region or REGIONS),
        arms=tuple(arm or ()), rows=tuple(row or ("arm",)), layout=layout, split=split, selection=selection,
        reference=reference, margin=margin, spread=spread, bold=bold, published=published,
        published_as={
            name: str(method)
            for name, method in assignments(published_as or [], "--published-as").items()
        },
    )  # fmt: skip
    if check is not None:
        _check_table(check, results, request)
        return
    made = compare(results, request)
    style = "markdown" if trace and format_ == "table" else format_
    print(trace_text(made, style) if trace else render(made, style))


def _check_table(file: Path, results: str, request: TableRequest) -> None:
    """Print which numbers of a file are not supported; exit code 1 if there are any."""
    from dirtune.results.tables.checking import check_file

    found = check_file(results, file, request)
    _print(str(found))
    if found.findings:
        raise typer.Exit(1)


@app.command()
def plot(
    study: SweepName,
    kind: Annotated[
        str,
        typer.Argument(
            help="regions, heatmap, forest, critical_difference, pareto, curve, data_efficiency, error_by_label, "
            "training_curves, history, parallel or importance."
        ),
    ] = "regions",
    results: ResultsRoot = "results",
    x: Annotated[
        str | None,
        typer.Option(
            help="curve, data_efficiency: a setting such as terms.conr.omega; pareto: REGION or REGION/METRIC."
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(help="pareto: as --x; training_curves: a value of the epochs, as train/conr."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .png, .pdf or .svg file.")] = None,
    metric: Annotated[
        str | None, typer.Option(help="Default: the metric of the study's objective.")
    ] = None,
    region: Annotated[str, typer.Option(help="Of figures of one region: all, many, ...")] = "all",
    split: Annotated[str, typer.Option(help="test or val.")] = "test",
    selection: Annotated[str, typer.Option(help="best_val, last or oracle.")] = "best_val",
    reference: Annotated[
        str | None, typer.Option(help="Compare with this arm; default: the study's.")
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(help="An arm or a pattern such as conr*; may be repeated.")
    ] = None,
    each: Annotated[
        str | None,
        typer.Option(
            help="pareto: a point per arm or trial; critical_difference: rank per seed or region."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="importance: ped_anova or fanova.")] = "ped_anova",
    relative: Annotated[
        bool, typer.Option("--relative", help="heatmap: percent of the reference.")
    ] = False,
) -> None:
    """Draw a figure of a study."""
    from dirtune.results.plots import plot as call

    file = call(
        results, study, kind, x=x, y=y, output=output or Path("figures") / f"{study}-{kind}.png",
        metric=metric, region=region, split=split, selection=selection, reference=reference,
        arms=tuple(arm or ()), each=each, method=method, relative=relative,
    )  # fmt: skip
    _print(f"figure: {file}")


@app.command()
def report(
    study: SweepName,
    results: ResultsRoot = "results",
    output: Annotated[
        Path | None, typer.Option(help="The HTML file; default: reports/STUDY.html.")
    ] = None,
) -> None:
    """Write everything that is known of a study into one HTML file, which needs no network."""
    from dirtune.results.report.page import report as call

    _print(f"report: {call(results, study, output=output)}")


@app.command(name="list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="losses, terms, encoders, data, studies, ...")
    ] = None,
    name: Annotated[
        str | None, typer.Argument(help="A loss, term, encoder, method or recipe, in detail.")
    ] = None,
) -> None:
    """List what a study can name, or show one name in detail."""
    from dirtune.display import catalogue_table, entry_table
    from dirtune.errors import Fault, InputError
    from dirtune.tuning.catalogue import catalogue, entry

    if kind is not None and name is not None:
        _print(entry_table(entry(kind, name)))
        return
    known = catalogue()
    if kind is not None and kind not in known:
        raise InputError(Fault(where="list", rule="unknown kind", got=kind, known=tuple(known)))
    for name in [kind] if kind else known:
        _print(catalogue_table(name, known[name]))


def _drive(call: Callable[..., SweepSummary], study: str, data: str, results: str) -> None:
    """Run a sweep in view; exit code 1 if trials are left."""
    from dirtune.display import SweepView, summary_text

    with SweepView(_console()) as view:
        summary = call(study, data=data, results=results, view=view)
    _print(summary_text(summary))
    raise typer.Exit(1 if summary.left else 0)


def _console() -> Any:
    from rich.console import Console

    from dirtune.results.textgrid import WIDTH

    # A pipe has no width: what is written to one is neither folded nor cut at 80 columns.
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def _print(*things: Any) -> None:
    console = _console()
    for thing in things:
        console.print(
            thing, markup=False, emoji=False, highlight=False, soft_wrap=isinstance(thing, str)
        )


if __name__ == "__main__":
    main()
