"""Figure `regions`: bars of the arms by shot region, with a dot per seed.

The error bar of an arm is the table's interval of its difference to the reference, drawn at the arm's mean: where it does not
reach the reference's bar, the interval excludes zero. A standard deviation over seeds would look smaller and say nothing on
the test samples.
"""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.metrics import REGIONS
from dirtune.results.figures import _arms, _effects, _floors, _request, _style
from dirtune.results.tables.render.cells import format_metric

MAX_VECTOR_DOTS = 2000
"""More dots are drawn as an image inside a vector file, which would have hundreds of bytes for each."""


@dataclass(frozen=True, kw_only=True)
class RegionBars:
    """Arms by shot regions; the outer tuples follow `arms`, the inner ones `regions`."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    intervals: tuple[tuple[float, ...], ...]
    """Half the 95 % interval of the difference to the reference; NaN for the reference and for a single seed."""
    seeds: tuple[tuple[tuple[float, ...], ...], ...]
    """Values of the single seeds."""
    reference: str | None
    floors: tuple[tuple[str, tuple[float, ...]], ...]
    """Names and values of the floors that are drawn as lines."""
    label: str
    """Metric and unit."""
    caption: str


def build_regions(request: _request.PlotRequest) -> RegionBars:
    """Read the means, standard deviations and values of the study's table.

    Raises:
        InputError: as `make_arm_table`.
    """
    table = request.build_table()
    shown = _arms.select_arms(table.rows, request.arms, reference=table.reference, most=_style.MAX_COLORED_ARMS)
    rows = {row.arm: row for row in table.rows}
    cells = [[rows[arm].cells[region] for region in REGIONS] for arm in shown.arms]
    holes = sum(len(rows[arm].missing) for arm in shown.arms)
    left_out = f" {holes} values are missing (see the table)." if holes else ""
    intervals = "Without a reference there are no intervals."
    if table.reference is not None:
        intervals = f"Error bars: the difference to {table.reference}, {_effects.INTERVALS}."
    return RegionBars(
        arms=shown.arms,
        regions=REGIONS,
        means=tuple(tuple(cell.mean for cell in row) for row in cells),
        intervals=tuple(
            tuple(
                math.nan if cell.difference is None else (cell.difference.high - cell.difference.low) / 2
                for cell in row
            )
            for row in cells
        ),
        seeds=tuple(tuple(tuple(cell.values.values()) for cell in row) for row in cells),
        reference=table.reference,
        floors=tuple(
            (row.name, tuple(row.values[region] for region in REGIONS)) for row in _floors.select_floors(table)
        ),
        label=format_metric(table.metric, table.unit),
        caption=f"{_request.format_source(table)} Bars: mean over seeds; dots: single seeds. {intervals}"
        f"{_floors.format_floors(table, beyond='a number at the upper edge if beyond it')}{left_out}{shown.note}",
    )


def draw_regions(bars: RegionBars) -> Figure:
    """Draw bars of the arms, grouped by shot region."""
    # Four arms in four regions fill a column; more bars would be too thin for their dots.
    figure = _style.make_figure(_style.COLUMN if len(bars.arms) <= 4 else _style.PAGE, 2.0)
    axes = figure.add_subplot()
    width = 0.8 / max(len(bars.arms), 1)
    dots = sum(len(values) for arm in bars.seeds for values in arm)
    for position, color in enumerate(_style.assign_colors(bars.arms, bars.reference).values()):
        centers = [group - 0.4 + (position + 0.5) * width for group in range(len(bars.regions))]
        means = [mean if math.isfinite(mean) else math.nan for mean in bars.means[position]]
        axes.bar(
            centers,
            means,
            0.88 * width,
            color=_style.mix_with_white(color),
            edgecolor=color,
            linewidth=0.8,
            label=bars.arms[position],
        )
        # The error bar is to the right of the dots: on top of each other neither is readable.
        axes.errorbar(
            [center + 0.25 * width for center in centers],
            means,
            bars.intervals[position],
            fmt="none",
            ecolor="black",
            elinewidth=0.8,
            capsize=min(1.6, 8 * width),
        )
        for center, mean in zip(centers, bars.means[position], strict=True):
            if math.isinf(mean):
                axes.annotate(f"{mean:g}", (center, 0), ha="center", va="bottom", fontsize=5.5, rotation=90)
        for center, values in zip(centers, bars.seeds[position], strict=True):
            # Dots next to each other, so that equal values stay visible.
            step, middle = 0.4 * width / max(len(values), 3), (len(values) - 1) / 2
            x = [center - 0.12 * width + (i - middle) * step for i in range(len(values))]
            drawn = axes.scatter(x, values, s=6, color=color, edgecolors="white", linewidths=0.3, zorder=3)
            drawn.set_rasterized(dots > MAX_VECTOR_DOTS)
    # Within the limits of the bars: a floor far above them would leave the arms no room. It is a number at the edge.
    low, high = axes.get_ylim()
    line = 0.08 * (high - low)
    for row, ((name, values), style) in enumerate(zip(bars.floors, _floors.FLOOR_STYLES, strict=False)):
        for group, value in enumerate(values):
            if not value > high:
                axes.plot([group - 0.46, group + 0.46], [value, value], color="black", linestyle=style, linewidth=0.6)
                continue
            text = f"{name} {value:.3g} \N{UPWARDS ARROW}"
            axes.text(group, high + (row + 0.1) * line, text, ha="center", va="bottom", fontsize=5.5)
    # Room for the numbers, above the bars.
    rows = [row for row, (_, values) in enumerate(bars.floors) if any(value > high for value in values)]
    axes.set_ylim(low, high + line * (max(rows) + 1 if rows else 0))
    axes.set_xticks(range(len(bars.regions)), bars.regions)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("shot region")
    axes.set_ylabel(bars.label)
    axes.grid(axis="y")
    _style.finish_figure(figure, bars.caption, axes)
    return figure
