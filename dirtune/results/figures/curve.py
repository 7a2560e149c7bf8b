"""Figure `curve`: a metric against a setting that was swept, a line or a cloud per arm (data: `dirtune.results.analysis.curves`)."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.results.analysis.curves import Curve, Line, curve_data
from dirtune.results.figures._arms import shown_lines
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLORS, COLUMN, MARKERS, REFERENCE_COLOR, arm_colors, finish, new_figure
from dirtune.results.tables.render.formats import metric_label

MOST_TICKS = 8


def curve_of(request: PlotRequest) -> Curve:
    """The data of the figure.

    Raises:
        InputError: there is no `x`, an arm is unknown, and as `curve_data`.
    """
    if request.x is None:
        raise InputError(Fault(where="x", rule="a curve needs the setting on its x axis"))
    curve = curve_data(
        request.root,
        request.study,
        request.x,
        metric=request.metric,
        region=request.region,
        split=request.split,
        epoch=request.selection,
    )
    return shown_lines(curve, request.arms, most=len(COLORS))


def draw_curve(curve: Curve) -> Figure:
    """A line or a cloud per arm, the best of each marked with a star."""
    figure = new_figure(COLUMN, 2.1)
    axes = figure.add_subplot()
    colors = arm_colors([line.label for line in curve.lines], None)
    for position, line in enumerate(curve.lines):
        _draw_line(axes, line, colors[line.label], MARKERS[position % len(MARKERS)])
    if curve.reference:
        name, level = curve.reference
        axes.axhline(level, color=REFERENCE_COLOR, linestyle="--", linewidth=1, label=name)
    scale_x(axes, curve)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(f"{metric_label(curve.metric, curve.unit)}, {curve.region}")
    axes.grid()
    finish(figure, _caption(curve), axes)
    return figure


def _draw_line(axes: Axes, line: Line, color: str, marker: str) -> None:
    if line.joined:
        axes.plot(
            line.levels, line.means, color=color, marker=marker, markersize=4, linewidth=1.2, label=line.label or None
        )
        axes.scatter(line.x, line.values, s=6, color=color, alpha=0.45, linewidths=0)
    else:
        axes.scatter(
            line.x, line.values, s=14, color=color, marker=marker, alpha=0.7, linewidths=0, label=line.label or None
        )
    if line.best is not None:
        axes.scatter(
            line.levels[line.best],
            line.means[line.best],
            s=90,
            color=color,
            marker="*",
            edgecolors="black",
            linewidths=0.6,
            zorder=4,
        )


def scale_x(axes: Axes, curve: Curve) -> None:
    """Logarithmic where it spans enough; the few levels of a grid are its ticks then, not powers of ten."""
    if not curve.logarithmic:
        return
    axes.set_xscale("log")
    levels = sorted({level for line in curve.lines for level in line.levels})
    if len(levels) <= MOST_TICKS:
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.set_xticks([], minor=True)


def _caption(curve: Curve) -> str:
    parts = [f"{curve.study}, {curve.split} split, epoch: {curve.epoch}."]
    if any(line.joined for line in curve.lines):
        parts.append("Lines: mean over seeds; dots: single trials.")
    parts.append("Star: best validation objective.")
    if curve.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(curve.left_out.items()))
        parts.append(f"Left out: {reasons}.")
    return " ".join(parts)
