"""Figure `data_efficiency`: a metric against the share of the training data, a line per arm with its spread over seeds.

It is `curve` for the setting that says how much is trained on (`x`; by default `data.fraction`), on a logarithmic axis:
errors fall about as a power of the number of samples, and what a method saves is the distance between two lines along it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.curves import Curve, Line, curve_data
from dirtune.results.figures._arms import shown_lines
from dirtune.results.figures._bands import Band, band, draw_bands
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, MOST_LINES, finish, new_figure
from dirtune.results.records.studies import open_study, read_study
from dirtune.results.tables.render.formats import metric_label

FRACTION = "data.fraction"
MOST_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class DataEfficiency:
    """A band per arm over the values of the setting."""

    bands: tuple[Band, ...]
    reference: str | None
    ticks: tuple[float, ...]
    """The values, if there are few."""
    logarithmic: bool
    x_label: str
    y_label: str
    caption: str


def data_efficiency_data(request: PlotRequest) -> DataEfficiency:
    """Every arm's trials by the value of the setting.

    Raises:
        InputError: no trial has the setting as a number, none of them is complete, and as `curve_data`.
    """
    curve = curve_data(
        request.root,
        request.study,
        request.x or FRACTION,
        metric=request.metric,
        region=request.region,
        split=request.split,
        epoch=request.selection,
    )
    if not curve.lines:
        raise request.nothing(f"has no complete trial with {curve.x} yet")
    curve = shown_lines(curve, request.arms, most=MOST_LINES)
    levels = sorted({level for line in curve.lines for level in line.levels})
    return DataEfficiency(
        bands=tuple(_band(line) for line in curve.lines),
        reference=_reference(request, curve.x),
        ticks=tuple(levels) if len(levels) <= MOST_TICKS else (),
        logarithmic=levels[0] > 0 and len(levels) > 1,
        x_label="share of the training data" if curve.x.endswith("fraction") else curve.x,
        y_label=f"{metric_label(curve.metric, curve.unit)}, {curve.region}",
        caption=_caption(curve),
    )


def draw_data_efficiency(data: DataEfficiency) -> Figure:
    """Lines with markers and bands."""
    figure = new_figure(COLUMN, 2.2)
    axes = figure.add_subplot()
    draw_bands(axes, data.bands, data.reference, markers=True)
    if data.logarithmic:
        axes.set_xscale("log")
    if data.ticks:
        axes.set_xticks(data.ticks, [f"{tick:g}" for tick in data.ticks])
        axes.set_xticks([], minor=True)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.grid()
    finish(figure, data.caption, axes)
    return figure


def _reference(request: PlotRequest, setting: str) -> str | None:
    """The line of the reference arm, which has its value of the setting in its name."""
    info = read_study(open_study(request.root, request.study))
    words = (request.reference or info.reference or "").split()
    level = f"{setting.rsplit('.', 1)[-1]}="
    return " ".join(word for word in words if not word.startswith(level)) or None


def _band(line: Line) -> Band:
    by_level: dict[float, list[float]] = defaultdict(list)
    for x, value in zip(line.x, line.values, strict=True):
        by_level[x].append(value)
    return band(line.label, by_level)


def _caption(curve: Curve) -> str:
    parts = [f"{curve.study}, {curve.split} split, epoch: {curve.epoch}. Lines: mean over the trials of a share ± sd."]
    if curve.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(curve.left_out.items()))
        parts.append(f"Left out: {reasons}.")
    return " ".join(parts)
