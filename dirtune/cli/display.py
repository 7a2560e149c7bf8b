"""Formatting of plans, status, catalogs and single runs for a terminal, and for a log without one."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dirtune.errors import escape_control_characters
from dirtune.io.credentials import remove_credentials
from dirtune.wording import format_count, format_counts

if TYPE_CHECKING:
    from dirtune.cli.catalog import Entry
    from dirtune.cluster.checks import Check
    from dirtune.results.analysis.status import SweepStatus
    from dirtune.training.train import TrainResult
    from dirtune.tuning.interface import SweepSummary
    from dirtune.tuning.plan.inert_settings import SettingEffect
    from dirtune.tuning.plan.plan import Plan
    from dirtune.tuning.plan.runtime import RuntimeForecast

# The final statuses of a trial, in the order of the columns
STATUSES = ("complete", "pruned", "failed")


def format_plan(plan: Plan) -> Table:
    """Return the table of a plan's arms, with trials, resources and run time in the caption."""
    study, resources = plan.study, plan.study.resources
    sequential = study.sequential
    table = make_table(f"{study.name}: {study.question}")
    for column in ("arm", "trials", "seeds", "epochs", "tuned settings", "parameters", "a trial"):
        is_text = column in {"arm", "tuned settings"}
        table.add_column(column, justify="left" if is_text else "right", overflow="fold")
    for arm in study.arms:
        name = f"{arm.name} (reference)" if arm.name == study.reference else arm.name
        if sequential is None:
            seeds = str(len(study.get_seeds(arm)))
        else:
            seeds = f"{plan.trials[arm.name]} to {len(study.possible_seeds)}"
        estimate = None if plan.forecast is None else plan.forecast.trials[arm.name]
        table.add_row(
            name,
            f"{plan.trials[arm.name]:,}",
            seeds,
            str(arm.config.epochs_planned),
            ", ".join(arm.space) or "-",
            f"{plan.parameters[arm.name]:,}",
            "-" if estimate is None else format_duration(estimate.seconds),
        )
    rows = ", ".join(f"{count:,} {split}" for split, count in plan.samples.items())
    lines = [
        f"{format_count(plan.total_trials, 'trial')} ({format_recorded(plan)}), "
        f"{plan.concurrency} at once; each {resources.workers} x "
        f"{resources.cores} CPU, {resources.workers * resources.gpus:g} GPU; samples: {rows}"
    ]
    notes = plan.gpu_memory_warning, plan.precision_note, plan.packing_note
    lines += [note for note in notes if note is not None]
    if plan.forecast is not None:
        lines.append(_format_forecast(plan.forecast))
    kept = f"{plan.kept_models:,} ({study.keep_models}), {format_bytes(plan.kept_bytes)} on disk"
    lines.append(f"models kept: {kept if plan.kept_models else 'none'}")
    # Arms with one encoder and recipe share a sentence.
    by_text: dict[str, list[str]] = {}
    for fit in plan.label_fits:
        by_text.setdefault(str(fit), []).append(fit.arm)
    lines += [f"label units far off ({', '.join(arms)}): {text}" for text, arms in by_text.items()]
    if sequential is not None:
        compared, most = study.compared_objective, len(study.possible_seeds) * len(study.arms)
        lines.append(
            f"seeds are added by {sequential.step} to arms whose {compared.metric} in region {compared.region} is "
            f"open against {study.reference}, {most} trials at most; times are without them"
        )
    taken = dict.fromkeys(
        f"{path} {' '.join(f'{number:g}' for number in (value if isinstance(value, list) else [value]))}"
        for arm in study.arms
        for path, value in arm.from_data.items()
    )
    if taken:
        lines.append(f"from the data: {', '.join(taken)}")
    if plan.label_period is not None:
        lines.append(
            f"labels repeat after {plan.label_period:.4g}, and errors are differences of numbers: near both ends they are too large"
        )
    lines += [str(node_type) for node_type in plan.startable_nodes]
    lines += [f"{name} is the same as {kept}" for name, kept in study.merged_arms.items()]
    table.caption = Text("\n".join(lines))
    return table


