"""Figure `regions`: the arms per shot region, as bars with every single seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import COLUMN, MOST_COLORED, PAGE, arm_colors, finish, lighter, new_figure
from dirtune.results.records.schema import REGIONS
from dirtune.results.tables.render.formats import metric_label


@dataclass(frozen=True, kw_only=True)
class RegionBars:
    """Arms by shot regions; the outer tuples follow `arms`, the inner ones `regions`."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    sds: tuple[tuple[float, ...], ...]
    """Over seeds; NaN for a single seed."""
    seeds: tuple[tuple[tuple[float, ...], ...], ...]
    """The single values."""
    reference: str | None
    label: str
    """Metric and unit."""
    caption: str


def region_bars(
    root: str | Path, study: str, *, metric: str | None, split: str, selection: str, arms: Sequence[str] = ()
) -> RegionBars:
    """The data of the figure, which are those of the study's table.

    Raises:
        InputError: as `arm_table`.
    """
    return region_bars_of(
        PlotRequest(root=root, study=study, metric=metric, split=split, selection=selection, arms=tuple(arms))
    )


def region_bars_of(request: PlotRequest) -> RegionBars:
    """As `region_bars`."""
    table = request.table()
    shown = shown_arms(table.rows, request.arms, reference=table.reference, most=MOST_COLORED)
    rows = {row.arm: row for row in table.rows}
    cells = [[rows[arm].cells[region] for region in REGIONS] for arm in shown.arms]
    holes = sum(len(rows[arm].holes) for arm in shown.arms)
    left_out = f" {holes} values are missing (see the table)." if holes else ""
    return RegionBars(
        arms=shown.arms,
        regions=REGIONS,
        means=tuple(tuple(cell.mean for cell in row) for row in cells),
        sds=tuple(tuple(cell.sd for cell in row) for row in cells),
        seeds=tuple(tuple(tuple(cell.values.values()) for cell in row) for row in cells),
        reference=table.reference,
        label=metric_label(table.metric, table.unit),
        caption=f"{source_of(table)} Bars: mean over seeds; error bars: ± sd over seeds; dots: "
        f"single seeds.{left_out}{shown.note}",
    )


def draw_regions(bars: RegionBars) -> Figure:
    """Bars of the arms, grouped by shot region."""
    figure = new_figure(COLUMN if len(bars.arms) <= 4 else PAGE, 2.0)
    axes = figure.add_subplot()
    width = 0.8 / max(len(bars.arms), 1)
    for position, color in enumerate(arm_colors(bars.arms, bars.reference).values()):
        centres = [group - 0.4 + (position + 0.5) * width for group in range(len(bars.regions))]
        means = bars.means[position]
        axes.bar(
            centres,
            means,
            0.88 * width,
            color=lighter(color),
            edgecolor=color,
            linewidth=0.8,
            label=bars.arms[position],
        )
        # The error bar stands beside the dots: on top of each other neither can be read.
        axes.errorbar(
            [centre + 0.25 * width for centre in centres],
            means,
            bars.sds[position],
            fmt="none",
            ecolor="black",
            elinewidth=0.8,
            capsize=min(1.6, 8 * width),
        )
        for centre, values in zip(centres, bars.seeds[position], strict=True):
            places = [centre - 0.12 * width + shift for shift in _spread(len(values), width)]
            axes.scatter(places, values, s=6, color=color, edgecolors="white", linewidths=0.3, zorder=3)
    axes.set_xticks(range(len(bars.regions)), bars.regions)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("shot region")
    axes.set_ylabel(bars.label)
    axes.grid(axis="y")
    finish(figure, bars.caption, axes)
    return figure


def _spread(count: int, width: float) -> list[float]:
    """Side by side, so that equal values stay visible."""
    step = 0.4 * width / max(count, 3)
    return [(i - (count - 1) / 2) * step for i in range(count)]
