"""HTML table of a grid; every text is escaped."""

import html
from collections.abc import Iterable
from itertools import groupby

from dirtune.errors import escape_control_characters
from dirtune.results.tables.render.grids import Grid


def make_table(grid: Grid) -> str:
    """Return a `<table>` with the grid's title as caption."""
    group_line = []
    if grid.has_groups:
        groups = [(name, len(list(columns))) for name, columns in groupby(column.group for column in grid.columns)]
        headings = "".join(f'<th colspan="{span}">{escape(name)}</th>' for name, span in groups)
        group_line = [f"<tr>{'<td></td>' * len(grid.keys)}{headings}</tr>"]
    names = [*grid.keys, *(column.name for column in grid.columns)]
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    lines = []
    for row in grid.rows:
        keys = "".join(f'<th scope="row">{escape(key)}</th>' for key in row.keys)
        texts = ((escape(cell.text), cell.bold) for cell in row.cells)
        cells = "".join(f"<td><strong>{text}</strong></td>" if bold else f"<td>{text}</td>" for text, bold in texts)
        lines.append(f"<tr>{keys}{cells}</tr>")
    return "\n".join(
        [
            "<table>",
            f"<caption>{escape(grid.title)}</caption>",
            "<thead>",
            *group_line,
            f"<tr>{header}</tr>",
            "</thead>",
            "<tbody>",
            *lines,
            "</tbody>",
            "</table>",
        ]
    )


def make_list(texts: Iterable[str]) -> str:
    """Return an unordered list."""
    return "\n".join(["<ul>", *(f"<li>{escape(text)}</li>" for text in texts), "</ul>"])


def escape(text: str) -> str:
    """Return text that HTML shows as it is; it has no control characters, which are shown escaped."""
    return html.escape(escape_control_characters(text))
