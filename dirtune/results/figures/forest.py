"""Figure `forest`: the paired difference of every arm to the reference with its interval, in one panel per shot region.

Intervals are those of the table, over seeds and test samples, for orientation; a filled marker is a word of the table, in the
panel of the study's claim alone. Intervals of three seeds are long, and the one of a diverged arm would compress all others. An axis therefore reaches at most three times the median distance of the intervals' far ends
from zero; an arrow and a number mark what is beyond it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.figures import _arms, _effects, _floors, _request, _style
from dirtune.results.tables.render.cells import format_metric

MIN_ROWS = 3
"""Minimum height: with fewer rows, title and caption would leave no room for the axes."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """Effects by region and arm, and the limits of each region's axis."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    effects: tuple[tuple[_effects.Effect, ...], ...]
    """By region, then by arm."""
    limits: tuple[tuple[float, float], ...]
    """Limits of each region's axis."""
    floors: tuple[tuple[float, ...], ...]
    """By region, the differences of the drawn floors to the reference's mean."""
    label: str
    caption: str


def build_forest(request: _request.PlotRequest) -> Forest:
    """Read the table's paired differences with their intervals (`dirtune.results.statistics.joint`).

    Raises:
        InputError: there is no reference or no arm to compare with it, and as `make_arm_table`.
    """
    shown = _arms.compare_arms(request, most=_style.MAX_ROWS)
    table, arms = shown.table, shown.arms
    effects = tuple(
        tuple(
            _effects.make_effect(cell.difference, cell.p_holm, table.metric)
            for cell in (shown.cells[arm][region] for arm in arms)
        )
        for region in table.regions
    )
    if all(math.isnan(effect.mean) for row in effects for effect in row):
        raise request.make_error(f"has no common seed of {table.reference} and another arm yet")
    return Forest(
        arms=arms,
        regions=table.regions,
        effects=effects,
        limits=tuple(_effects.compute_limits(row) for row in effects),
        floors=tuple(
            tuple(
                row.values[region] - shown.cells[shown.reference][region].mean for row in _floors.select_floors(table)
            )
            for region in table.regions
        ),
        label=f"{format_metric(table.metric, table.unit)}: difference to {table.reference}",
        caption=f"{_request.format_source(table)} Difference to {table.reference}: mean, and {_effects.INTERVALS}. "
        f"{_effects.CLAIM_KEY}. {table.claim.describe()} Arrows: beyond the axis; a number is a mean there.{_floors.format_floors(table)}{shown.note}",
    )


def draw_forest(data: Forest) -> Figure:
    """Draw a panel per region with a row per arm."""
    figure = _style.make_figure(_style.PAGE, 0.6 + _style.ROW * max(len(data.arms), MIN_ROWS))
    panels: Sequence[Axes] = figure.subplots(1, len(data.regions), sharey=True, squeeze=False)[0]
    for axes, region, effects, limit, floors in zip(
        panels, data.regions, data.effects, data.limits, data.floors, strict=True
    ):
        axes.set_title(region)
        _effects.draw_effects(axes, effects, limit)
        for value, style in zip(floors, _floors.FLOOR_STYLES, strict=False):
            if limit[0] < value < limit[1]:
                axes.axvline(value, color="black", linestyle=style, linewidth=0.6, zorder=1)
    panels[0].set_yticks(range(len(data.arms)), data.arms)
    # Reversed, so that the first arm is on top.
    panels[0].set_ylim(len(data.arms) - 0.4, -0.6)
    figure.suptitle(data.label, fontsize=8)
    _style.finish_figure(figure, data.caption)
    return figure
