"""Figure `critical_difference`: the mean ranks of the arms, and which of them are not told apart (Demsar, JMLR 2006).

The blocks in which arms are ranked are the seeds of the study in one shot region; with `each="region"` every seed gives
three, one for many, medium and few each, which are not independent: the difference is then smaller than it should be,
and the caption says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis.selection import as_loss
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import COLUMN, MOST_ROWS, PAGE, ROW, finish, new_figure
from dirtune.results.statistics.ranks import LEVEL, Ranking, ranking
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import ArmRow, ArmTable, check_known

EACH = ("seed", "region")
SHOTS = ("many", "medium", "few")
# Arms that a column has room for
NARROW = 6


@dataclass(frozen=True, kw_only=True)
class CriticalDifference:
    """Mean ranks, and the groups within the critical difference."""

    ranks: tuple[tuple[str, float], ...]
    """Arm and mean rank, the best first."""
    cliques: tuple[tuple[float, float], ...]
    """From and to which mean rank."""
    difference: float
    label: str
    caption: str


def critical_difference_data(request: PlotRequest) -> CriticalDifference:
    """The ranks of the table's values; arms without a common block with the others are left out and named.

    Raises:
        InputError: a name is unknown, or there are not two arms with a common seed.
    """
    each = request.one_of(EACH)
    table = request.table()
    check_known("region", request.region, table.regions)
    regions = SHOTS if each == "region" else (request.region,)
    shown = shown_arms(table.rows, request.arms, reference=table.reference, most=MOST_ROWS)
    rows = [row for row in table.rows if row.arm in shown.arms]
    losses = {row.arm: _losses(row, regions, table.metric) for row in rows}
    most = max((len(own) for own in losses.values()), default=0)
    used = {arm: own for arm, own in losses.items() if own and len(own) == most}
    if len(used) < 2 or not set.intersection(*(set(own) for own in used.values())):
        raise request.nothing("has no two arms that are complete on the same seeds yet")
    found = ranking(used)
    return CriticalDifference(
        ranks=tuple(found.mean_ranks.items()),
        cliques=tuple((found.mean_ranks[c[0]], found.mean_ranks[c[-1]]) for c in found.cliques),
        difference=found.critical_difference,
        label=f"mean rank by {metric_label(table.metric, '')}, {'each shot region' if each == 'region' else request.region}",
        caption=_caption(table, found, each) + _left_out(losses, used) + shown.note,
    )


def draw_critical_difference(data: CriticalDifference) -> Figure:
    """Ranks on an axis, the better half of the names on the left, the others on the right; bars join groups, a ruler is on top."""
    count, bars = len(data.ranks), 0.5 * len(data.cliques) + 0.6
    rows = bars + math.ceil(count / 2)
    figure = new_figure(COLUMN if count <= NARROW else PAGE, 0.4 + ROW * (rows + 2.5))
    ruler, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, rows])
    for position, (arm, rank) in enumerate(data.ranks):
        _draw_arm(axes, f" {arm} ({rank:.1f}) ", rank, bars, (position, count))
    for position, (low, high) in enumerate(data.cliques):
        height, more = 0.5 * position + 0.45, 0.006 * (count - 1)
        axes.plot([low - more, high + more], [height] * 2, color="black", linewidth=2.5, clip_on=False)
    axes.set_xlim(1, count)
    axes.set_ylim(rows, 0)
    axes.xaxis.tick_top()
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.spines["top"].set_visible(True)
    ruler.set_title(data.label)
    _draw_ruler(ruler, data.difference, count)
    finish(figure, data.caption)
    return figure


def _draw_arm(axes: Axes, text: str, rank: float, bars: float, place: tuple[int, int]) -> None:
    """A line from the axis down to the arm's row and out to its name."""
    position, count = place
    is_left = position < math.ceil(count / 2)
    row = bars + (position if is_left else count - 1 - position)
    end = 1 - 0.04 * (count - 1) if is_left else count + 0.04 * (count - 1)
    axes.plot([rank, rank, end], [0, row, row], color="black", linewidth=0.7, clip_on=False)
    axes.text(end, row, text, va="center", ha="right" if is_left else "left")


def _draw_ruler(axes: Axes, difference: float, count: int) -> None:
    """The critical difference to scale; one longer than the axis goes beyond it."""
    end = 1 + difference
    axes.plot([1, end], [0, 0], color="black", linewidth=1, marker="|", markersize=5, clip_on=False)
    axes.text(1 + min(difference, count - 1) / 2, 0.3, f"CD = {difference:.2f}", ha="center")
    axes.set_ylim(-1, 2)
    axes.axis("off")


def _losses(row: ArmRow, regions: Sequence[str], metric: str) -> dict[object, float]:
    return {
        (region, seed): as_loss(value, metric) for region in regions for seed, value in row.cells[region].values.items()
    }


def _caption(table: ArmTable, found: Ranking, each: str) -> str:
    of_region = each == "region"
    blocks = "seeds x shot regions (not independent: CD is too small)" if of_region else "seeds"
    p_text = "" if math.isnan(found.p_friedman) else f" Friedman's p = {found.p_friedman:.2g}."
    return (
        f"{source_of(table)} Mean ranks over {found.blocks} {blocks}, 1 is best. Bars join arms whose ranks are less than the "
        f"critical difference CD = {found.critical_difference:.2f} apart (Nemenyi, level {LEVEL:g}).{p_text}"
    )


def _left_out(losses: dict[str, dict[object, float]], used: dict[str, dict[object, float]]) -> str:
    names = [arm for arm in losses if arm not in used]
    return f" Left out, with missing seeds: {', '.join(names)}." if names else ""
