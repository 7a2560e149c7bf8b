"""Figure `history`: the objective of every trial in the order in which an arm's trials ended, and the best so far."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.searches import EndedTrial, list_ended_trials
from dirtune.results.analysis.selection import SELECTIONS, to_loss
from dirtune.results.figures import _arms, _request, _style
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.tables.render.cells import format_metric
from dirtune.wording import format_counts


@dataclass(frozen=True, kw_only=True)
class ArmHistory:
    """One arm; positions number its recorded trials from 1."""

    arm: str
    complete: tuple[tuple[int, float], ...]
    """Positions and objectives."""
    pruned: tuple[tuple[int, float], ...]
    """Positions, and objectives at the best epoch before pruning."""
    best: tuple[float, ...]
    """Best objective of the complete trials up to each position; NaN before the first."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The histories of the selected arms."""

    arms: tuple[ArmHistory, ...]
    reference: str | None
    label: str
    caption: str


def build_history(request: _request.PlotRequest) -> History:
    """Read the recorded trials of the arms in the order of their end.

    Raises:
        InputError: the study or an arm is unknown, or no trial has an objective.
    """
    storage = open_study(request.root, request.study)
    info = read_study(storage)
    runs = read_study_runs(storage, info, SELECTIONS["best_val"])
    reference = request.reference or info.reference
    shown = _arms.select_arms(runs.arms, request.arms, reference=reference, most=_style.MAX_COLORED_ARMS)
    trials = list_ended_trials(storage, info)
    arms = [make_arm_history(name, [trial for trial in trials if trial.arm == name], info) for name in shown.arms]
    if not any(arm.complete or arm.pruned for arm in arms):
        raise request.make_error("has no trial with a validation objective yet")
    reasons = Counter(
        "failed" if trial.status == "failed" else f"{trial.status} without an objective"
        for trial in trials
        if trial.arm in shown.arms and (trial.status == "failed" or math.isnan(trial.objective))
    )
    left_out = f" Left out: {format_counts(reasons)}." if reasons else ""
    return History(
        arms=tuple(arm for arm in arms if arm.complete or arm.pruned),
        reference=reference,
        label=f"validation {format_metric(info.metric, info.unit)}, {info.region}",
        caption=f"{request.study}: validation objective of every trial, in the order in which an arm's trials ended. "
        f"Lines: best complete trial so far; dots: complete; crosses: pruned, at the best epoch before."
        f"{left_out}{shown.note}",
    )


def make_arm_history(arm: str, trials: Sequence[EndedTrial], info: StudyInfo) -> ArmHistory:
    """Return the history of an arm's trials, given in the order of their end."""
    best, found = math.nan, []
    for trial in trials:
        if trial.status == "complete" and not math.isnan(trial.objective):
            # Losses, because larger objectives may be better.
            better = to_loss(trial.objective, info.metric) < to_loss(best, info.metric)
            best = trial.objective if better or math.isnan(best) else best
        found.append(best)
    return ArmHistory(
        arm=arm, complete=_select_points(trials, "complete"), pruned=_select_points(trials, "pruned"), best=tuple(found)
    )


def draw_history(data: History) -> Figure:
    """Draw dots, crosses, and a step line per arm."""
    figure = _style.make_figure(_style.COLUMN, 2.1)
    axes = figure.add_subplot()
    colors = _style.assign_colors([arm.arm for arm in data.arms], data.reference)
    for arm in data.arms:
        color = colors[arm.arm]
        # "post": an objective is the best one from its own trial on, until a better one.
        axes.step(range(1, len(arm.best) + 1), arm.best, where="post", color=color, linewidth=1.2, label=arm.arm)
        _scatter(axes, arm.complete, color, "o")
        _scatter(axes, arm.pruned, color, "x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial of the arm")
    axes.set_ylabel(data.label)
    axes.grid()
    _style.finish_figure(figure, data.caption, axes)
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[int, float]], color: str, marker: str) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=10, color=color, marker=marker, linewidths=0.9, zorder=3)


def _select_points(trials: Sequence[EndedTrial], status: str) -> tuple[tuple[int, float], ...]:
    return tuple(
        (position, trial.objective)
        for position, trial in enumerate(trials, start=1)
        if trial.status == status and not math.isnan(trial.objective)
    )
