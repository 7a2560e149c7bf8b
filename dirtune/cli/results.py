"""Commands on results: query, table, check, plot, report, compact, log."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from dirtune.cli.app import (
    RESULTS,
    AllowPlugins,
    PluginFiles,
    ResultsRoot,
    SweepName,
    app,
    get_sweep_names,
    print_result,
    show,
)
from dirtune.cli.arguments import SqlCommand, parse_names, read_sql
from dirtune.errors import Fault, InputError
from dirtune.wording import format_count

# Options of both tables and figures
Arms = Annotated[list[str] | None, typer.Option(help="An arm, or a pattern such as conr*. Repeatable.")]
Reference = Annotated[str | None, typer.Option(help="Arm to compare with; default: the study's reference.")]
SplitName = Annotated[str, typer.Option(help="test or val.")]
Selection = Annotated[str, typer.Option(help="Epoch of a trial that is compared: best_val, last or oracle.")]


@app.command(rich_help_panel=RESULTS)
def compact(study: SweepName, results: ResultsRoot = "results") -> None:
    """Copy a study's many small result files into a few large ones, which tables read faster; also during a sweep."""
    from dirtune.results.records.compaction import compact_study

    rows = compact_study(study, results=results)
    show("compacted: " + ", ".join(f"{count:,} rows of {name}" for name, count in rows.items()))


@app.command(rich_help_panel=RESULTS)
def log(
    study: SweepName,
    to: Annotated[
        str,
        typer.Option(
            help="mlflow, wandb or tensorboard; or with a place: mlflow:URI, wandb:PROJECT, tensorboard:FOLDER."
        ),
    ],
    results: ResultsRoot = "results",
    report: Annotated[
        Path | None, typer.Option(help="HTML file to store as artifact; default: reports/STUDY.html if it exists.")
    ] = None,
) -> None:
    """Write the trials that a tracker lacks: settings, learning curves and metrics; also during a sweep."""
    from dirtune.trackers.logging import log as log_study
    from dirtune.trackers.target import parse_target

    number = log_study(study, to=to, results=results, report=report)
    show(f"{parse_target(to, '--to')}: {format_count(number, 'trial')} written")


@app.command(cls=SqlCommand, rich_help_panel=RESULTS)
def query(
    sql: Annotated[
        str,
        typer.Argument(
            help="SQL over trials, metrics, epochs, predictions, floors and the views results, arms, curves; a file (.sql), or - for "
            "standard input."
        ),
    ],
    results: ResultsRoot = "results",
    study: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this study, by name or file; default: all in the results. Repeatable.", callback=get_sweep_names
        ),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option("--format", help="table, csv, json, markdown or parquet; default: table, or the file's suffix."),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="File to write the result to.")] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of rows.", min=0)] = None,
    timeout: Annotated[float | None, typer.Option(help="Time limit in seconds.", min=0.01)] = None,
    skip_damaged: Annotated[
        bool, typer.Option("--skip-damaged", help="Leave damaged files out and report them.")
    ] = False,
) -> None:
    """Run one read-only SQL statement on the results."""
    from dirtune.results.query.formats import choose_format, format_table, save_table
    from dirtune.results.query.query import query as run_query

    # Before the statement runs
    if output is not None:
        choose_format(output, format_)

    # Reported on standard error, so that standard output remains a valid file of its format.
    def report_damage(fault: Fault) -> None:
        print(f"dirtune: left out: {fault}", file=sys.stderr)

    on_damaged = report_damage if skip_damaged else None
    found = run_query(read_sql(sql), results, studies=study, limit=limit, timeout=timeout, on_damaged=on_damaged)
    if output is None:
        print_result(format_table(found, format_ or "table"))
    else:
        show(f"answer: {save_table(found, output, format_)}")
    if found.num_rows == limit:
        print(f"dirtune: stopped at {limit} rows (--limit)", file=sys.stderr)


