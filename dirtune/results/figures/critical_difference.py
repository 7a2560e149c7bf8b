"""Figure `critical_difference`: mean ranks of the arms, and groups without a significant difference (Demsar, JMLR 2006).

Arms are ranked in blocks: the seeds of the study in one shot region. They are independent given the data, so the ranks are
about these test samples. Below five blocks the critical difference is longer than the axis for most numbers of arms.
"""

import math
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis.selection import to_loss
from dirtune.results.figures import _arms, _request, _style
from dirtune.results.records.names import check_known
from dirtune.results.statistics.ranks import LEVEL, rank_arms
from dirtune.results.tables.render.cells import format_metric

MIN_BLOCKS = 5
MAX_COLUMN_ARMS = 6
"""Arms that the width of a column has room for."""


@dataclass(frozen=True, kw_only=True)
class CriticalDifference:
    """Mean ranks, and the groups of arms within the critical difference."""

    ranks: tuple[tuple[str, float], ...]
    """Arms and their mean ranks, the best first."""
    cliques: tuple[tuple[float, float], ...]
    """First and last mean rank of every group."""
    difference: float
    label: str
    caption: str


def build_critical_difference(request: _request.PlotRequest) -> CriticalDifference:
    """Rank the arms by the table's values; the caption names arms that miss blocks of the others and are left out.

    Raises:
        InputError: a name is unknown, or there are not two arms with five common seeds.
    """
    table = request.build_table()
    check_known("region", request.region, table.regions)
    _arms.check_independence(request, table)
    shown = _arms.select_arms(table.rows, request.arms, reference=table.reference, most=_style.MAX_ROWS)
    rows = [row for row in table.rows if row.arm in shown.arms]
    losses: dict[str, dict[object, float]] = {
        row.arm: {seed: to_loss(value, table.metric) for seed, value in row.cells[request.region].units.items()}
        for row in rows
    }
    # Ranks need complete blocks, so that an arm with a missing seed is left out.
    most = max((len(own) for own in losses.values()), default=0)
    used = {arm: own for arm, own in losses.items() if own and len(own) == most}
    if len(used) < 2 or not set.intersection(*(set(own) for own in used.values())):
        raise request.make_error("has no two arms with trials of the same seeds yet")
    found = rank_arms(used)
    if found.blocks < MIN_BLOCKS:
        raise request.make_error(
            f"needs {MIN_BLOCKS} seeds that all arms have, for ranks to differ; has {found.blocks}"
        )
    names = [arm for arm in losses if arm not in used]
    left_out = f" Left out, with missing seeds: {', '.join(names)}." if names else ""
    p_text = "" if math.isnan(found.p_friedman) else f" Friedman's p = {found.p_friedman:.2g}."
    return CriticalDifference(
        ranks=tuple(found.mean_ranks.items()),
        cliques=tuple((found.mean_ranks[c[0]], found.mean_ranks[c[-1]]) for c in found.cliques),
        difference=found.critical_difference,
        label=f"mean rank by {format_metric(table.metric, '')}, {request.region}",
        caption=f"{_request.format_source(table)} Mean ranks over {found.blocks} seeds, on these test samples, 1 is best. "
        f"Bars join arms whose ranks are less than the critical difference CD = {found.critical_difference:.2f} apart "
        f"(Nemenyi, level {LEVEL:g}).{p_text}{left_out}{shown.note}",
    )


def draw_critical_difference(data: CriticalDifference) -> Figure:
    """Draw ranks on an axis, the better half of the names on the left; bars join groups, a ruler is on top."""
    count, bars = len(data.ranks), 0.5 * len(data.cliques) + 0.6
    rows = bars + math.ceil(count / 2)
    figure = _style.make_figure(
        _style.COLUMN if count <= MAX_COLUMN_ARMS else _style.PAGE, 0.4 + _style.ROW * (rows + 2.5)
    )
    # The ruler shares the axis of the ranks, so that the critical difference is to scale.
    ruler, axes = figure.subplots(2, 1, sharex=True, height_ratios=[1.5, rows])
    for position, (arm, rank) in enumerate(data.ranks):
        _draw_arm(axes, f" {arm} ({rank:.1f}) ", rank, bars, (position, count))
    for position, (low, high) in enumerate(data.cliques):
        # A bar extends a little beyond the ranks that it joins.
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
    # The critical difference to scale; it extends beyond an axis that is shorter.
    ruler.plot([1, 1 + data.difference], [0, 0], color="black", linewidth=1, marker="|", markersize=5, clip_on=False)
    ruler.text(1 + min(data.difference, count - 1) / 2, 0.3, f"CD = {data.difference:.2f}", ha="center")
    ruler.set_ylim(-1, 2)
    ruler.axis("off")
    _style.finish_figure(figure, data.caption)
    return figure


def _draw_arm(axes: Axes, text: str, rank: float, bars: float, place: tuple[int, int]) -> None:
    """Draw a line from the axis down to the arm's row and out to its name."""
    position, count = place
    is_left = position < math.ceil(count / 2)
    row = bars + (position if is_left else count - 1 - position)
    end = 1 - 0.04 * (count - 1) if is_left else count + 0.04 * (count - 1)
    axes.plot([rank, rank, end], [0, row, row], color="black", linewidth=0.7, clip_on=False)
    axes.text(end, row, _style.shorten_name(text), va="center", ha="right" if is_left else "left")
