"""Figure `curve`: a metric against a setting, with a line or dots per arm (data: `dirtune.results.analysis.curves`)."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.results.analysis.curves import Curve, CurveLine, read_curve
from dirtune.results.figures import _arms, _request, _style
from dirtune.results.tables.render.cells import format_metric

MAX_TICKS = 8
"""Levels that are labeled one by one."""


def build_curve(request: _request.PlotRequest) -> Curve:
    """Read the lines of the arms.

    Raises:
        InputError: there is no `x`, an arm is unknown, and as `read_curve`.
    """
    if request.x is None:
        raise InputError(Fault(where="x", rule="curve needs the setting of its x axis"))
    curve = read_curve(
        request.root,
        request.study,
        request.x,
        metric=request.metric,
        region=request.region,
        split=request.split,
        epoch=request.selection,
    )
    return _arms.select_lines(curve, request.arms, most=len(_style.COLORS))


def draw_curve(curve: Curve) -> Figure:
    """Draw a line or dots per arm, and a star at the best level of each."""
    figure = _style.make_figure(_style.COLUMN, 2.1)
    axes = figure.add_subplot()
    colors = _style.assign_colors([line.label for line in curve.lines], None)
    for position, line in enumerate(curve.lines):
        _draw_line(axes, line, colors[line.label], _style.MARKERS[position % len(_style.MARKERS)])
    # The reference may have no value of the setting; its mean is a horizontal line.
    if curve.reference:
        name, level = curve.reference
        axes.axhline(level, color=_style.REFERENCE_COLOR, linestyle="--", linewidth=1, label=name)
    if curve.logarithmic:
        axes.set_xscale("log")
        levels = sorted({level for line in curve.lines for level in line.levels})
        # The few levels of a grid are better ticks than powers of ten.
        if len(levels) <= MAX_TICKS:
            axes.set_xticks(levels, [f"{level:g}" for level in levels])
            # Over less than a decade matplotlib labels the minor ticks, too.
            axes.set_xticks([], minor=True)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(f"{format_metric(curve.metric, curve.unit)}, {curve.region}")
    axes.grid()
    _style.finish_figure(figure, _format_caption(curve), axes)
    return figure


def _draw_line(axes: Axes, line: CurveLine, color: str, marker: str) -> None:
    # Trials of a grid have common levels, whose means are joined; those of a search have not.
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


def _format_caption(curve: Curve) -> str:
    parts = [f"{curve.study}, {curve.split} split, epoch: {curve.epoch}."]
    if any(line.joined for line in curve.lines):
        parts.append("Lines: mean over seeds; dots: single trials.")
    parts.append("Star: best validation objective.")
    if curve.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(curve.left_out.items()))
        parts.append(f"Left out: {reasons}.")
    return " ".join(parts)
