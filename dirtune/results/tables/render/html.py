"""A grid as an HTML table; every text is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import groupby

from dirtune.results.tables.layout import Grid, Row, Shown


def table(grid: Grid) -> str:
    """A `<table>` with the grid's title as caption."""
    names = [*grid.keys, *(column.name for column in grid.columns)]
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
    return "\n".join(
        [
            "<table>",
            f"<caption>{escape(grid.title)}</caption>",
            "<thead>",
            *_group_line(grid),
            f"<tr>{header}</tr>",
            "</thead>",
            "<tbody>",
            *map(_line, grid.rows),
            "</tbody>",
            "</table>",
        ]
    )


def items(texts: Iterable[str]) -> str:
    """A list."""
    return "\n".join(["<ul>", *(f"<li>{escape(text)}</li>" for text in texts), "</ul>"])


def _line(row: Row) -> str:
    keys = "".join(f'<th scope="row">{escape(key)}</th>' for key in row.keys)
    return f"<tr>{keys}{''.join(map(_cell, row.cells))}</tr>"


def _cell(cell: Shown) -> str:
    text = escape(cell.text)
    return f"<td><strong>{text}</strong></td>" if cell.bold else f"<td>{text}</td>"


def _group_line(grid: Grid) -> list[str]:
    if not grid.has_groups:
        return []
    groups = [(name, len(list(columns))) for name, columns in groupby(column.group for column in grid.columns)]
    headings = "".join(f'<th colspan="{span}">{escape(name)}</th>' for name, span in groups)
    return [f"<tr>{'<td></td>' * len(grid.keys)}{headings}</tr>"]
