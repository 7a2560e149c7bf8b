"""Figure `forest`: the paired difference of every arm to the reference with its interval, one panel per shot region.

An interval that stays clear of the zero line is a difference that one comparison alone would call significant; a filled
marker is one that stays significant after the correction for all comparisons. With three seeds intervals are long; one
of a diverged arm would squeeze all others, so an axis reaches three times the median distance of an interval's far end
from zero, and what leaves it has an arrow and its number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.figures._arms import compared
from dirtune.results.figures._effects import COLORS_SAY, Effect, draw_effects, effect_of, limits_of
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import MOST_ROWS, PAGE, ROW, finish, new_figure
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import Cell

# Of a figure's height: below it, titles and captions leave none for the axes
FEWEST_ROWS = 3


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Effects by region and arm, and how far each region's axis reaches."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    effects: tuple[tuple[Effect, ...], ...]
    """By region, then arm."""
    limits: tuple[tuple[float, float], ...]
    """Of each region's axis."""
    label: str
    caption: str


def forest_data(request: PlotRequest) -> Forest:
    """The table's paired differences with their Student t intervals (`dirtune.results.statistics.paired`).

    Raises:
        InputError: there is no reference or no arm to compare with it, and as `arm_table`.
    """
    shown = compared(request, most=MOST_ROWS)
    table, arms = shown.table, shown.arms
    effects = tuple(tuple(_effect(shown.cells[arm][region], table.metric) for arm in arms) for region in table.regions)
    if all(math.isnan(effect.mean) for row in effects for effect in row):
        raise request.nothing(f"has no seed that {table.reference} and another arm both have yet")
    return Forest(
        arms=arms,
        regions=table.regions,
        effects=effects,
        limits=tuple(limits_of(row) for row in effects),
        label=f"{metric_label(table.metric, table.unit)}: difference to {table.reference}",
        caption=f"{source_of(table)} Difference to {table.reference}, paired by seed: mean and 95 % interval (Student's t). "
        f"{COLORS_SAY} p < {SIGNIFICANT:g}, paired t test, Holm-corrected (comparisons of a "
        f"region: {len(table.arms) - 1}). Arrows: beyond the axis; a number is a mean there.{shown.note}",
    )


def draw_forest(data: Forest) -> Figure:
    """A panel per region, a line per arm."""
    figure = new_figure(PAGE, 0.6 + ROW * max(len(data.arms), FEWEST_ROWS))
    panels: Sequence[Axes] = figure.subplots(1, len(data.regions), sharey=True, squeeze=False)[0]
    for axes, region, effects, limit in zip(panels, data.regions, data.effects, data.limits, strict=True):
        axes.set_title(region)
        draw_effects(axes, effects, limit)
    panels[0].set_yticks(range(len(data.arms)), data.arms)
    # The first arm on top
    panels[0].set_ylim(len(data.arms) - 0.4, -0.6)
    figure.suptitle(data.label, fontsize=8)
    finish(figure, data.caption)
    return figure


def _effect(cell: Cell, metric: str) -> Effect:
    return effect_of(cell.difference, cell.p_holm, metric)
