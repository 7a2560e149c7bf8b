"""How plans, status, catalogs and single runs look in a terminal, and in a log where there is none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from dirtune.cli.catalog import Entry
    from dirtune.cluster.checks import Observation
    from dirtune.results.analysis.status import SweepStatus
    from dirtune.study.resolve import Arm, ResolvedStudy
    from dirtune.training.train import TrainResult
    from dirtune.tuning.plan.checks import Plan
    from dirtune.tuning.plan.inert_settings import Finding
    from dirtune.tuning.plan.runtime import Forecast
    from dirtune.tuning.sweep import SweepSummary

STATUSES = ("complete", "pruned", "failed")


def plan_table(plan: Plan) -> Table:
    """What a study would run, arm by arm, and how long that takes."""
    study, need = plan.study, plan.study.study.resources
    table = plain_table(f"{study.name}: {study.study.question}")
    for column in ("arm", "trials", "seeds", "epochs", "tuned settings", "parameters", "a trial"):
        left = column in {"arm", "tuned settings"}
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for arm in study.arms:
        name = f"{arm.name} (reference)" if arm.name == study.study.reference else arm.name
        table.add_row(
            Text(name),
            str(plan.trials[arm.name]),
            _seeds_of(plan, arm),
            str(arm.config.epochs_planned),
            ", ".join(arm.knobs) or "-",
            f"{plan.parameters[arm.name]:,}",
            _time_of_trial(plan, arm.name),
        )
    rows = ", ".join(f"{count:,} {split}" for split, count in plan.rows.items())
    table.caption = Text(
        f"{plan.total} trials ({of_recorded(plan)}), {plan.concurrent} at once; each "
        f"{need.workers} x {need.cpus} CPU, {need.workers * need.gpus:g} GPU; samples: {rows}"
        + (f"\n{plan.crowding}" if plan.crowding else "")
        + _time_of_study(plan.forecast)
        + _further_seeds(study)
        + "".join(f"\n{each}" for each in plan.to_come)
        + "".join(f"\n{name} is the same as {kept}" for name, kept in study.merged_into.items())
    )
    return table


def _seeds_of(plan: Plan, arm: Arm) -> str:
    study = plan.study
    if study.study.sequential is None:
        return str(len(study.seeds_of(arm)))
    return f"{plan.trials[arm.name]} to {len(study.possible_seeds)}"


def _further_seeds(study: ResolvedStudy) -> str:
    rule = study.study.sequential
    if rule is None:
        return ""
    compared, most = study.compared, len(study.possible_seeds)
    return (
        f"\nseeds are added by {rule.step} to arms whose {compared.metric} in region {compared.region} is undecided against "
        f"{study.study.reference}, {most * len(study.arms)} trials at most; times are without them"
    )


def _time_of_trial(plan: Plan, arm: str) -> str:
    estimate = None if plan.forecast is None else plan.forecast.trials[arm]
    return "-" if estimate is None else duration(estimate.seconds)


def _time_of_study(forecast: Forecast | None) -> str:
    if forecast is None:
        return ""
    trials, left = forecast.trials, sum(forecast.left.values())
    if not left:
        return "\ntime: nothing is left to run"
    if forecast.seconds is None or forecast.gpu_hours is None:
        unknown = [arm for arm, estimate in trials.items() if estimate is None]
        of = "" if len(unknown) == len(trials) else f" of {', '.join(unknown)}"
        return f"\ntime: no recorded speed{of}; --probe measures one"
    sources = dict.fromkeys(each.source for each in trials.values() if each is not None)
    most, less = ("at most", " (what is stopped early takes less)") if forecast.is_bound else ("about", "")
    return (
        f"\ntime: {most} {duration(forecast.seconds)} for the {left} trials left{less}, "
        f"{forecast.gpu_hours:.3g} GPU hours; {'; '.join(sources)}"
    )


def duration(seconds: float) -> str:
    """Seconds as one would say them: two units at most."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def findings_table(findings: Sequence[Finding]) -> Table:
    """What every arm and every tuned setting changes, and by how much of the gradient."""
    table = plain_table("what changes the training")
    for column in ("arm", "setting", "compared", "of the gradient", ""):
        table.add_column(column, justify="right" if column.startswith("of") else "left", overflow="fold")
    for finding in findings:
        size = f"{finding.effect.size:.1e}" if finding.effect.kind == "gradient" else "-"
        remark = "" if finding.effect.kind == "gradient" else finding.does
        table.add_row(Text(finding.arm), Text(finding.knob or "-"), Text(finding.compared), size, Text(remark))
    return table


