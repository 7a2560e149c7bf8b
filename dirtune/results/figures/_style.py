"""Common style of all figures: sizes, colors, panels, the legend above, the caption below.

Figures have the width of a paper's column or page, 8-point text, and colors that color-blind readers can distinguish
(Okabe and Ito, "Color Universal Design", 2008). No function uses pyplot, which would depend on the
window system and on other figures. A caption states what is shown and what is left out, because a figure is often copied
without its text.
"""

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter

from dirtune.errors import escape_control_characters

FILE_TYPES = (".pdf", ".png", ".svg")
COLUMN, PAGE = 3.5, 7.0
"""Widths of a figure in inches."""
ROW, CAPTION_ROW = 0.165, 0.1
"""Heights in inches of a line of 8-point and of 6-point text."""
CHARACTERS_PER_INCH = 14
"""8-point text, of the legend."""
CAPTION_CHARACTERS_PER_INCH = 22
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
REFERENCE_COLOR = "#8C8C8C"
PALE = "#C4C4C4"
"""Color of what is in the background."""
MARKERS = "osD^vPX"
MAX_COLORED_ARMS = len(COLORS) + 1
"""Arms that colors distinguish, because the reference is gray."""
MAX_LINES = 6
"""Arms whose lines with bands a reader can follow."""
MAX_ROWS = 44
"""Arms that a page has room for."""
_LONGEST_NAME = 60
"""Characters of a name."""
# Not shown, before names that begin with an underscore
_MARK = "\u2060"
# Labels that matplotlib gives to artists without one
_NO_NAME = re.compile(r"_(child|container|image|line)\d+|_nolegend_")
PANELS_PER_ROW, MAX_PANELS = 4, 8
GOOD, BAD = "#0072B2", "#D55E00"
DIVERGING = LinearSegmentedColormap.from_list("good to bad", [GOOD, "#FFFFFF", BAD])
STYLE = {
    "font.size": 8,
    # Names are no TeX, whatever a user's own settings are.
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    # By default the grid is drawn over bars.
    "axes.axisbelow": True,
    "axes.titlesize": 8,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.4,
    # Text stays text; publishers reject the default, Type 3 fonts.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure.

    Args:
        width: in inches.
        height: in inches, without the legend and the caption that `finish_figure` adds.
    """
    # Of the layouts, only this one makes room for a legend outside of the axes.
    return Figure(figsize=(width, height), layout="constrained")


def make_panels(titles: Sequence[str], *, height: float) -> tuple[Figure, list[Axes]]:
    """Return a figure of a page's width with one panel per title, four in a row.

    Args:
        titles: of the panels.
        height: of a row of panels, in inches.
    """
    columns = min(PANELS_PER_ROW, len(titles))
    rows = math.ceil(len(titles) / columns)
    # At least half a page wide, or one panel would be as wide as its caption's words.
    figure = make_figure(PAGE * max(columns, 2) / PANELS_PER_ROW, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[len(titles) :]:
        axes.remove()
    panels: list[Axes] = grid[: len(titles)]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title)
    return figure, panels


def assign_colors(names: Sequence[str], reference: str | None) -> dict[str, str]:
    """Return a color for each arm; the reference is gray."""
    others = [name for name in names if name != reference]
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(others)}
    return {name: colors.get(name, REFERENCE_COLOR) for name in names}


def mix_with_white(color: str) -> tuple[float, ...]:
    """Return the RGB color half-way to white."""
    # Not by transparency, through which the grid would be visible.
    return tuple((1 + part) / 2 for part in to_rgb(color))


def choose_text_color(background: Sequence[float]) -> str:
    """Return black or white, the one that is readable on an RGB color (relative luminance of ITU-R BT.709)."""
    red, green, blue = background[:3]
    return "black" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5 else "white"


def format_unit(unit: str) -> str:
    """Return a unit in brackets, to be appended to the name of a quantity, or nothing without a unit."""
    return f" [{unit}]" if unit else ""


def finish_figure(figure: Figure, caption: str, legend: Axes | None = None) -> None:
    """Add the legend of some axes above and the caption below; the figure grows by both, so that the axes keep their size."""
    rows = 0 if legend is None else _draw_legend(figure, legend)
    # matplotlib does not wrap a label to the width of its figure.
    lines = textwrap.wrap(caption, int(figure.get_figwidth() * CAPTION_CHARACTERS_PER_INCH))
    figure.supxlabel("\n".join(lines), fontsize=6, color="#555555")
    figure.set_figheight(figure.get_figheight() + ROW * rows + CAPTION_ROW * len(lines))


def show_names_literally(figure: Figure) -> None:
    """Let all texts of a figure be shown as they are: `$` begins no formula, and control characters are shown escaped.

    matplotlib ends a figure with a traceback if a formula is wrong, and copies control characters, which XML does not have,
    into an SVG file.
    """
    for text in figure.findobj(Text):
        text.set_text(_make_literal(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        # `set_xticks` with labels, which are names, makes such a formatter; the others write numbers, some as formulas
        if isinstance(formatter := axis.get_major_formatter(), FuncFormatter):
            formatter.func = partial(_format_literally, formatter.func)


def _format_literally(format_label: Callable[..., str], x: float, position: int | None = None) -> str:
    return _make_literal(shorten_name(format_label(x, position)))


def _make_literal(text: str) -> str:
    return escape_control_characters(text.replace(_MARK, "")).replace("$", r"\$")


def shorten_name(name: str) -> str:
    """Return a name without its middle if a figure has no room for it."""
    half = (_LONGEST_NAME - 5) // 2
    return name if len(name) <= _LONGEST_NAME else f"{name[:half]} ... {name[-half:]}"


def _mark_names(axes: Axes) -> None:
    """Let names that begin with an underscore have an entry in the legend, from which matplotlib leaves them out."""
    artists: list[Any] = [*axes.get_children(), *axes.containers]
    for artist in artists:
        label = str(artist.get_label())
        if label.startswith("_") and not _NO_NAME.fullmatch(label):
            artist.set_label(_MARK + label)


def _draw_legend(figure: Figure, axes: Axes) -> int:
    """Draw the legend of some axes and return its number of rows."""
    # Axes without labeled lines have no legend.
    _mark_names(axes)
    handles, labels = axes.get_legend_handles_labels()
    if not labels:
        return 0
    labels = [shorten_name(label) for label in labels]
    room = figure.get_figwidth() * CHARACTERS_PER_INCH
    # 6 characters for the line sample and the gaps
    columns = int(room / (max(map(len, labels)) + 6))
    rows = math.ceil(len(labels) / max(columns, 1))
    # As few columns as that number of rows allows, so that the rows have about equal lengths
    columns = math.ceil(len(labels) / rows)
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False)
    return rows
