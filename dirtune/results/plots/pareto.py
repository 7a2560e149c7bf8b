"""Figure `pareto`: two numbers of every arm or trial against each other, the front of those that none beats in both.

An improvement for the rare labels is often paid for by the frequent ones; the front shows who gets more for the price.
`x` and `y` name a shot region, or a region and a metric as in `few/gmean`. The front is that of the means: with few seeds
a neighbour of the front may belong to it, as the error bars show.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.arms import (
    TRIAL_COLUMNS,
    StudyRuns,
    known_metric,
    members_of_arms,
    study_runs,
    trial_rows,
    values_by_trial,
)
from dirtune.results.plots.request import PlotRequest
from dirtune.results.plots.shown import shown_arms
from dirtune.results.plots.style import (
    COLUMN,
    PALE,
    REFERENCE_COLOR,
    arm_colors,
    finish,
    new_figure,
)
from dirtune.results.schema import REGIONS
from dirtune.results.selection import EPOCHS, selection_named
from dirtune.results.statistics.front import pareto_front
from dirtune.results.statistics.paired import mean, sd
from dirtune.results.store import read_table
from dirtune.results.studies import StudyInfo, open_studies, read_study
from dirtune.results.tables.rendering import metric_label
from dirtune.results.tables.table import SPLITS, check_known
from dirtune.storage import Storage

EACH = ("arm", "trial")
X, Y = "many", "few"
AROUND = 1.0  # of the range of front and reference that is shown on either side of it


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """One axis."""

    region: str
    metric: str

    @property
    def sign(self) -> int:
        """-1 where larger is better."""
        return -1 if self.metric in HIGHER_IS_BETTER else 1


@dataclass(frozen=True, kw_only=True)
class Point:
    """An arm with its mean and standard deviation over seeds, or a single trial."""

    arm: str
    x: float
    y: float
    x_sd: float  # NaN for a single value
    y_sd: float
    on_front: bool


@dataclass(frozen=True, kw_only=True)
class Pareto:
    """All points; those of the front from left to right come first."""

    points: tuple[Point, ...]
    reference: str | None
    x_label: str
    y_label: str
    x_limits: tuple[
        float, float
    ]  # around the front and the reference; the caption counts what lies outside
    y_limits: tuple[float, float]
    caption: str


def pareto_data(request: PlotRequest) -> Pareto:
    """Both numbers of every arm (mean over the trials that stand for it), or with `each="trial"` of every complete trial.

    Raises:
        InputError: a name is unknown, or no trial has both numbers.
    """
    each = request.one_of(EACH)
    check_known("split", request.split, SPLITS)
    storage = open_studies(request.root, [request.study])[request.study]
    info, rule = read_study(storage), selection_named(request.selection)
    runs = study_runs(storage, info, rule)
    axes = [_quantity(text, request, info, runs) for text in (request.x or X, request.y or Y)]
    reference = request.reference or info.reference
    arms = shown_arms(runs.arms, request.arms, reference=reference, most=len(runs.arms)).arms
    models = _models(storage, info, runs, request.selection if each == "trial" else None)
    values = [_values(axis, runs, request.split) for axis in axes]
    pairs = {arm: _pairs(models[arm], values) for arm in arms}
    if not any(pairs.values()):
        raise request.nothing("has no complete trial with both numbers yet")
    points = _with_front(_points(pairs, each), axes[0].sign, axes[1].sign)
    marked = [point for point in points if point.on_front or point.arm == reference]
    x_limits = _limits([(p.x, p.x_sd) for p in marked], [p.x for p in points])
    y_limits = _limits([(p.y, p.y_sd) for p in marked], [p.y for p in points])
    inside = [_is_inside(point, x_limits, y_limits) for point in points]
    return Pareto(
        points=points,
        reference=reference,
        x_label=_label(axes[0], info),
        y_label=_label(axes[1], info),
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
        [point.x for point in front], [point.y for point in front], color="black", linewidth=0.8,
        linestyle=":", zorder=2,
    )  # fmt: skip
    colors = arm_colors(list(dict.fromkeys(point.arm for point in front)), data.reference)
    named: set[str] = set()
    for point in data.points:
        is_reference = point.arm == data.reference
        color = REFERENCE_COLOR if is_reference else PALE
        is_named = (point.on_front or is_reference) and point.arm not in named
        named |= {point.arm} if is_named else set()
        _draw_point(
            axes, point, colors[point.arm] if point.on_front else color, "s" if is_reference else "o",
            point.arm if is_named else None,
        )  # fmt: skip
    axes.set_xlim(*data.x_limits)
    axes.set_ylim(*data.y_limits)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.grid()
    finish(figure, data.caption, axes)
    return figure


def _quantity(text: str, request: PlotRequest, info: StudyInfo, runs: StudyRuns) -> Quantity:
    region, _, metric = text.partition("/")
    check_known("region", region, REGIONS)
    metric = known_metric(runs.metrics, metric or request.metric or info.metric)
    return Quantity(region=region, metric=metric)


def _models(
    storage: Storage, info: StudyInfo, runs: StudyRuns, selection: str | None
) -> dict[str, list[tuple[str, str]]]:
    """The trials and epochs of every arm: those that stand for it, or with a `selection` all complete ones."""
    if selection is None:
        return {
            arm.arm: [(chosen.trial_id, chosen.epoch) for chosen in arm.chosen.values()]
            for arm in runs.arms
        }
    epoch = selection if selection in EPOCHS else EPOCHS[0]
    members = members_of_arms(
        trial_rows(read_table(storage, "trials", columns=TRIAL_COLUMNS)), info
    )
    return {
        arm: [(row.trial_id, epoch) for row in rows if row.status == "complete"]
        for arm, rows in members.items()
    }


def _values(axis: Quantity, runs: StudyRuns, split: str) -> dict[tuple[str, str], float]:
    """By trial and epoch, without what is undefined."""
    return {
        (trial_id, epoch): value
        for epoch in EPOCHS
        for trial_id, value in values_by_trial(
            runs.metrics, metric=axis.metric, region=axis.region, split=split, selection=epoch
        ).items()
        if value is not None
    }


def _pairs(
    models: Sequence[tuple[str, str]], values: Sequence[Mapping[tuple[str, str], float]]
) -> list[tuple[float, float]]:
    x, y = values
    return [(x[model], y[model]) for model in models if model in x and model in y]


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


def _label(axis: Quantity, info: StudyInfo) -> str:
    return f"{metric_label(axis.metric, info.unit)}, {axis.region}"


def _caption(
    request: PlotRequest,
    rule: str,
    each: str,
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    reference: str | None,
) -> str:
    missing = [arm for arm, found in pairs.items() if not found]
    dots = (
        "complete trials"
        if each == "trial"
        else "arms, mean over seeds (± sd where coloured or the reference)"
    )
    square = f" Grey square: {reference}, the reference." if reference in pairs else ""
    holes = f" Without both numbers: {', '.join(missing)}." if missing else ""
    return (
        f"{request.study}, {request.split} split, {rule}. Dots: {dots}. Coloured: the front, whose dots no other beats "
        f"in both numbers.{square}{holes}"
    )


def _draw_point(axes: Axes, point: Point, color: str, marker: str, label: str | None) -> None:
    if point.on_front or label:
        axes.errorbar(
            point.x, point.y, point.y_sd, point.x_sd, fmt="none", ecolor=color, elinewidth=0.8
        )
    axes.scatter(
        point.x, point.y, s=22, color=color, marker=marker, edgecolors="white", linewidths=0.4,
        zorder=3 if label else 2, label=label,
    )  # fmt: skip