def of_recorded(plan: Plan) -> str:
    """How many of a plan's trials need not be run."""
    return f"{plan.recorded} recorded{_orphans(plan.orphaned)}"


def _orphans(number: int) -> str:
    return f", {number} orphaned" if number else ""


def status_table(status: SweepStatus) -> Table:
    """A sweep's trials by arm and state, and the started ones below."""
    table = plain_table(f"{status.study}: {status.done} of {status.total} trials recorded")
    for column in ("arm", "planned", *STATUSES, "started", "epoch", "best", "last sign"):
        table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
    for arm, planned in status.planned.items():
        started = [trial for trial in status.started if trial.arm == arm]
        table.add_row(
            Text(arm),
            str(planned),
            *(str(status.count(arm, state)) for state in STATUSES),
            str(len(started)),
            "\n".join(f"{trial.epochs_run}/{trial.epochs_planned}" for trial in started),
            "\n".join("-" if trial.objective is None else f"{trial.objective:.4g}" for trial in started),
            "\n".join(f"{trial.seconds_since_sign:.0f} s ago" for trial in started),
        )
    if status.failures:
        classes = ", ".join(f"{count} {name}" for name, count in sorted(status.failures.items()))
        table.caption = f"failed: {classes}; `dirtune resume --retry CLASS` runs them again"
    return table


def observations_table(observations: Sequence[Observation]) -> Table:
    """What a look at a cluster came to; what must be done stands below the value."""
    table = plain_table("is it fit for a sweep?")
    for column in ("", "what", "found"):
        table.add_column(column, overflow="fold")
    for each in observations:
        found = f"{each.value}\n-> {each.advice}" if each.advice else each.value
        table.add_row(each.state, each.subject, Text(found))
    return table


def catalog_table(kind: str, entries: Mapping[str, str]) -> Table:
    """Names and what they are."""
    table = plain_table(kind)
    table.show_header = False
    for name, sentence in entries.items():
        table.add_row(name, Text(sentence))
    return table


def entry_table(entry: Entry) -> Table:
    """One name of the catalog in detail."""
    table = plain_table(entry.name)
    table.caption = Text(entry.about)
    for column in entry.columns:
        table.add_column(column)
    for row in entry.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def plain_table(title: str = "") -> Table:
    """An empty table as all of them look."""
    # As `Text`, here and in cells: what people have named may hold brackets, which rich takes for markup.
    return Table(
        title=Text(title) if title else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def summary_text(summary: SweepSummary) -> str:
    """What a sweep did, in one sentence or two."""
    counts = ", ".join(f"{number} {status}" for status, number in summary.run.items()) or "nothing to run"
    reused = f"{summary.reused} reused{_orphans(summary.orphaned)}"
    text = f"{counts}; {reused}. Parquet: {summary.folder}/results"
    if summary.stopped is not None:
        text += f"\nStopped by {summary.stopped} when every running trial had finished its epoch."
    if summary.halved:
        text += f"\n{summary.halved} trials ran out of memory and started again with half the rows at a time."
    if summary.crashed:
        reasons = "; ".join(sorted(set(summary.crashed.values())))
        text += f"\n{len(summary.crashed)} trials failed with an exception: {reasons}."
        if summary.tracebacks:
            text += f"\nTracebacks: {', '.join(summary.tracebacks)}"
    if summary.left:
        text += f"\n{summary.left} trials are left, `dirtune resume` continues them."
    return text


def trained_text(result: TrainResult) -> str:
    """What a single run came to."""
    if result.reused:
        return f"trial {result.trial_id} is recorded already ({result.status})"
    if result.error is not None:
        return f"trial {result.trial_id} failed: {result.error}"
    return f"trial {result.trial_id} {result.status}, best epoch {result.best_epoch}"


@contextlib.contextmanager
def train_with_bar(console: Console) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """A progress bar over epochs, as the callback of `dirtune.train`; without a terminal a line per epoch."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("epochs", total=None)

    def on_epoch(epoch: int, planned: int, values: dict[str, float]) -> None:
        text = "  ".join(
            f"{name} {values[name]:.4g}" for name in ("train/loss", "val/all/mae", "val/few/mae") if name in values
        )
        bar.update(task, total=planned, completed=epoch, description=text)
        if not console.is_terminal:
            console.print(f"epoch {epoch}/{planned}  {text}", markup=False, highlight=False)

    with bar:
        yield on_epoch