def _format_forecast(forecast: RuntimeForecast) -> str:
    trials, left = forecast.trials, sum(forecast.left.values())
    if not left:
        return "time: nothing is left to run"
    if forecast.seconds is None or forecast.gpu_hours is None:
        unknown = [arm for arm, estimate in trials.items() if estimate is None]
        of_arms = "" if len(unknown) == len(trials) else f" of {', '.join(unknown)}"
        return f"time: no recorded speed{of_arms}; --probe measures one"
    # Estimates of several arms often have the same source, which is named once.
    sources = dict.fromkeys(each.source for each in trials.values() if each is not None)
    bound, reason = ("at most", " (trials that are stopped early take less)") if forecast.is_bound else ("about", "")
    return (
        f"time: {bound} {format_duration(forecast.seconds)} for the {format_count(left, 'trial')} left{reason}, "
        f"{forecast.gpu_hours:.3g} GPU hours; {'; '.join(sources)}"
    )


def format_duration(seconds: float) -> str:
    """Return a duration in at most two units, such as "1 min 40 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    # Rounded before the comparison, or 59.6 would read "60 s".
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def format_bytes(number: float) -> str:
    """Return a size with a decimal unit, such as "3.4 MB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        # 999.6 kB would read "1e+03 kB".
        if round(number) < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.3g} TB"


def format_setting_effects(effects: Sequence[SettingEffect]) -> Table:
    """Return the table of what every arm and tuned setting changes, as a share of the gradient."""
    table = make_table("what changes the training")
    for column in ("arm", "setting", "compared", "of the gradient", ""):
        table.add_column(column, justify="right" if column.startswith("of") else "left", overflow="fold")
    for each in effects:
        is_gradient = each.change.kind == "gradient"
        size, remark = (f"{each.change.size:.1e}", "") if is_gradient else ("-", each.description)
        table.add_row(each.arm, each.setting or "-", each.compared, size, remark)
    return table


def format_recorded(plan: Plan) -> str:
    """Return the number of a plan's trials that are recorded already, and of orphaned ones."""
    return f"{plan.recorded_trials:,} recorded{_format_orphaned(plan.orphaned_trials)}"


def _format_orphaned(number: int) -> str:
    return f", {number:,} orphaned" if number else ""


def format_status(status: SweepStatus) -> Table:
    """Return the table of a sweep's trials by arm and status, with the epochs of those that have started."""
    table = make_table(f"{status.study}: {status.done:,} of {status.total:,} trials recorded")
    for column in ("arm", "planned", *STATUSES, "started", "epoch", "best", "last epoch"):
        table.add_column(column, justify="left" if column == "arm" else "right", overflow="fold")
    for arm, planned in status.planned.items():
        started = [trial for trial in status.started if trial.arm == arm]
        table.add_row(
            arm,
            str(planned),
            *(str(status.count(arm, state)) for state in STATUSES),
            str(len(started)),
            "\n".join(f"{trial.epochs_run}/{trial.epochs_planned}" for trial in started),
            "\n".join("-" if trial.objective is None else f"{trial.objective:.4g}" for trial in started),
            "\n".join(f"{trial.seconds_since_progress:.0f} s ago" for trial in started),
        )
    lines = []
    if status.failures:
        lines.append(f"failed: {format_counts(status.failures)}; `dirtune resume --retry CLASS` runs them again")
    if status.models:
        lines.append(f"models kept: {status.models:,}, {format_bytes(status.model_bytes)} on disk")
    if status.without_model:
        lines.append(f"recorded without a model: {', '.join(status.without_model)}")
    table.caption = Text("\n".join(lines)) if lines else None
    return table


def format_checks(checks: Sequence[Check]) -> Table:
    """Return the table of the checks of a cluster, each with its advice below its value."""
    table = make_table("cluster checks")
    for column in ("", "check", "value"):
        table.add_column(column, overflow="fold")
    for each in checks:
        value = f"{each.value}\n-> {each.advice}" if each.advice else each.value
        table.add_row(each.state, each.subject, value)
    return table


