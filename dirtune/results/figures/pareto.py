"""Figure `pareto`: two quantities of every arm or trial against each other, with the Pareto front.

An improvement for rare labels often costs accuracy for frequent ones; the front shows the best trade-offs. `x` and `y` are
shot regions, or a region and a metric as in `few/gmean`. A study with `secondary` objectives shows its objective against
the first of those, for every trial of its searches. The front is that of the means: with few seeds, an arm near the front
may belong to it, as the error bars show.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.selection import get_selection
from dirtune.results.figures import _arms, _quantities, _request, _style
from dirtune.results.records import names, studies
from dirtune.results.statistics.paired import compute_sd, mean

EACH = ("arm", "trial")
X, Y = "many", "few"
SURROUNDINGS = 1.0
"""Range shown on either side of front and reference, as a multiple of their own range."""


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
    """All points; those of the front first, from left to right."""

    points: tuple[Point, ...]
    reference: str | None
    x_label: str
    y_label: str
    x_limits: tuple[float, float]
    """Limits around the front and the reference; the caption counts the points outside."""
    y_limits: tuple[float, float]
    caption: str


def build_pareto(request: _request.PlotRequest) -> Pareto:
    """Compute both quantities of every arm, as means over its selected trials, or with `each="trial"` of every complete trial.

    Raises:
        InputError: a name is unknown, or no trial has both quantities.
    """
    names.check_known("split", request.split, names.EVALUATED_SPLITS)
    storage = studies.open_study(request.root, request.study)
    info, rule = studies.read_study(storage), get_selection(request.selection)
    # The trade-off of a search is between its trials; the mean of an arm over them shows none of it.
    each = request.choose_each(EACH[::-1] if info.secondary else EACH)
    runs = read_study_runs(storage, info, rule)
    metric = request.metric or info.metric
    default_x, default_y = X, Y
    if info.secondary:
        (secondary_metric, region), *_ = info.secondary
        default_x, default_y = f"{info.region}/{info.metric}", f"{region}/{secondary_metric}"
    x, y = (_quantities.parse_quantity(text, metric, runs) for text in (request.x or default_x, request.y or default_y))
    reference = request.reference or info.reference
    arms = _arms.select_arms(runs.arms, request.arms, reference=reference, most=len(runs.arms)).arms
    is_trial = each == "trial"
    models = (
        _quantities.select_complete_models(storage, info, request.selection)
        if is_trial
        else _quantities.select_chosen_models(runs)
    )
    values = [_quantities.get_quantity(quantity, runs, request.split) for quantity in (x, y)]
    pairs = {arm: _quantities.make_pairs(models[arm], *values) for arm in arms}
    if not any(pairs.values()):
        raise request.make_error("has no complete trial with both quantities yet")
    groups = [
        (arm, group) for arm, found in pairs.items() for group in ([[pair] for pair in found] if is_trial else [found])
    ]
    means = [_make_point(arm, group) for arm, group in groups if group]
    front = _quantities.find_pareto_front([x.sign * p.x for p in means], [y.sign * p.y for p in means])
    points = [replace(point, on_front=on) for point, on in zip(means, front, strict=True)]
    points.sort(key=lambda point: (not point.on_front, point.x, point.arm))
    marked = [point for point in points if point.on_front or point.arm == reference]
    x_limits = _compute_limits([(p.x, p.x_sd) for p in marked], [p.x for p in points])
    y_limits = _compute_limits([(p.y, p.y_sd) for p in marked], [p.y for p in points])
    inside = [x_limits[0] <= p.x <= x_limits[1] and y_limits[0] <= p.y <= y_limits[1] for p in points]
    return Pareto(
        points=tuple(points),
        reference=reference,
        x_label=x.format_label(info.unit),
        y_label=y.format_label(info.unit),
        x_limits=x_limits,
        y_limits=y_limits,
        caption=_format_caption(request, rule.description, each, pairs, reference)
        + (f" {inside.count(False)} of {len(inside)} dots are outside of the axes." if not all(inside) else ""),
    )


def draw_pareto(data: Pareto) -> Figure:
    """Draw gray dots, and colored ones with names on the front."""
    figure = _style.make_figure(_style.COLUMN, 2.5)
    axes = figure.add_subplot()
    front = [point for point in data.points if point.on_front]
    # The points of the front come first, from left to right.
    axes.plot(
        [point.x for point in front],
        [point.y for point in front],
        color="black",
        linewidth=0.8,
        linestyle=":",
        zorder=2,
    )
    colors = _style.assign_colors(list(dict.fromkeys(point.arm for point in front)), data.reference)
    named: set[str] = set()
    for point in data.points:
        is_reference = point.arm == data.reference
        is_new = (point.on_front or is_reference) and point.arm not in named
        named |= {point.arm} if is_new else set()
        behind = _style.REFERENCE_COLOR if is_reference else _style.PALE
        color, marker = colors.get(point.arm, behind), "s" if is_reference else "o"
        _draw_point(axes, point, color if point.on_front else behind, marker, point.arm if is_new else None)
    axes.set_xlim(*data.x_limits)
    axes.set_ylim(*data.y_limits)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.grid()
    _style.finish_figure(figure, data.caption, axes)
    return figure


def _make_point(arm: str, pairs: Sequence[tuple[float, float]]) -> Point:
    x, y = zip(*pairs, strict=True)
    return Point(arm=arm, x=mean(x), y=mean(y), x_sd=compute_sd(x), y_sd=compute_sd(y), on_front=False)


def _compute_limits(marked: Sequence[tuple[float, float]], every: Sequence[float]) -> tuple[float, float]:
    """Return the range of the marked points with their sd and of other points near it, with a margin."""
    spans = [(value, spread if math.isfinite(spread) else 0.0) for value, spread in marked if math.isfinite(value)]
    if not spans:
        return 0.0, 1.0
    low = min(value - spread for value, spread in spans)
    high = max(value + spread for value, spread in spans)
    room = SURROUNDINGS * (high - low)
    near = [value for value in every if low - room <= value <= high + room]
    from_, to = min(low, *near), max(high, *near)
    # A single point has no range to take a share of.
    margin = 0.06 * (to - from_) or 0.5
    return from_ - margin, to + margin


def _format_caption(
    request: _request.PlotRequest,
    rule: str,
    each: str,
    pairs: Mapping[str, Sequence[tuple[float, float]]],
    reference: str | None,
) -> str:
    missing = [arm for arm, found in pairs.items() if not found]
    dots = "complete trials" if each == "trial" else "arms, mean over seeds (± sd where colored or the reference)"
    square = f" Gray square: {reference}, the reference." if reference in pairs else ""
    holes = f" Without both quantities: {', '.join(missing)}." if missing else ""
    return (
        f"{request.study}, {request.split} split, {rule}. Dots: {dots}. Colored: the Pareto front, whose dots no other "
        f"one surpasses in both quantities.{square}{holes}"
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
