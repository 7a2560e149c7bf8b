"""Figure `pareto`: two numbers of every arm or trial against each other, the front of those that none beats in both.

An improvement for the rare labels is often paid for by the frequent ones; the front shows who gets more for the price.
`x` and `y` name a shot region, or a region and a metric as in `few/gmean`. A study with `secondary` objectives shows its
objective and the first of those, and every trial of its searches. The front is that of the means: with few seeds
a neighbour of the front may belong to it, as the error bars show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.analysis.arms import study_runs
from dirtune.results.analysis.selection import selection_named
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._quantities import chosen_models, complete_models, pairs_of, quantity_named, values_of
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, PALE, REFERENCE_COLOR, arm_colors, finish, new_figure
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.statistics.front import pareto_front
from dirtune.results.statistics.paired import mean, sd
from dirtune.results.tables.table import SPLITS, check_known

EACH = ("arm", "trial")
X, Y = "many", "few"
# Of the range of front and reference that is shown on either side of it
AROUND = 1.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm with its mean and standard deviation over seeds, or a single trial."""

    arm: str
    x: float
    y: float
    x_sd: float
    """NaN for a single value."""
    y_sd: float
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """All points; those of the front from left to right come first."""

    points: tuple[Point, ...]
    reference: str | None
    x_label: str
    y_label: str
    # The axes reach around the front and the reference; the caption counts what lies outside.
    x_limits: tuple[float, float]
    y_limits: tuple[float, float]
    caption: str


def pareto_data(request: PlotRequest) -> Pareto:
    """Both numbers of every arm (mean over the trials that stand for it), or with `each="trial"` of every complete trial.

    Raises:
        InputError: a name is unknown, or no trial has both numbers.
    """
    check_known("split", request.split, SPLITS)
    storage = open_study(request.root, request.study)
    info, rule = read_study(storage), selection_named(request.selection)
    each = request.one_of(EACH[::-1] if info.secondary else EACH)
    runs = study_runs(storage, info, rule)
    metric = request.metric or info.metric
    default_x, default_y = _objectives(info)
    asked = (request.x or default_x, request.y or default_y)
    x, y = (quantity_named(text, metric, runs) for text in asked)
    reference = request.reference or info.reference
    arms = shown_arms(runs.arms, request.arms, reference=reference, most=len(runs.arms)).arms
    is_trial = each == "trial"
    models = complete_models(storage, info, request.selection) if is_trial else chosen_models(runs)
    values = [values_of(quantity, runs, request.split) for quantity in (x, y)]
    pairs = {arm: pairs_of(models[arm], *values) for arm in arms}
    if not any(pairs.values()):
        raise request.nothing("has no complete trial with both numbers yet")
    points = _with_front(_points(pairs, each), x.sign, y.sign)
    marked = [point for point in points if point.on_front or point.arm == reference]
    x_limits = _limits([(p.x, p.x_sd) for p in marked], [p.x for p in points])
    y_limits = _limits([(p.y, p.y_sd) for p in marked], [p.y for p in points])
    inside = [_is_inside(point, x_limits, y_limits) for point in points]
    return Pareto(
        points=points,
        reference=reference,
        x_label=x.label(info.unit),
        y_label=y.label(info.unit),
        x_limits=x_limits,
        y_limits=y_limits,
        caption=_caption(request, rule.description, each, pairs, reference)
        + (f" {inside.count(False)} of {len(inside)} dots lie outside." if not all(inside) else ""),
    )