def format_catalog(kind: str, sentences: Mapping[str, str]) -> Table:
    """Return the table of the names of one kind, each with its sentence."""
    table = make_table(kind)
    table.show_header = False
    for name, sentence in sentences.items():
        table.add_row(name, sentence)
    return table


def format_entry(entry: Entry) -> Table | str:
    """Return the table of one name of the catalog in detail; of a function, which has no settings, its docstring."""
    if not entry.columns:
        return f"{entry.name}: {entry.about}"
    table = make_table(entry.name)
    table.caption = Text(entry.about)
    for column in entry.columns:
        table.add_column(column)
    for row in entry.rows:
        table.add_row(*row)
    return table


class _LiteralTable(Table):
    """Table whose cells are shown as they are, whatever names contain: no markup, and control characters escaped."""

    def add_row(self, *cells: Any, **settings: Any) -> None:
        # Escaped here, before the widths are measured; `Text`, because rich reads brackets in a str as markup
        super().add_row(
            *(Text(escape_control_characters(each)) if isinstance(each, str) else each for each in cells), **settings
        )


def make_table(title: str = "") -> Table:
    """Return an empty table in the common style."""
    return _LiteralTable(
        title=Text(escape_control_characters(title)) if title else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )


def format_summary(summary: SweepSummary, data: str = "data", results: str = "results") -> str:
    """Return the outcome of a sweep as text, with what is left to do, for the roots of data and results."""
    # A sweep without trials to run has no counts.
    counts = ", ".join(f"{number} {status}" for status, number in summary.run.items()) or "nothing to run"
    reused = f"{summary.reused} reused{_format_orphaned(summary.orphaned)}"
    text = f"{counts}; {reused}. Parquet: {summary.folder}/results"
    if summary.stopped is not None:
        text += f"\nStopped by {summary.stopped} when every running trial had finished its epoch."
    if summary.crashed:
        # Trials often fail for one common reason, which is shown once.
        reasons = "; ".join(sorted(set(summary.crashed.values())))
        text += f"\n{format_count(len(summary.crashed), 'trial')} failed with an exception: {reasons}."
        if summary.tracebacks:
            text += f"\nTracebacks: {', '.join(summary.tracebacks)}"
    if summary.floors_problem:
        text += f"\n{summary.floors_problem}"
    name = summary.folder.rstrip("/").rsplit("/", 1)[-1]
    if results != "results":
        name += f" --results {shlex.quote(remove_credentials(results))}"
    if summary.left:
        if data != "data":
            name += f" --data {shlex.quote(remove_credentials(data))}"
        return f"{text}\n{format_count(summary.left, 'trial')} left, `dirtune resume {name}` continues."
    return f"{text}\nnext: dirtune table {name}; dirtune check {name}; dirtune report {name}"


def format_train_result(result: TrainResult) -> str:
    """Return the outcome of a single trial as text."""
    if result.reused:
        return f"trial {result.trial_id} is recorded already ({result.status})"
    if result.error is not None:
        return f"trial {result.trial_id} failed: {result.error}"
    return f"trial {result.trial_id} {result.status}, best epoch {result.best_epoch}"


@contextlib.contextmanager
def show_epochs(console: Console) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Show a progress bar over epochs, or a line per epoch without a terminal; yield the callback of `dirtune.train`."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    # The number of epochs is known with the first one.
    task = bar.add_task("epochs", total=None)

    def show_epoch(epoch: int, epochs: int, values: dict[str, float]) -> None:
        text = "  ".join(
            f"{name} {values[name]:.4g}" for name in ("train/loss", "val/all/mae", "val/few/mae") if name in values
        )
        bar.update(task, total=epochs, completed=epoch, description=text)
        if not console.is_terminal:
            console.print(f"epoch {epoch}/{epochs}  {text}", markup=False, highlight=False)

    with bar:
        yield show_epoch
