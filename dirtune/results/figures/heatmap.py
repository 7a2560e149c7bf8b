"""Figure `heatmap`: arms by shot regions, with the paired difference to the reference in every cell.

Blue is better and orange is worse, for errors and correlations alike; white is no difference. One diverged arm would leave
all other cells white, so the color scale ends at the 90th percentile of the absolute differences, rounded up to two
digits; the caption states this limit.
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.figures import _arms, _request, _style
from dirtune.results.statistics.paired import mean
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render import numbers
from dirtune.results.tables.render.cells import format_metric
from dirtune.results.tables.table import Cell

FULL_COLOR_QUANTILE = 0.9
"""Quantile of the absolute differences at which the color scale ends."""


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """Differences by arm and region; the outer tuples follow `arms`, the inner ones `regions`."""

    arms: tuple[str, ...]
    """Without the reference."""
    regions: tuple[str, ...]
    differences: tuple[tuple[float, ...], ...]
    """NaN without a common seed."""
    significant: tuple[tuple[bool, ...], ...]
    limit: float
    """Absolute difference at which the color scale ends."""
    good_sign: int
    """-1 if negative differences are improvements, 1 if positive ones are."""
    label: str
    """Label of the color bar."""
    decimals: int
    """Decimals of the numbers in the cells."""
    caption: str


def build_heatmap(request: _request.PlotRequest) -> Heatmap:
    """Compute the table's paired differences, with `relative` in percent of the reference's mean over the same seeds.

    Raises:
        InputError: there is no reference or no arm to compare with it, and as `make_arm_table`.
    """
    shown = _arms.compare_arms(request, most=_style.MAX_ROWS)
    table, arms, base = shown.table, shown.arms, shown.cells[shown.reference]
    differences = tuple(
        tuple(
            _get_difference(shown.cells[arm][region], base[region], relative=request.relative)
            for region in table.regions
        )
        for arm in arms
    )
    if not np.isfinite(np.array(differences)).any():
        raise request.make_error(f"has no common seed of {table.reference} and another arm yet")
    label = format_metric(table.metric, "%" if request.relative else table.unit)
    return Heatmap(
        arms=arms,
        regions=table.regions,
        differences=differences,
        significant=tuple(
            tuple(shown.cells[arm][region].p_holm < SIGNIFICANT for region in table.regions) for arm in arms
        ),
        limit=(limit := _compute_limit(differences)),
        good_sign=1 if table.metric in HIGHER_IS_BETTER else -1,
        label=f"{label}: difference to {table.reference}",
        decimals=min(
            numbers.MOST_DECIMALS,
            numbers.count_change_decimals((each, math.nan, math.nan) for row in differences for each in row),
        ),
        caption=f"{_request.format_source(table)} Differences to {table.reference}, paired by seed, mean; blue is better. * the word "
        f"helps or hurts, which only the claim's column has. {table.claim.describe()} "
        f"Colors end at ±{limit:.3g}; an empty cell has no common seed.{shown.note}",
    )


def draw_heatmap(data: Heatmap) -> Figure:
    """Draw a colored cell with its number per arm and region."""
    figure = _style.make_figure(_style.COLUMN, 0.75 + _style.ROW * len(data.arms))
    axes = figure.add_subplot()
    # The color map begins with the good color, so improvements have to be the negative numbers.
    badness = -data.good_sign * np.array(data.differences)
    image = axes.imshow(badness, _style.DIVERGING, aspect="auto", vmin=-data.limit, vmax=data.limit)
    for row, values in enumerate(data.differences):
        for column, value in enumerate(values):
            if math.isnan(value):
                continue
            color = _style.choose_text_color(tuple(image.to_rgba(badness[row, column])))
            text = f"{value:+.{data.decimals}f}{'*' if data.significant[row][column] else ''}"
            axes.text(column, row, text, ha="center", va="center", color=color)
    axes.set_xticks(range(len(data.regions)), data.regions)
    axes.set_yticks(range(len(data.arms)), data.arms)
    axes.tick_params(length=0, top=False, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    # Below, because a column of the page has no width for it.
    bar = figure.colorbar(image, ax=axes, location="bottom", aspect=40, pad=0.02)
    ends = np.array([-data.limit, 0.0, data.limit])
    # `+ 0.0` turns the negative zero in the middle into zero.
    bar.set_ticks(ends.tolist(), labels=[f"{-data.good_sign * end + 0.0:.3g}" for end in ends])
    bar.set_label(data.label)
    bar.outline.set_visible(False)
    _style.finish_figure(figure, data.caption)
    return figure


def _get_difference(cell: Cell, base: Cell, *, relative: bool) -> float:
    found = cell.difference
    if found is None or not found.n:
        return math.nan
    if not relative:
        return found.mean
    # The reference's mean over the common seeds, which the difference is about.
    seeds = cell.values.keys() & base.values.keys()
    level = mean(base.values[seed] for seed in seeds)
    return 100 * (found.mean / abs(level)) if level else math.nan


def _compute_limit(differences: tuple[tuple[float, ...], ...]) -> float:
    sizes = np.abs(np.array(differences))
    sizes = sizes[np.isfinite(sizes)]
    limit = float(np.quantile(sizes, FULL_COLOR_QUANTILE)) or float(sizes.max())
    if not limit:
        return 1.0
    # Rounded up in the second digit; the inner rounding keeps 0.30000000000000004 from becoming 0.31.
    unit = 10.0 ** (math.floor(math.log10(limit)) - 1) or limit
    return math.ceil(round(limit / unit, 6)) * unit