@app.command(rich_help_panel=RESULTS)
def table(
    context: typer.Context,
    studies: Annotated[
        list[str], typer.Argument(help="Names of studies in the results, or their files.", callback=get_sweep_names)
    ],
    results: ResultsRoot = "results",
    metric: Annotated[
        list[str] | None, typer.Option(help="Metric to show; default: that of the study's claim. Repeatable.")
    ] = None,
    region: Annotated[
        list[str] | None, typer.Option(help="all, many, medium or few; default: all four. Repeatable.")
    ] = None,
    arm: Arms = None,
    row: Annotated[
        list[str] | None, typer.Option(help="Key of the rows: arm, or an axis by its dotted path. Repeatable.")
    ] = None,
    layout: Annotated[str, typer.Option(help="Several studies: stacked, or wide as groups of columns.")] = "stacked",
    split: SplitName = "test",
    selection: Selection = "best_val",
    reference: Reference = None,
    margin: Annotated[
        str | None,
        typer.Option(
            help="Margin of equivalence: 2% of the reference's mean, or 0.5 in the metric's unit; default: the study's."
        ),
    ] = None,
    shots: Annotated[
        str | None,
        typer.Option(help="Other limits of many and few, such as 50/10; computed from the stored predictions."),
    ] = None,
    bin_width: Annotated[
        float | None, typer.Option(help="Wider label bins, in the label's unit; computed from the stored predictions.")
    ] = None,
    cost: Annotated[
        bool, typer.Option("--cost", help="Show the training time per sample of every arm against the reference's.")
    ] = False,
    equal: Annotated[
        str | None,
        typer.Option(help="time: best epochs within the shortest training time of each seed; needs --split val."),
    ] = None,
    spread: Annotated[str, typer.Option(help="Spread after ±: sd, se or ci95.")] = "sd",
    bold: Annotated[str, typer.Option(help="Cells in bold: better (than the reference), best or none.")] = "better",
    published: Annotated[
        str | None, typer.Option(help="Show published numbers as well: on dir or natural splits.")
    ] = None,
    published_as: Annotated[
        list[str] | None, typer.Option(help="ARM=METHOD: published name of an arm. Repeatable.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="table, markdown, latex, html, csv or json.")] = "table",
    trace: Annotated[bool, typer.Option("--trace", help="Show the trials behind every cell.")] = False,
    answer: Annotated[
        bool,
        typer.Option(
            "--answer", help="Instead of the table: which arm to use, its costs, and what is undecided, in words."
        ),
    ] = False,
    check: Annotated[
        Path | None,
        typer.Option(
            help="File with a table: list its numbers that the results do not support; exit code 1 if there are any."
        ),
    ] = None,
) -> None:
    """Compare the arms of studies by shot region, with changes against a reference and a word for the study's claim.

    A region, metric, margin, reference or shot rule that is chosen here and not in the study file is marked.
    """
    from dirtune.metrics import REGIONS
    from dirtune.results.tables.comparison import TableRequest, compare
    from dirtune.results.tables.provenance import format_provenance
    from dirtune.results.tables.render.formats import render

    if answer:
        _check_only_answer(context)
        from dirtune.results.tables.recommendation import describe_recommendation

        for study in studies:
            show(*describe_recommendation(results, study))
        return
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
        cost=cost,
        equal=equal,
        spread=spread,
        bold=bold,
        published=published,
        published_as=parse_names(published_as or [], "--published-as"),
    )
    if check is not None:
        from dirtune.results.tables.check import check_file

        found = check_file(results, check, request)
        show(str(found))
        raise typer.Exit(1 if found.findings else 0)
    made = compare(results, request)
    # A trace has no form for terminals, where its markdown is readable.
    style = "markdown" if trace and format_ == "table" else format_
    print_result(format_provenance(made, style) if trace else render(made, style))


def _check_only_answer(context: typer.Context) -> None:
    """Raise if an option is given that the answer in words does not use.

    Raises:
        InputError: with its name.
    """
    used = {"studies", "results", "answer"}
    given = (
        each.opts[0]
        for each in context.command.params
        if each.name not in used
        and str(getattr(context.get_parameter_source(str(each.name)), "name", "")) == "COMMANDLINE"
    )
    if option := next(given, None):
        raise InputError(
            Fault(where="table", key=option, rule="is not used by --answer, which is words about the study's claim")
        )


@app.command(rich_help_panel=RESULTS)
def check(
    study: SweepName,
    results: ResultsRoot = "results",
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 if there are findings.")] = False,
) -> None:
    """Check whether the trials that a study compares are any good: floors, convergence, gradients, representations."""
    from dirtune.results.analysis.soundness import check_study

    found = check_study(results, study)
    show(*(map(str, found) if found else ["no findings"]))
    raise typer.Exit(1 if found and strict else 0)


@app.command(rich_help_panel=RESULTS)
def intervals(
    study: SweepName,
    results: ResultsRoot = "results",
    level: Annotated[float, typer.Option(help="Share of the labels that the intervals are to cover.")] = 0.9,
    arm: Arms = None,
    format_: Annotated[str, typer.Option("--format", help="table, csv, json or markdown.")] = "table",
) -> None:
    """Compute split-conformal prediction intervals from the stored predictions: coverage and width by shot region."""
    from dirtune.results.analysis.conformal import compute_intervals
    from dirtune.results.query.formats import format_table

    print_result(format_table(compute_intervals(results, study, level=level, arms=arm or ()), format_))


@app.command(rich_help_panel=RESULTS)
def plot(
    study: SweepName,
    kind: Annotated[
        str,
        typer.Argument(
            help="regions, heatmap, forest, critical_difference, ablation_path, interactions, pareto, curve, data_efficiency, "
            "error_by_label, reliability, training_curves, tsne, similarity, anchors, history, parallel or importance."
        ),
    ] = "regions",
    results: ResultsRoot = "results",
    x: Annotated[
        str | None,
        typer.Option(
            help="curve, data_efficiency: setting on the x axis, such as terms.conr.omega; pareto: REGION or REGION/METRIC."
        ),
    ] = None,
    y: Annotated[
        str | None,
        typer.Option(
            help="pareto: REGION or REGION/METRIC; training_curves: a column of the epochs, such as train/conr."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="A .png, .pdf or .svg file; default: figures/STUDY-KIND.png.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to draw; default: that of the study's objective.")] = None,
    region: Annotated[
        str, typer.Option(help="Shot region of figures that show one: all, many, medium or few.")
    ] = "all",
    split: SplitName = "test",
    selection: Selection = "best_val",
    reference: Reference = None,
    arm: Arms = None,
    each: Annotated[
        str | None,
        typer.Option(help="pareto: a point per arm or trial; ablation_path: add or remove parts."),
    ] = None,
    method: Annotated[str, typer.Option(help="importance: Estimator, ped_anova or fanova.")] = "ped_anova",
    relative: Annotated[
        bool, typer.Option("--relative", help="heatmap: Differences in percent of the reference.")
    ] = False,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Draw a figure of a study into a file."""
    from dirtune.results.figures import plot as draw_plot

    file = draw_plot(
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
        plugins=plugin or (),
        allow_plugins=allow_plugins,
    )
    show(f"figure: {file}")


@app.command(rich_help_panel=RESULTS)
def report(
    study: SweepName,
    results: ResultsRoot = "results",
    output: Annotated[Path | None, typer.Option(help="The HTML file; default: reports/STUDY.html.")] = None,
) -> None:
    """Write the results of a study into one HTML file that needs no network."""
    from dirtune.results.report.page import write_report

    show(f"report: {write_report(results, study, output=output)}")
