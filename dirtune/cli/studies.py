"""Commands on studies and trials: list, plan, train, sweep, resume, stop, status."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dirtune.cli.app import (
    STUDIES,
    AllowPlugins,
    DataRoot,
    Expect,
    PluginFiles,
    ResultsRoot,
    StudyName,
    SweepName,
    app,
    make_console,
    outlive_output,
    show,
)
from dirtune.cli.arguments import check_device, load_plugins, parse_assignments, parse_changes, read_trial_settings
from dirtune.cli.cluster import JobsAddress, Python, run_on_cluster

Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change of the study, such as base.recipe.epochs=2 or seeds=[0,1]; recorded with it. Repeatable."
    ),
]

Log = Annotated[
    list[str] | None,
    typer.Option(
        help="Tracker to which recorded trials are written meanwhile: mlflow, wandb or tensorboard, or with a place: mlflow:URI. "
        "Repeatable."
    ),
]

if TYPE_CHECKING:
    from dirtune.tuning.interface import SweepSummary


@app.command(name="list", rich_help_panel=STUDIES)
def list_(
    kind: Annotated[str | None, typer.Argument(help="losses, terms, encoders, data, studies, ...")] = None,
    name: Annotated[
        str | None, typer.Argument(help="A loss, term, encoder, method, recipe or data set to show in detail.")
    ] = None,
    plugin: PluginFiles = None,
) -> None:
    """List the names that a study may use, or show one of them in detail."""
    from dirtune.cli.catalog import KINDS, describe_entry, list_names
    from dirtune.cli.display import format_catalog, format_entry
    from dirtune.errors import Fault, InputError

    load_plugins(None, plugin or [], allow=True)
    if kind is not None and name is not None:
        show(format_entry(describe_entry(kind, name)))
        return
    if kind is not None and kind not in KINDS:
        raise InputError(Fault(where="list", rule="unknown kind", got=kind, known=KINDS))
    for each in [kind] if kind else KINDS:
        show(format_catalog(each, list_names(each)))


@app.command(rich_help_panel=STUDIES)
def schema() -> None:
    """Print the JSON Schema of a study file, with which editors complete and check it while you write."""
    import json

    from dirtune.study.json_schema import make_json_schema

    print(json.dumps(make_json_schema(), indent=1, ensure_ascii=False))


@app.command(rich_help_panel=STUDIES)
@outlive_output()
def train(
    file: Annotated[Path | None, typer.Argument(help="A YAML file with a trial configuration.")] = None,
    study: Annotated[str | None, typer.Option(help="Train an arm of this study.")] = None,
    arm: Annotated[str | None, typer.Option(help="The arm; default: the study's reference.")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, such as terms.conr.omega=2 or recipe.precision=bf16. Repeatable."),
    ] = None,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    threads: Annotated[int, typer.Option(help="Number of CPU threads.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    representations: Annotated[
        int, typer.Option(help="Number of test samples whose representations are recorded.", min=0)
    ] = 0,
    keep_model: Annotated[
        bool, typer.Option("--keep-model/--no-model", help="Keep the trained model below results/train/models.")
    ] = True,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Train one trial: from a file, from an arm of a study, or from settings alone."""
    from dirtune.cli.display import format_train_result, show_epochs
    from dirtune.config import TrialConfig
    from dirtune.training.train import train as train_trial

    # Checked first, because reading a study and its data takes longer.
    check_device(device)
    load_plugins(study, plugin or [], allow=allow_plugins)
    settings = parse_assignments(set_ or [], "--set", TrialConfig)
    config, where = read_trial_settings(file, study, arm, seed, settings)
    try:
        with show_epochs(make_console()) as on_epoch:
            result = train_trial(
                config,
                data=data,
                results=results,
                arm=arm or "train",
                threads=threads,
                device=device,
                representations=representations,
                keep_model=keep_model,
                on_epoch=on_epoch,
                where=where,
            )
    except KeyboardInterrupt as error:
        show(f"interrupted: {error or 'the same run continues from its last checkpoint'}")
        raise typer.Exit(128 + signal.SIGINT) from None
    show(format_train_result(result))
    raise typer.Exit(1 if result.status == "failed" else 0)


