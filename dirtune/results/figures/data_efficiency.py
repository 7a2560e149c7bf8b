"""Figure `data_efficiency`: a metric against the share of the training data, with a line per arm and its spread over seeds.

As `curve`, for the setting of the amount of training data (`x`, by default `data.fraction`), on a logarithmic axis: errors
fall about as a power of the number of samples, and the horizontal distance between two lines is the data that a method
saves.
"""

from collections import defaultdict
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.curves import read_curve
from dirtune.results.figures import _arms, _bands, _request, _style
from dirtune.results.records.studies import open_study, read_study
from dirtune.results.tables.render.cells import format_metric

FRACTION = "data.fraction"
MAX_TICKS = 7


@dataclass(frozen=True, kw_only=True)
class DataEfficiency:
    """A band per arm over the values of the setting."""

    bands: tuple[_bands.Band, ...]
    reference: str | None
    ticks: tuple[float, ...]
    """The values of the setting if there are few, else empty."""
    logarithmic: bool
    x_label: str
    y_label: str
    caption: str


def build_data_efficiency(request: _request.PlotRequest) -> DataEfficiency:
    """Group every arm's trials by the value of the setting.

    Raises:
        InputError: no complete trial has the setting as a number, and as `read_curve`.
    """
    curve = read_curve(
        request.root,
        request.study,
        request.x or FRACTION,
        metric=request.metric,
        region=request.region,
        split=request.split,
        epoch=request.selection,
    )
    if not curve.lines:
        raise request.make_error(f"has no complete trial with {curve.x} yet")
    curve = _arms.select_lines(curve, request.arms, most=_style.MAX_LINES)
    # A line's label is the name of its arm without the value of the setting.
    reference = request.reference or read_study(open_study(request.root, request.study)).reference or ""
    level = f"{curve.x.rsplit('.', 1)[-1]}="
    words = [word for word in reference.split() if not word.startswith(level)]
    levels = sorted({level for line in curve.lines for level in line.levels})
    reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(curve.left_out.items()))
    bands = []
    for line in curve.lines:
        by_level: dict[float, list[float]] = defaultdict(list)
        for x, value in zip(line.x, line.values, strict=True):
            by_level[x].append(value)
        bands.append(_bands.make_band(line.label, by_level))
    return DataEfficiency(
        bands=tuple(bands),
        reference=" ".join(words) or None,
        ticks=tuple(levels) if len(levels) <= MAX_TICKS else (),
        # A single level has no logarithmic axis.
        logarithmic=levels[0] > 0 and len(levels) > 1,
        x_label="share of the training data" if curve.x.endswith("fraction") else curve.x,
        y_label=f"{format_metric(curve.metric, curve.unit)}, {curve.region}",
        caption=f"{curve.study}, {curve.split} split, epoch: {curve.epoch}. Lines: mean over the trials of a share ± sd."
        + (f" Left out: {reasons}." if reasons else ""),
    )


def draw_data_efficiency(data: DataEfficiency) -> Figure:
    """Draw lines with markers and bands."""
    figure = _style.make_figure(_style.COLUMN, 2.2)
    axes = figure.add_subplot()
    _bands.draw_bands(axes, data.bands, data.reference, markers=True)
    if data.logarithmic:
        axes.set_xscale("log")
    if data.ticks:
        axes.set_xticks(data.ticks, [f"{tick:g}" for tick in data.ticks])
        # Over less than a decade matplotlib labels the minor ticks, too.
        axes.set_xticks([], minor=True)
    axes.set_xlabel(data.x_label)
    axes.set_ylabel(data.y_label)
    axes.grid()
    _style.finish_figure(figure, data.caption, axes)
    return figure
