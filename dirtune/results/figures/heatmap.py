"""Figure `heatmap`: arms by shot regions, the paired difference to the reference in every cell.

Blue is better and orange is worse, whichever way the metric goes; white is no difference. One diverged arm would leave
all other cells white, so the colours end at the 90th percentile of the differences' sizes, rounded up to two digits, and
the caption says where.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.figures._arms import compared
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import COLUMN, DIVERGING, MOST_ROWS, ROW, finish, new_figure, text_color
from dirtune.results.tables.celltext import decimals_of
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import Cell

PERCENT_DECIMALS = 1
# Quantile of the sizes that gets the full colour
FULL_COLOR = 0.9


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Differences by arm and region; the outer tuples follow `arms`, the inner ones `regions`."""

    arms: tuple[str, ...]
    """Without the reference."""
    regions: tuple[str, ...]
    differences: tuple[tuple[float, ...], ...]
    """NaN without a pair of seeds."""
    significant: tuple[tuple[bool, ...], ...]
    limit: float
    """Size that gets the full colour."""
    good_is: int
    """-1: negative differences are good; 1: positive ones."""
    label: str
    """Of the colour bar."""
    decimals: int
    """Of the numbers."""
    caption: str


def heatmap_data(request: PlotRequest) -> Heatmap:
    """The table's paired differences; `relative`: in percent of the reference's mean over the same seeds.

    Raises:
        InputError: there is no reference or no arm to compare with it, and as `arm_table`.
    """
    shown = compared(request, most=MOST_ROWS)
    table, arms, base = shown.table, shown.arms, shown.cells[shown.reference]
    differences = tuple(
        tuple(
            _difference(shown.cells[arm][region], base[region], relative=request.relative) for region in table.regions
        )
        for arm in arms
    )
    if not np.isfinite(np.array(differences)).any():
        raise request.nothing(f"has no seed that {table.reference} and another arm both have yet")
    label = metric_label(table.metric, "%" if request.relative else table.unit)
    return Heatmap(
        arms=arms,
        regions=table.regions,
        differences=differences,
        significant=tuple(
            tuple(shown.cells[arm][region].p_holm < SIGNIFICANT for region in table.regions) for arm in arms
        ),
        limit=(limit := _limit(differences)),
        good_is=1 if table.metric in HIGHER_IS_BETTER else -1,
        label=f"{label}: difference to {table.reference}",
        decimals=PERCENT_DECIMALS if request.relative else decimals_of(table),
        caption=f"{source_of(table)} Differences to {table.reference}, paired by seed, mean; blue is better. * "
        f"p < {SIGNIFICANT:g}, paired t test, Holm-corrected (comparisons of a column: {len(table.arms) - 1}). "
        f"Colours end at ±{limit:.3g}; an empty cell has no pair.{shown.note}",
    )


def draw_heatmap(data: Heatmap) -> Figure:
    """A cell per arm and region, coloured and with its number."""
    figure = new_figure(COLUMN, 0.75 + ROW * len(data.arms))
    axes = figure.add_subplot()
    goodness = -data.good_is * np.array(data.differences)
    image = axes.imshow(goodness, DIVERGING, aspect="auto", vmin=-data.limit, vmax=data.limit)
    for row, values in enumerate(data.differences):
        for column, value in enumerate(values):
            background = image.to_rgba(goodness[row, column])
            _write(axes, row, column, value, data, text_color(tuple(background)))
    axes.set_xticks(range(len(data.regions)), data.regions)
    axes.set_yticks(range(len(data.arms)), data.arms)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.02)
    ends = np.array([-data.limit, 0.0, data.limit])
    bar.set_ticks(ends.tolist(), labels=[f"{-data.good_is * end + 0.0:.3g}" for end in ends])
    bar.set_label(data.label)
    bar.outline.set_visible(False)
    finish(figure, data.caption)
    return figure


def _difference(cell: Cell, base: Cell, *, relative: bool) -> float:
    found = cell.difference
    if found is None or not found.n:
        return math.nan
    if not relative:
        return found.mean
    seeds = cell.values.keys() & base.values.keys()
    level = sum(base.values[seed] for seed in seeds) / len(seeds)
    return 100 * found.mean / abs(level) if level else math.nan


def _limit(differences: tuple[tuple[float, ...], ...]) -> float:
    sizes = np.abs(np.array(differences))
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(sizes, FULL_COLOR)) or float(sizes.max())
    if not limit:
        return 1.0
    unit = 10.0 ** (math.floor(math.log10(limit)) - 1)
    return math.ceil(round(limit / unit, 6)) * unit


def _write(axes: Axes, row: int, column: int, value: float, data: Heatmap, color: str) -> None:
    if math.isnan(value):
        return
    mark = "*" if data.significant[row][column] else ""
    text = f"{value:+.{data.decimals}f}{mark}"
    axes.text(column, row, text, ha="center", va="center", color=color)