@app.command(rich_help_panel=STUDIES)
def plan(
    study: StudyName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    set_: Changes = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="Estimate the run time from a few timed steps of every arm.")
    ] = False,
    effects: Annotated[
        bool,
        typer.Option(
            "--effects",
            help="Measure on one batch what every arm and tuned setting changes; exit code 1 if one changes nothing.",
        ),
    ] = False,
    power: Annotated[
        bool,
        typer.Option(
            "--power",
            help="Estimate from recorded trials how many seeds and test samples the study's claim needs to find a change.",
        ),
    ] = False,
    detect: Annotated[
        str | None,
        typer.Option(help="With --power: the smallest change that matters, in % or in the metric's unit; default: 5%."),
    ] = None,
    expect: Expect = None,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Show the trials, run time and GPU memory that a study needs, estimated from recorded trials; run nothing."""
    # A change to find has no other meaning.
    if power or detect is not None:
        from dirtune.results.records.studies import open_studies
        from dirtune.results.tables.power_plan import plan_power
        from dirtune.study.resolve import load_study

        # A study file has the name of its folder inside; a folder may be all that is left of a study.
        name = (
            study
            if study in open_studies(results)
            else load_study(study, plugins=plugin or (), allow_plugins=allow_plugins).name
        )
        show(str(plan_power(results, name, detect or "5%")))
        return
    from dirtune.cli.display import format_plan, format_setting_effects
    from dirtune.tuning.plan.plan import plan as make_plan

    made = make_plan(
        study,
        changes=parse_changes(set_ or []),
        data=data,
        results=results,
        probe=probe,
        effects=effects,
        expect=expect,
        plugins=plugin or (),
        allow_plugins=allow_plugins,
    )
    show(format_plan(made))
    if made.setting_effects is not None:
        show(format_setting_effects(made.setting_effects), *map(str, made.inert_settings))
    raise typer.Exit(1 if made.inert_settings else 0)


@app.command(rich_help_panel=STUDIES)
@outlive_output()
def sweep(
    study: StudyName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    set_: Changes = None,
    expect: Expect = None,
    log: Log = None,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Run every trial of a study that is not recorded yet.

    A trial whose batch does not fit into memory fails, and its error names the `recipe.accumulation` to try: the batches and the
    optimizer's steps stay; batch normalization and terms that compare pairs see fewer rows.
    """
    from dirtune.tuning.sweep import sweep as run_sweep

    changes = parse_changes(set_ or [])
    run = partial(
        run_sweep, changes=changes, expect=expect, log=log or (), plugins=plugin or (), allow_plugins=allow_plugins
    )
    _show_sweep(run, study, data, results)


@app.command(rich_help_panel=STUDIES)
@outlive_output()
def resume(
    study: SweepName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    retry: Annotated[
        list[str] | None,
        typer.Option(
            help="Class of failed trials to run again: out_of_memory, nan, code, or failed for all. Repeatable. "
            "Infrastructure failures are always run again."
        ),
    ] = None,
    expect: Expect = None,
    log: Log = None,
    plugin: PluginFiles = None,
    allow_plugins: AllowPlugins = False,
) -> None:
    """Continue a sweep that was stopped, interrupted or killed."""
    from dirtune.tuning.sweep import resume as resume_sweep

    run = partial(
        resume_sweep,
        retry=retry or [],
        expect=expect,
        log=log or (),
        plugins=plugin or (),
        allow_plugins=allow_plugins,
    )
    _show_sweep(run, study, data, results)


@app.command(rich_help_panel=STUDIES)
def stop(
    study: SweepName, results: ResultsRoot = "results", address: JobsAddress = None, python: Python = "python"
) -> None:
    """Request a running sweep to end after the current epoch of every trial; works from any machine that reaches its results."""
    if address is not None:
        run_on_cluster(address, "stop", study, roots={"--results": results}, python=python)
    from dirtune.tuning.folder.stop_request import stop as request_stop

    owner = request_stop(study, results=results)
    show(f"requested {owner} to stop; `dirtune resume {study}` continues the sweep")


@app.command(rich_help_panel=STUDIES)
def status(
    study: SweepName, results: ResultsRoot = "results", address: JobsAddress = None, python: Python = "python"
) -> None:
    """Show the progress of a sweep, running or not; works from any machine that reaches its results."""
    if address is not None:
        run_on_cluster(address, "status", study, roots={"--results": results}, python=python)
    from dirtune.cli.display import format_status
    from dirtune.results.analysis.status import status as read_status

    show(format_status(read_status(study, results=results)))


def _show_sweep(run: "Callable[..., SweepSummary]", study: str, data: str, results: str) -> None:
    """Run a sweep with its live view.

    Exit code 0 if every trial is recorded, 128 + signal (130, 143) if a signal ended the sweep before, 1 otherwise.
    """
    from dirtune.cli.display import format_summary
    from dirtune.cli.sweep_view import SweepView

    try:
        with SweepView(make_console()) as view:
            summary = run(study, data=data, results=results, view=view)
    # The first Ctrl-C is a stop request, after which the sweep ends by itself; this is the second.
    except KeyboardInterrupt:
        show("interrupted; everything that was written is kept, `dirtune resume` continues the sweep")
        raise typer.Exit(128 + signal.SIGINT) from None
    show(format_summary(summary, data, results))
    # The exit codes with which shells report processes that ended by these signals.
    signals = {each.name: 128 + each for each in (signal.SIGINT, signal.SIGTERM)}
    raise typer.Exit(signals.get(summary.stopped or "", 1) if summary.left else 0)
