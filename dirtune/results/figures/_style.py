"""How all figures look: sizes, colours, the legend above, the caption below.

Figures have the width of a paper's column or page, 8-point text, and colours that colour-blind readers can tell apart
(Okabe and Ito, "Color Universal Design", 2008). Nothing uses pyplot, so that no window system and no other figure is
touched. A caption says what is shown and what is left out, because figures travel without their text.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure

FILE_TYPES = (".pdf", ".png", ".svg")
# Inches
COLUMN, PAGE = 3.5, 7.0
# Inches that a line of 8-point and of 6-point text takes
ROW, CAPTION_ROW = 0.165, 0.1
# Of the legend
CHARACTERS_PER_INCH = 14
CAPTION_CHARACTERS_PER_INCH = 22
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
REFERENCE_COLOR = "#8C8C8C"
# What stands behind
PALE = "#C4C4C4"
MARKERS = "osD^vPX"
# Arms that colours can tell apart, the reference being grey
MOST_COLORED = len(COLORS) + 1
# Arms whose lines and bands can be followed
MOST_LINES = 6
# Arms that a page has room for
MOST_ROWS = 44
GOOD, BAD = "#0072B2", "#D55E00"
DIVERGING = LinearSegmentedColormap.from_list("good to bad", [GOOD, "#FFFFFF", BAD])
STYLE = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 8,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.4,
    # Text stays text: publishers refuse the default
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; sizes in inches, the height without what `finish` adds."""
    return Figure(figsize=(width, height), layout="constrained")


def arm_colors(names: Sequence[str], reference: str | None) -> dict[str, str]:
    """A colour for each arm; the reference is grey."""
    others = [name for name in names if name != reference]
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}
    return {name: colors.get(name, REFERENCE_COLOR) for name in names}


def lighter(color: str) -> tuple[float, ...]:
    """Half-way to white; not transparent, or the grid would show through."""
    return tuple((1 + part) / 2 for part in to_rgb(color))


def text_color(background: Sequence[float]) -> str:
    """Black or white, whichever is readable on an RGB colour (relative luminance of ITU-R BT.709)."""
    red, green, blue = background[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"


def unit_after(unit: str) -> str:
    """What follows the name of a quantity on an axis: its unit in brackets, or nothing."""
    return f" [{unit}]" if unit else ""


def finish(figure: Figure, caption: str, legend: Axes | None = None) -> None:
    """The legend of some axes above, the caption below; the figure grows by both, so that they take nothing from the axes."""
    rows = 0 if legend is None else _legend(figure, legend)
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * CAPTION_CHARACTERS_PER_INCH))
    figure.supxlabel("\n".join(lines), fontsize=6, color="#555555")
    figure.set_figheight(figure.get_figheight() + ROW * rows + CAPTION_ROW * len(lines))


def _legend(figure: Figure, axes: Axes) -> int:
    """Draws it, and says how many rows it has."""
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return 0
    room = figure.get_figwidth() * CHARACTERS_PER_INCH
    # 6: the sample and the gaps
    columns = int(room / (max(map(len, labels)) + 6))
    rows = math.ceil(len(labels) / max(columns, 1))
    # Rows of about equal length
    columns = math.ceil(len(labels) / rows)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    return rows
