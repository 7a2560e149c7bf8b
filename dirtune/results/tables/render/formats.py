"""The forms of a results table: for a terminal, for a paper (Markdown, LaTeX, HTML), and for programs (CSV, JSON).

What people read are the grids of `dirtune.results.tables.layout` and the footer, without which the numbers mean little. CSV
and JSON have everything at full precision. Markdown and LaTeX carry the request that they answer in a comment, so that
`dirtune.results.tables.checking` can ask it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.markup import escape

from dirtune.errors import Fault, InputError
from dirtune.results import textgrid
from dirtune.results.tables.celltext import metric_label
from dirtune.results.tables.comparison import Comparison, of_one_study
from dirtune.results.tables.flat import as_csv, as_json
from dirtune.results.tables.footer import footer
from dirtune.results.tables.layout import Grid, Shown, grids_of
from dirtune.results.tables.render import html as webpage
from dirtune.results.tables.render import latex
from dirtune.results.tables.table import ArmTable

__all__ = ["STYLES", "as_rich", "footer", "grids_of", "metric_label", "render"]

# What the comment with the request begins with
REQUEST = "dirtune table"


def render(table: Comparison | ArmTable, style: str = "table") -> str:
    """The table as text; `style` is one of `STYLES`.

    Raises:
        InputError: unknown style.
    """
    if style not in STYLES:
        raise InputError(Fault(where="format", rule="unknown format", got=style, known=list(STYLES)))
    return STYLES[style](of_one_study(table) if isinstance(table, ArmTable) else table)


def as_rich(table: Comparison) -> RenderableType:
    """For a rich console."""
    grids = [textgrid.as_rich(grid.header, plain_rows(grid), grid.title) for grid in grids_of(table)]
    return Group(*grids, *(escape(line) for line in footer(table)))


def as_text(table: Comparison) -> str:
    """Plain text, as wide as it needs to be; what is bold elsewhere has a star."""
    return textgrid.plain_text(as_rich(table))


def as_markdown(table: Comparison) -> str:
    """GitHub's tables, and the footer as a list."""
    grids = [
        f"**{grid.title}**\n\n{textgrid.as_markdown(grid.header, markdown_rows(grid))}\n" for grid in grids_of(table)
    ]
    notes = [f"* {line}" for line in footer(table)]
    return "\n".join([*grids, *notes, "", f"<!-- {request_line(table)} -->"])


def as_latex(table: Comparison) -> str:
    """One `table` environment per grid, for the package booktabs; the footer stands below the last."""
    notes = footer(table)
    grids = grids_of(table)
    floats = [latex.table(grid, [] if grid is not grids[-1] else notes) for grid in grids]
    return "\n".join([f"% {request_line(table)}", latex.PREAMBLE, *floats])


def as_html(table: Comparison) -> str:
    """Tables and a list, to be put into a page."""
    grids = [webpage.table(grid) for grid in grids_of(table)]
    return "\n".join([*grids, webpage.items(footer(table))])


def plain_rows(grid: Grid) -> list[list[str]]:
    """The lines of a grid in plain text."""
    return [[*row.keys, *(_starred(cell) for cell in row.cells)] for row in grid.rows]


def markdown_rows(grid: Grid) -> list[list[str]]:
    """The lines of a grid in Markdown, before `|` is escaped."""
    return [[*row.keys, *(f"**{cell.text}**" if cell.bold else cell.text for cell in row.cells)] for row in grid.rows]


def request_line(table: Comparison) -> str:
    """The request as one line of text."""
    # "-->" would end the comment that the line stands in.
    text = json.dumps(asdict(table.request), ensure_ascii=True).replace(">", "\\u003e")
    return f"{REQUEST} {text}"


def _starred(cell: Shown) -> str:
    return f"{cell.text}*" if cell.bold else cell.text


STYLES: dict[str, Callable[[Comparison], str]] = {
    "table": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
    "csv": as_csv,
    "json": as_json,
}
