"""The commands that make something: data sets, trials, sweeps; and what says what there is to make."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dirtune.cli.app import DataRoot, Expect, ResultsRoot, StudyName, SweepName, app, console, show
from dirtune.cli.arguments import assignments, check_device, trial_settings
from dirtune.cli.cluster import JobsAddress, Python, run_there

if TYPE_CHECKING:
    from dirtune.tuning.sweep import SweepSummary


@app.command()
def train(
    file: Annotated[Path | None, typer.Argument(help="A YAML file with a trial configuration.")] = None,
    study: Annotated[str | None, typer.Option(help="Take the configuration of an arm of this study.")] = None,
    arm: Annotated[str | None, typer.Option(help="The arm; default: the study's reference.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, such as terms.conr.omega=2 or recipe.precision=bf16.")
    ] = None,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    threads: Annotated[int, typer.Option(help="CPU threads.", min=1)] = 1,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    representations: Annotated[int, typer.Option(help="Test samples whose representations are kept.", min=0)] = 0,
) -> None:
    """Run one trial, from a file, from an arm of a study, or from settings alone."""
    from dirtune.cli.display import train_with_bar, trained_text
    from dirtune.training.train import train as call

    check_device(device)
    settings = assignments(set_ or [], "--set")
    config, where = trial_settings(file, study, arm, seed, settings)
    with train_with_bar(console()) as on_epoch:
        result = call(
            config,
            data=data,
            results=results,
            arm=arm or "train",
            threads=threads,
            device=device,
            representations=representations,
            on_epoch=on_epoch,
            where=where,
        )
    show(trained_text(result))
    raise typer.Exit(1 if result.status == "failed" else 0)


@app.command()
def plan(
    study: StudyName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    probe: Annotated[
        bool, typer.Option("--probe", help="Train some steps of every arm here, to tell the time.")
    ] = False,
    liveness: Annotated[
        bool,
        typer.Option(
            "--liveness",
            help="Train one batch of every arm and tuned setting, and name what changes nothing; then exit code 1.",
        ),
    ] = False,
    expect: Expect = None,
) -> None:
    """Show what a study would run, how long it takes and whether a GPU is shared by too many, by recorded trials; run nothing."""
    from dirtune.cli.display import findings_table, plan_table
    from dirtune.tuning.plan.plan import plan as call

    found = call(study, data=data, results=results, probe=probe, liveness=liveness, expect=expect)
    show(plan_table(found))
    if found.findings is not None:
        show(findings_table(found.findings), *map(str, found.dead))
    raise typer.Exit(1 if found.dead else 0)


@app.command()
def sweep(
    study: StudyName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    expect: Expect = None,
) -> None:
    """Run everything of a study that is not recorded yet.

    A trial whose batch does not fit into memory fails, and its error names the `recipe.accumulation` to try: the batches and the
    optimizer's steps stay; batch normalization and terms that compare pairs see fewer rows.
    """
    from dirtune.tuning.sweep import sweep as call

    _drive(partial(call, expect=expect), study, data, results)


@app.command()
def resume(
    study: SweepName,
    data: DataRoot = "data",
    results: ResultsRoot = "results",
    retry: Annotated[
        list[str] | None,
        typer.Option(help="Run failed trials again: out_of_memory, nan, code, or failed (all); infrastructure always."),
    ] = None,
    expect: Expect = None,
) -> None:
    """Continue a sweep that was stopped, interrupted or killed."""
    from dirtune.tuning.sweep import resume as call

    _drive(partial(call, retry=retry or [], expect=expect), study, data, results)


@app.command()
def stop(
    study: SweepName, results: ResultsRoot = "results", address: JobsAddress = None, python: Python = "python"
) -> None:
    """Ask a running sweep to finish the epoch of every trial, write everything, and end; from wherever its results are in reach."""
    if address is not None:
        run_there(address, "stop", study, roots={"--results": results}, python=python)
    from dirtune.tuning.folder.stop_request import stop as call

    who = call(study, results=results)
    show(f"asked {who} to end; `dirtune resume {study}` goes on from there")


@app.command()
def status(
    study: SweepName, results: ResultsRoot = "results", address: JobsAddress = None, python: Python = "python"
) -> None:
    """Show how far a sweep is, also while it runs or after it has died; from wherever its results are in reach."""
    if address is not None:
        run_there(address, "status", study, roots={"--results": results}, python=python)
    from dirtune.cli.display import status_table
    from dirtune.results.analysis.status import status as call

    show(status_table(call(study, results=results)))


@app.command(name="list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="losses, terms, encoders, data, studies, ...")] = None,
    name: Annotated[str | None, typer.Argument(help="A loss, term, encoder, method or recipe, in detail.")] = None,
) -> None:
    """List what a study can name, or show one name in detail."""
    from dirtune.cli.catalog import describe_entry, list_catalog
    from dirtune.cli.display import catalog_table, entry_table
    from dirtune.errors import Fault, InputError

    if kind is not None and name is not None:
        show(entry_table(describe_entry(kind, name)))
        return
    known = list_catalog()
    if kind is not None and kind not in known:
        raise InputError(Fault(where="list", rule="unknown kind", got=kind, known=tuple(known)))
    for name in [kind] if kind else known:
        show(catalog_table(name, known[name]))


def _drive(call: Callable[..., SweepSummary], study: str, data: str, results: str) -> None:
    """Run a sweep in view; exit code 1 if trials are left, and a signal's own (130, 143) if it has ended the sweep."""
    from dirtune.cli.display import summary_text
    from dirtune.cli.sweep_view import SweepView

    try:
        with SweepView(console()) as view:
            summary = call(study, data=data, results=results, view=view)
    except KeyboardInterrupt:
        show("interrupted; nothing that was written is lost, `dirtune resume` goes on from there")
        raise typer.Exit(128 + signal.SIGINT) from None
    show(summary_text(summary))
    raise typer.Exit(_exit_code(summary))


def _exit_code(summary: SweepSummary) -> int:
    if not summary.left:
        return 0
    signals = {each.name: 128 + each for each in (signal.SIGINT, signal.SIGTERM)}
    return signals.get(summary.stopped or "", 1)