def draw_pareto(data: Pareto) -> Figure:
    """Grey dots, and coloured ones with names on the front."""
    figure = new_figure(COLUMN, 2.5)
    axes = figure.add_subplot()
    front = [point for point in data.points if point.on_front]
    axes.plot(
        [point.x for point in front],
        [point.y for point in front],
        color="black",
        linewidth=0.8,
        linestyle=":",
        zorder=2,
    )
    colors = arm_colors(list(dict.fromkeys(point.arm for point in front)), data.reference)
    named: set[str] = set()
    for point in data.points:
        is_reference = point.arm == data.reference
        is_new = (point.on_front or is_reference) and point.arm not in named
        named |= {point.arm} if is_new else set()
        behind = REFERENCE_COLOR if is_reference else PALE
        color, marker = colors.get(point.arm, behind), "s" if is_reference else "o"
        _draw_point(axes, point, color if point.on_front else behind, marker, point.arm if is_new else None)
    axes.set_xlim(*data.x_limits)
    axes.set_ylim(*data.y_limits)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.grid()
    finish(figure, data.caption, axes)
    return figure


def _objectives(info: StudyInfo) -> tuple[str, str]:
    """What a study searches the front of, if it does."""
    if not info.secondary:
        return X, Y
    (metric, region), *_ = info.secondary
    return f"{info.region}/{info.metric}", f"{region}/{metric}"


def _points(pairs: Mapping[str, Sequence[tuple[float, float]]], each: str) -> list[Point]:
    if each == "trial":
        return [_point(arm, [pair]) for arm, found in pairs.items() for pair in found]
    return [_point(arm, found) for arm, found in pairs.items() if found]


def _point(arm: str, pairs: Sequence[tuple[float, float]]) -> Point:
    x, y = zip(*pairs, strict=True)
    return Point(arm=arm, x=mean(x), y=mean(y), x_sd=sd(x), y_sd=sd(y), on_front=False)


def _with_front(points: Sequence[Point], x_sign: int, y_sign: int) -> tuple[Point, ...]:
    """Those of the front first, from left to right."""
    front = pareto_front([x_sign * p.x for p in points], [y_sign * p.y for p in points])
    marked = [replace(point, on_front=on) for point, on in zip(points, front, strict=True)]
    return tuple(sorted(marked, key=lambda point: (not point.on_front, point.x, point.arm)))


def _limits(marked: Sequence[tuple[float, float]], every: Sequence[float]) -> tuple[float, float]:
    """The range of the marked dots with their sd, and of the other dots as far as they lie near it; and a margin."""
    spreads = [0.0 if math.isnan(spread) else spread for _, spread in marked]
    low = min(value - spread for (value, _), spread in zip(marked, spreads, strict=True))
    high = max(value + spread for (value, _), spread in zip(marked, spreads, strict=True))
    room = AROUND * (high - low)
    near = [value for value in every if low - room <= value <= high + room]
    from_, to = min(low, *near), max(high, *near)
    margin = 0.06 * (to - from_) or 0.5
    return from_ - margin, to + margin


def _is_inside(point: Point, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> bool:
    return x_limits[0] <= point.x <= x_limits[1] and y_limits[0] <= point.y <= y_limits[1]


def _caption(
    request: PlotRequest,
    rule: str,
    each: str,
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    reference: str | None,
) -> str:
    missing = [arm for arm, found in pairs.items() if not found]
    dots = "complete trials" if each == "trial" else "arms, mean over seeds (± sd where coloured or the reference)"
    square = f" Grey square: {reference}, the reference." if reference in pairs else ""
    holes = f" Without both numbers: {', '.join(missing)}." if missing else ""
    return (
        f"{request.study}, {request.split} split, {rule}. Dots: {dots}. Coloured: the front, whose dots no other beats "
        f"in both numbers.{square}{holes}"
    )


def _draw_point(axes: Axes, point: Point, color: str, marker: str, label: str | None) -> None:
    if point.on_front or label:
        axes.errorbar(point.x, point.y, point.y_sd, point.x_sd, fmt="none", ecolor=color, elinewidth=0.8)
    axes.scatter(
        point.x,
        point.y,
        s=22,
        color=color,
        marker=marker,
        edgecolors="white",
        linewidths=0.4,
        zorder=3 if label else 2,
        label=label,
    )
