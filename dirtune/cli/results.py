"""The commands that read results: queries, tables, figures, reports."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dirtune.cli.app import ResultsRoot, SweepName, app, show
from dirtune.cli.arguments import assignments

if TYPE_CHECKING:
    from dirtune.errors import Fault
    from dirtune.results.tables.comparison import TableRequest


# Options that tables and figures share.
Arms = Annotated[list[str] | None, typer.Option(help="An arm or a pattern such as conr*; may be repeated.")]
Reference = Annotated[str | None, typer.Option(help="Compare with this arm; default: the study's.")]
SplitName = Annotated[str, typer.Option(help="test or val.")]
Selection = Annotated[str, typer.Option(help="best_val, last or oracle.")]


@app.command()
def compact(study: SweepName, results: ResultsRoot = "results") -> None:
    """Write a study's many small files once more as a few, which tables read at once; also while it is swept."""
    from dirtune.results.records.compaction import compact_study

    rows = compact_study(study, results=results)
    show("compacted: " + ", ".join(f"{count:,} rows of {name}" for name, count in rows.items()))


@app.command()
def tensorboard(
    study: SweepName,
    results: ResultsRoot = "results",
    output: Annotated[Path, typer.Option(help="Folder of the logs.")] = Path("logs"),
) -> None:
    """Write the curves of all trials as TensorBoard logs, also while they run."""
    from dirtune.results.tensorboard import write_logs

    number = write_logs(study, results=results, output=output / study)
    show(f"curves of {number:,} trials: {output / study}")


@app.command()
def query(
    sql: Annotated[
        str, typer.Argument(help="SQL over trials, metrics, epochs, predictions and the views results, arms, curves.")
    ],
    results: ResultsRoot = "results",
    format_: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, json, markdown or parquet; default: table, or the file's suffix."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write into this file.")] = None,
    limit: Annotated[int | None, typer.Option(help="The most rows of the answer.", min=0)] = None,
    seconds: Annotated[float | None, typer.Option(help="The longest that the statement may run.", min=0.01)] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Name damaged files and go on without them.")
    ] = False,
) -> None:
    """Ask the results tables, read-only."""
    from dirtune.results.query.formats import format_table, save_table
    from dirtune.results.query.query import query as call

    on_damaged = _say_skipped if skip_damaged else None
    found = call(sql, results, limit=limit, seconds=seconds, on_damaged=on_damaged)
    if output is None:
        print(format_table(found, format_ or "table"))
    else:
        show(f"answer: {save_table(found, output, format_)}")
    if found.num_rows == limit:
        print(f"dirtune: stopped at {limit} rows (--limit)", file=sys.stderr)


def _say_skipped(fault: Fault) -> None:
    print(f"dirtune: left out: {fault}", file=sys.stderr)


@app.command()
def table(
    studies: Annotated[list[str], typer.Argument(help="The names of studies that have been swept.")],
    results: ResultsRoot = "results",
    metric: Annotated[
        list[str] | None, typer.Option(help="May be repeated; default: the metric of the objective.")
    ] = None,
    region: Annotated[list[str] | None, typer.Option(help="all, many, medium or few; may be repeated.")] = None,
    arm: Arms = None,
    row: Annotated[list[str] | None, typer.Option(help="What names a row: arm, or an axis by its path.")] = None,
    layout: Annotated[str, typer.Option(help="Of several studies: below or beside.")] = "below",
    split: SplitName = "test",
    selection: Selection = "best_val",
    reference: Reference = None,
    margin: Annotated[
        str, typer.Option(help="What counts as no difference: 2% of the reference's mean, or 0.5 in the metric's unit.")
    ] = "2%",
    shots: Annotated[
        str | None, typer.Option(help="Other limits of many and few: 50/10; from the stored predictions.")
    ] = None,
    bin_width: Annotated[float | None, typer.Option(help="Wider label bins, in the label's unit; likewise.")] = None,
    spread: Annotated[str, typer.Option(help="What ± is: sd, se or ci95.")] = "sd",
    bold: Annotated[str, typer.Option(help="better (than the reference), best or none.")] = "better",
    published: Annotated[str | None, typer.Option(help="Show published numbers too: of dir or natural splits.")] = None,
    published_as: Annotated[
        list[str] | None, typer.Option(help="ARM=METHOD: what an arm is called in the papers.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table, markdown, latex, html, csv or json.")] = "table",
    trace: Annotated[bool, typer.Option("--trace", help="Show the trials behind every cell.")] = False,
    check: Annotated[
        Path | None, typer.Option(help="Say which numbers of this table the results do not support.")
    ] = None,
) -> None:
    """Compare the arms of studies: all, many, medium and few, with paired differences."""
    from dirtune.results.records.schema import REGIONS
    from dirtune.results.tables.comparison import TableRequest, compare
    from dirtune.results.tables.render.formats import render
    from dirtune.results.tables.tracing import trace_text

    request = TableRequest(
        studies=tuple(studies),
        metrics=tuple(metric or ()),
        regions=tuple(region or REGIONS),
        arms=tuple(arm or ()),
        rows=tuple(row or ("arm",)),
        layout=layout,
        split=split,
        selection=selection,
        reference=reference,
        margin=margin,
        shots=shots,
        bin_width=bin_width,
        spread=spread,
        bold=bold,
        published=published,
        published_as={name: str(method) for name, method in assignments(published_as or [], "--published-as").items()},
    )
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
    show(str(found))
    if found.findings:
        raise typer.Exit(1)


@app.command()
def plot(
    study: SweepName,
    kind: Annotated[
        str,
        typer.Argument(
            help="regions, heatmap, forest, critical_difference, ablation_path, interactions, pareto, curve, data_efficiency, "
            "error_by_label, training_curves, tsne, similarity, anchors, history, parallel or importance."
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
        str | None, typer.Option(help="pareto: as --x; training_curves: a value of the epochs, as train/conr.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="A .png, .pdf or .svg file.")] = None,
    metric: Annotated[str | None, typer.Option(help="Default: the metric of the study's objective.")] = None,
    region: Annotated[str, typer.Option(help="Of figures of one region: all, many, ...")] = "all",
    split: SplitName = "test",
    selection: Selection = "best_val",
    reference: Reference = None,
    arm: Arms = None,
    each: Annotated[
        str | None,
        typer.Option(
            help="pareto: a point per arm or trial; critical_difference: rank per seed or region; "
            "ablation_path: add or remove parts."
        ),
    ] = None,
    method: Annotated[str, typer.Option(help="importance: ped_anova or fanova.")] = "ped_anova",
    relative: Annotated[bool, typer.Option("--relative", help="heatmap: percent of the reference.")] = False,
) -> None:
    """Draw a figure of a study."""
    from dirtune.results.figures import plot as call

    file = call(
        results,
        study,
        kind,
        x=x,
        y=y,
        output=output or Path("figures") / f"{study}-{kind}.png",
        metric=metric,
        region=region,
        split=split,
        selection=selection,
        reference=reference,
        arms=tuple(arm or ()),
        each=each,
        method=method,
        relative=relative,
    )
    show(f"figure: {file}")


@app.command()
def report(
    study: SweepName,
    results: ResultsRoot = "results",
    output: Annotated[Path | None, typer.Option(help="The HTML file; default: reports/STUDY.html.")] = None,
) -> None:
    """Write everything that is known of a study into one HTML file, which needs no network."""
    from dirtune.results.report.page import report as call

    show(f"report: {call(results, study, output=output)}")
