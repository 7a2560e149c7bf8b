"""Panels side by side, one per arm, with one colour bar for all."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.figures._style import PAGE, new_figure

PER_ROW = 4
MOST_PANELS = 8


def panels(titles: Sequence[str], *, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of a page's width with a titled panel each, `PER_ROW` in a row; `height` of a row in inches."""
    columns = min(PER_ROW, len(titles))
    rows = math.ceil(len(titles) / columns)
    figure = new_figure(PAGE * max(columns, 2) / PER_ROW, height * rows)
    grid = figure.subplots(rows, columns, squeeze=False).flatten().tolist()
    for axes in grid[len(titles) :]:
        axes.remove()
    shown: list[Axes] = grid[: len(titles)]
    for axes, title in zip(shown, titles, strict=True):
        axes.set_title(title)
    return figure, shown
