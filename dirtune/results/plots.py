"""Figures of a study: every one is a data function, which has all the logic, and a draw function, which has none.

`regions` shows the arms per shot region, `curve` a metric against a setting that was swept. Figures are made at the
width of a paper's column, in colours that colour-blind readers can tell apart (Okabe and Ito, "Color Universal Design",
2008), and say below what is shown and what is left out. Nothing uses pyplot, so that no window system and no other
figure is touched.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.results.curves import Curve, Line, curve_data
from dirtune.results.schema import REGIONS
from dirtune.results.tables.rendering import metric_label
from dirtune.results.tables.table import arm_table, check_known

PLOTS = ("regions", "curve")
FILE_TYPES = (".pdf", ".png", ".svg")
COLUMN, PAGE = 3.5, 7.0  # inches
CHARACTERS_PER_INCH = 14  # of the legend
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
REFERENCE_COLOR = "#8C8C8C"
MARKERS = "osD^vPX"
MOST_TICKS = 8
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.4,
    "pdf.fonttype": 42,  # text stays text: publishers refuse the default
    "svg.fonttype": "none",
}


@dataclass(frozen=True, kw_only=True)
class RegionBars:
    """Arms by shot regions; the outer tuples follow `arms`, the inner ones `regions`."""

    arms: tuple[str, ...]
    regions: tuple[str, ...]
    means: tuple[tuple[float, ...], ...]
    sds: tuple[tuple[float, ...], ...]  # over seeds; NaN for a single seed
    seeds: tuple[tuple[tuple[float, ...], ...], ...]  # the single values
    reference: str | None
    label: str  # metric and unit
    caption: str


def plot(
    root: str | Path,
    study: str,
    kind: str,
    *,
    x: str | None = None,
    output: Path,
    metric: str | None = None,
    region: str = "all",
    split: str = "test",
    selection: str = "best_val",
) -> Path:
    """Draw a figure of a study into a file, and return its path.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        kind: regions or curve.
        x: of a curve, the setting on the x axis, such as `terms.conr.omega`.
        output: a .png, .pdf or .svg file.
        metric: none: the metric of the study's objective.
        region: of a curve, the shot region.
        split: test or val.
        selection: a rule of `SELECTIONS`; of a curve, best_val or last.

    Raises:
        InputError: a name is unknown, a curve has no `x`, or a file is damaged.
    """
    check_known("plot", kind, PLOTS)
    check_known("type of file", output.suffix, FILE_TYPES)
    with mpl.rc_context(STYLE):
        if kind == "regions":
            bars = region_bars(root, study, metric=metric, split=split, selection=selection)
            figure = draw_regions(bars)
        elif x is None:
            raise InputError(Fault(where="x", rule="a curve needs the setting on its x axis"))
        else:
            curve = curve_data(
                root, study, x, metric=metric, region=region, split=split, epoch=selection
            )
            figure = draw_curve(curve)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=300, bbox_inches="tight", pad_inches=0.03)
    return output


def region_bars(
    root: str | Path, study: str, *, metric: str | None, split: str, selection: str
) -> RegionBars:
    """The data of the figure `regions`, which are those of the study's table.

    Raises:
        InputError: as `arm_table`.
    """
    table = arm_table(root, study, metric=metric, split=split, selection=selection)
    cells = [[row.cells[region] for region in REGIONS] for row in table.rows]
    holes = sum(len(row.holes) for row in table.rows)
    left_out = f" {holes} values are missing (see the table)." if holes else ""
    return RegionBars(
        arms=tuple(row.arm for row in table.rows),
        regions=REGIONS,
        means=tuple(tuple(cell.mean for cell in row) for row in cells),
        sds=tuple(tuple(cell.sd for cell in row) for row in cells),
        seeds=tuple(tuple(tuple(cell.values.values()) for cell in row) for row in cells),
        reference=table.reference,
        label=metric_label(table.metric, table.unit),
        caption=f"{study}, {split} split, {table.description}. Bars: mean over seeds; "
        f"error bars: ± sd over seeds; dots: single seeds.{left_out}",
    )


def draw_regions(bars: RegionBars) -> Figure:
    """Bars of the arms, grouped by shot region."""
    figure = Figure(figsize=(COLUMN if len(bars.arms) <= 4 else PAGE, 2.3), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(len(bars.arms), 1)
    for position, color in enumerate(_colors(bars.arms, bars.reference).values()):
        centres = [group - 0.4 + (position + 0.5) * width for group in range(len(bars.regions))]
        means = bars.means[position]
        axes.bar(
            centres, means, 0.88 * width, color=_lighter(color), edgecolor=color, linewidth=0.8,
            label=bars.arms[position],
        )  # fmt: skip
        # The error bar stands beside the dots: on top of each other neither can be read.
        axes.errorbar(
            [centre + 0.25 * width for centre in centres], means, bars.sds[position],
            fmt="none", ecolor="black", elinewidth=0.8, capsize=min(1.6, 8 * width),
        )  # fmt: skip
        for centre, values in zip(centres, bars.seeds[position], strict=True):
            places = [centre - 0.12 * width + shift for shift in _spread(len(values), width)]
            axes.scatter(
                places, values, s=6, color=color, edgecolors="white", linewidths=0.3, zorder=3
            )
    axes.set_xticks(range(len(bars.regions)), bars.regions)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("shot region")
    axes.set_ylabel(bars.label)
    axes.grid(axis="y")
    _finish(figure, axes, bars.caption)
    return figure


def draw_curve(curve: Curve) -> Figure:
    """A line or a cloud per arm, the best of each marked with a star."""
    figure = Figure(figsize=(COLUMN, 2.4), layout="constrained")
    axes = figure.add_subplot()
    colors = _colors([line.label for line in curve.lines], None)
    for position, line in enumerate(curve.lines):
        _draw_line(axes, line, colors[line.label], MARKERS[position % len(MARKERS)])
    if curve.reference:
        name, level = curve.reference
        axes.axhline(level, color=REFERENCE_COLOR, linestyle="--", linewidth=1, label=name)
    _scale_x(axes, curve)
    axes.set_xlabel(curve.x)
    axes.set_ylabel(f"{metric_label(curve.metric, curve.unit)}, {curve.region}")
    axes.grid()
    _finish(figure, axes, _curve_caption(curve))
    return figure


def _draw_line(axes: Axes, line: Line, color: str, marker: str) -> None:
    if line.joined:
        axes.plot(
            line.levels, line.means, color=color, marker=marker, markersize=4, linewidth=1.2,
            label=line.label or None,
        )  # fmt: skip
        axes.scatter(line.x, line.values, s=6, color=color, alpha=0.45, linewidths=0)
    else:
        axes.scatter(
            line.x, line.values, s=14, color=color, marker=marker, alpha=0.7, linewidths=0,
            label=line.label or None,
        )  # fmt: skip
    if line.best is not None:
        axes.scatter(
            line.levels[line.best], line.means[line.best], s=90, color=color, marker="*",
            edgecolors="black", linewidths=0.6, zorder=4,
        )  # fmt: skip


def _scale_x(axes: Axes, curve: Curve) -> None:
    """Logarithmic where it spans enough; the few levels of a grid are its ticks then, not powers of ten."""
    if not curve.logarithmic:
        return
    axes.set_xscale("log")
    levels = sorted({level for line in curve.lines for level in line.levels})
    if len(levels) <= MOST_TICKS:
        axes.set_xticks(levels, [f"{level:g}" for level in levels])
        axes.set_xticks([], minor=True)


def _curve_caption(curve: Curve) -> str:
    parts = [f"{curve.study}, {curve.split} split, epoch: {curve.epoch}."]
    if any(line.joined for line in curve.lines):
        parts.append("Lines: mean over seeds; dots: single trials.")
    parts.append("Star: best validation objective.")
    if curve.left_out:
        reasons = ", ".join(f"{n} {reason}" for reason, n in sorted(curve.left_out.items()))
        parts.append(f"Left out: {reasons}.")
    return " ".join(parts)


def _colors(names: Sequence[str], reference: str | None) -> dict[str, str]:
    others = [name for name in names if name != reference]
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}
    return {name: colors.get(name, REFERENCE_COLOR) for name in names}


def _lighter(color: str) -> tuple[float, ...]:
    """Half-way to white; not transparent, or the grid would show through the bars."""
    return tuple((1 + part) / 2 for part in to_rgb(color))


def _spread(count: int, width: float) -> list[float]:
    """Side by side, so that equal values stay visible."""
    step = 0.4 * width / max(count, 3)
    return [(i - (count - 1) / 2) * step for i in range(count)]


def _finish(figure: Figure, axes: Axes, caption: str) -> None:
    """Legend above, caption below."""
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        room = figure.get_figwidth() * CHARACTERS_PER_INCH
        columns = int(room / (max(map(len, labels)) + 6))  # 6: the sample and the gaps
        rows = math.ceil(len(labels) / max(columns, 1))
        columns = math.ceil(len(labels) / rows)  # rows of about equal length
        figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * 22))
    figure.supxlabel("\n".join(lines), fontsize=6, color="#555555")
