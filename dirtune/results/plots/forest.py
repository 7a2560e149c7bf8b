"""Figure `forest`: the paired difference of every arm to the reference with its interval, one panel per shot region.

An interval that stays clear of the zero line is a difference that one comparison alone would call significant; a filled
marker is one that stays significant after the correction for all comparisons. With three seeds intervals are long; one
of a diverged arm would squeeze all others, so an axis reaches three times the median distance of an interval's far end
from zero, and what leaves it has an arrow.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.plots.request import PlotRequest, source_of
from dirtune.results.plots.shown import compared
from dirtune.results.plots.style import (
    BAD,
    GOOD,
    MOST_ROWS,
    PAGE,
    ROW,
    finish,
    new_figure,
)
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.rendering import metric_label
from dirtune.results.tables.table import Cell

EXTENT = 3.0  # of the median distance from zero to an interval's far end


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One arm in one region; arm minus reference."""

    mean: float  # NaN without a pair of seeds
    low: float  # ends of the 95 % interval; NaN below two pairs
    high: float
    significant: bool  # after correction
    good: bool  # the sign of the mean is that of an improvement


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Effects by region and arm, and how far each region's axis reaches."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    effects: tuple[tuple[Effect, ...], ...]  # by region, then arm
    limits: tuple[tuple[float, float], ...]  # of each region's axis
    label: str
    caption: str


def forest_data(request: PlotRequest) -> Forest:
    """The table's paired differences with their Student t intervals (`dirtune.results.statistics.paired`).

    Raises:
        InputError: there is no reference or no arm to compare with it, and as `arm_table`.
    """
    shown = compared(request, most=MOST_ROWS)
    table, arms = shown.table, shown.arms
    sign = 1 if table.metric in HIGHER_IS_BETTER else -1
    effects = tuple(
        tuple(_effect(shown.cells[arm][region], sign) for arm in arms) for region in table.regions
    )
    if all(math.isnan(effect.mean) for row in effects for effect in row):
        raise request.nothing(f"has no seed that {table.reference} and another arm both have yet")
    return Forest(
        arms=arms,
        regions=table.regions,
        effects=effects,
        limits=tuple(_limits(row) for row in effects),
        label=f"{metric_label(table.metric, table.unit)}: difference to {table.reference}",
        caption=f"{source_of(table)} Difference to {table.reference}, paired by seed: mean and 95 % interval (Student's t). "
        f"Blue is better, orange worse; filled: p < {SIGNIFICANT:g}, paired t test, Holm-corrected over the "
        f"{len(table.arms) - 1} comparisons of a region. Arrows: beyond the axis.{shown.note}",
    )


def draw_forest(data: Forest) -> Figure:
    """A panel per region, a line per arm."""
    figure = new_figure(PAGE, 0.6 + ROW * len(data.arms))
    panels: Sequence[Axes] = figure.subplots(1, len(data.regions), sharey=True, squeeze=False)[0]
    for axes, region, effects, limit in zip(
        panels, data.regions, data.effects, data.limits, strict=True
    ):
        axes.set_title(region)
        axes.axvline(0.0, color="black", linewidth=0.8, zorder=1)
        for position, effect in enumerate(effects):
            _draw_effect(axes, position, effect, limit)
        axes.set_xlim(*limit)
        axes.grid(axis="y")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(data.arms)), data.arms)
    panels[0].set_ylim(len(data.arms) - 0.4, -0.6)  # the first arm on top
    figure.suptitle(data.label, fontsize=8)
    finish(figure, data.caption)
    return figure


def _effect(cell: Cell, sign: int) -> Effect:
    found = cell.difference
    if found is None or not found.n:
        return Effect(mean=math.nan, low=math.nan, high=math.nan, significant=False, good=False)
    return Effect(
        mean=found.mean,
        low=found.low,
        high=found.high,
        significant=cell.p_holm < SIGNIFICANT,
        good=sign * found.mean > 0,
    )


def _limits(effects: Sequence[Effect]) -> tuple[float, float]:
    """From the lowest to the highest end, as far as the rule lets an axis reach, and zero with it."""
    ends = np.array([[e.mean, e.low, e.high] for e in effects if not math.isnan(e.mean)])
    if not ends.size or not np.nanmax(np.abs(ends)):
        return -1.0, 1.0
    far = np.nanmax(np.abs(ends), axis=1)
    reach = min(EXTENT * float(np.median(far)) or math.inf, float(far.max()))
    low, high = np.clip([min(np.nanmin(ends), 0.0), max(np.nanmax(ends), 0.0)], -reach, reach)
    free = 0.06 * (high - low)
    return float(low - free), float(high + free)


def _draw_effect(axes: Axes, row: int, effect: Effect, limits: tuple[float, float]) -> None:
    if math.isnan(effect.mean):
        return
    color = GOOD if effect.good else BAD
    ends = np.nan_to_num([effect.low, effect.high], nan=effect.mean)
    axes.plot(np.clip(ends, *limits), [row, row], color=color, linewidth=1.1, solid_capstyle="butt")
    if limits[0] < effect.mean < limits[1]:
        face = color if effect.significant else "white"
        axes.scatter(effect.mean, row, s=14, color=face, edgecolors=color, linewidths=0.9, zorder=3)
    for is_beyond, place, arrow in zip(
        (ends[0] < limits[0], ends[1] > limits[1]), limits, "<>", strict=True
    ):
        if is_beyond:
            axes.scatter(place, row, s=12, color=color, marker=arrow, clip_on=False, zorder=3)
