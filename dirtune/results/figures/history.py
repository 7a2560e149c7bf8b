"""Figure `history`: the objective of every trial in the order in which the trials of its arm ended, and the best so far."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis.arms import study_runs
from dirtune.results.analysis.searches import EndedTrial, ended_trials
from dirtune.results.analysis.selection import SELECTIONS, as_loss
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, MOST_COLORED, arm_colors, finish, new_figure
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.tables.render.formats import metric_label


@dataclass(frozen=True, kw_only=True)
class ArmHistory:
    """One arm; positions count its recorded trials from 1."""

    arm: str
    complete: tuple[tuple[int, float], ...]
    """Position and objective."""
    pruned: tuple[tuple[int, float], ...]
    """The objective of the best epoch until then."""
    best: tuple[float, ...]
    """Of the complete trials up to each position; NaN before the first."""


@dataclass(frozen=True, kw_only=True)
class History:
    """All arms that are shown."""

    arms: tuple[ArmHistory, ...]
    reference: str | None
    label: str
    caption: str


def history_data(request: PlotRequest) -> History:
    """The recorded trials of the arms, by the time of their end.

    Raises:
        InputError: the study or an arm is unknown, or no trial has an objective.
    """
    storage = open_study(request.root, request.study)
    info = read_study(storage)
    runs = study_runs(storage, info, SELECTIONS["best_val"])
    reference = request.reference or info.reference
    shown = shown_arms(runs.arms, request.arms, reference=reference, most=MOST_COLORED)
    trials = ended_trials(storage, info)
    arms = [arm_history(name, [trial for trial in trials if trial.arm == name], info) for name in shown.arms]
    if not any(arm.complete or arm.pruned for arm in arms):
        raise request.nothing("has no trial with a validation objective yet")
    return History(
        arms=tuple(arm for arm in arms if arm.complete or arm.pruned),
        reference=reference,
        label=f"validation {metric_label(info.metric, info.unit)}, {info.region}",
        caption=f"{request.study}: validation objective of every trial in the order in which the trials of its arm ended. "
        f"Lines: best complete trial so far; dots: complete; crosses: pruned, at their best epoch until then."
        f"{_left_out(trials, shown.arms)}{shown.note}",
    )


def arm_history(arm: str, trials: Sequence[EndedTrial], info: StudyInfo) -> ArmHistory:
    """One arm's trials, given in the order of their end."""
    best, found = math.nan, []
    for trial in trials:
        if trial.status == "complete" and not math.isnan(trial.objective):
            better = as_loss(trial.objective, info.metric) < as_loss(best, info.metric)
            best = trial.objective if better or math.isnan(best) else best
        found.append(best)
    return ArmHistory(
        arm=arm, complete=_points(trials, "complete"), pruned=_points(trials, "pruned"), best=tuple(found)
    )


def draw_history(data: History) -> Figure:
    """Dots, crosses, and a step line per arm."""
    figure = new_figure(COLUMN, 2.1)
    axes = figure.add_subplot()
    colors = arm_colors([arm.arm for arm in data.arms], data.reference)
    for arm in data.arms:
        color = colors[arm.arm]
        axes.step(range(1, len(arm.best) + 1), arm.best, where="post", color=color, linewidth=1.2, label=arm.arm)
        _scatter(axes, arm.complete, color, "o")
        _scatter(axes, arm.pruned, color, "x")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("trial of the arm")
    axes.set_ylabel(data.label)
    axes.grid()
    finish(figure, data.caption, axes)
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[int, float]], color: str, marker: str) -> None:
    if points:
        x, y = zip(*points, strict=True)
        axes.scatter(x, y, s=10, color=color, marker=marker, linewidths=0.9, zorder=3)


def _points(trials: Sequence[EndedTrial], status: str) -> tuple[tuple[int, float], ...]:
    return tuple(
        (position, trial.objective)
        for position, trial in enumerate(trials, start=1)
        if trial.status == status and not math.isnan(trial.objective)
    )


def _left_out(trials: Sequence[EndedTrial], arms: Sequence[str]) -> str:
    reasons = Counter(
        "failed" if trial.status == "failed" else f"{trial.status} without an objective"
        for trial in trials
        if trial.arm in arms and (trial.status == "failed" or math.isnan(trial.objective))
    )
    listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return f" Left out: {listed}." if listed else ""
