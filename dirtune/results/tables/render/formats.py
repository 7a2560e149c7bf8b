"""Formats of a results table: for a terminal, for a paper (Markdown, LaTeX, HTML), and for programs (CSV, JSON).

The formats for people show the grids of `dirtune.results.tables.render.grids` and the footer, without which the numbers
mean little. CSV and JSON have everything at full precision. Markdown and LaTeX carry their request in a comment, so that
`dirtune.results.tables.check` can make the table again.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict

from rich.console import Group, RenderableType
from rich.text import Text

from dirtune.errors import Fault, InputError
from dirtune.results import textgrid
from dirtune.results.tables.comparison import Comparison, from_table
from dirtune.results.tables.render import html, latex
from dirtune.results.tables.render.flat import as_csv, as_json
from dirtune.results.tables.render.footer import make_footer
from dirtune.results.tables.render.grids import Grid, make_grids
from dirtune.results.tables.table import ArmTable

_MARKDOWN = re.compile(r"[\\`*<$~]|(?<!\w)_|_(?!\w)")
REQUEST = "dirtune table"
"""First words of the comment with the request."""


def render(table: Comparison | ArmTable, style: str = "table") -> str:
    """Return the table as text.

    Args:
        table: a comparison, or the table of one study and metric.
        style: a name of `STYLES`.

    Raises:
        InputError: unknown style.
    """
    if style not in STYLES:
        raise InputError(Fault(where="format", rule="unknown format", got=style, known=list(STYLES)))
    return STYLES[style](from_table(table) if isinstance(table, ArmTable) else table)


def as_rich(table: Comparison) -> RenderableType:
    """Return the table for a rich console."""
    grids = [textgrid.as_rich(grid.header, to_plain_rows(grid), grid.title) for grid in make_grids(table)]
    # rich would read brackets in a name as markup.
    return Group(*grids, *map(Text, make_footer(table)))


def as_text(table: Comparison) -> str:
    """Return plain text, as wide as it needs to be; cells that are bold in other formats have a star."""
    return textgrid.render_plain(as_rich(table))


def as_markdown(table: Comparison) -> str:
    """Return tables of GitHub's Markdown, and the footer as a list."""
    grids = [
        f"**{grid.title}**\n\n{textgrid.as_markdown(grid.header, to_markdown_rows(grid))}\n"
        for grid in make_grids(table)
    ]
    notes = [f"* {line}" for line in make_footer(table)]
    return "\n".join([*grids, *notes, "", f"<!-- {format_request(table)} -->"])


def as_latex(table: Comparison) -> str:
    """Return one `table` environment per grid, for the package booktabs; the footer is below the last."""
    notes = make_footer(table)
    grids = make_grids(table)
    floats = [latex.make_table(grid, [] if grid is not grids[-1] else notes) for grid in grids]
    return "\n".join([f"% {format_request(table)}", latex.PREAMBLE, *floats])


def as_html(table: Comparison) -> str:
    """Return tables and a list, to be put into a page."""
    grids = [html.make_table(grid) for grid in make_grids(table)]
    return "\n".join([*grids, html.make_list(make_footer(table))])


def to_plain_rows(grid: Grid) -> list[list[str]]:
    """Return the lines of a grid in plain text."""
    return [[*row.keys, *(f"{cell.text}*" if cell.bold else cell.text for cell in row.cells)] for row in grid.rows]


def to_markdown_rows(grid: Grid) -> list[list[str]]:
    """Return the lines of a grid in Markdown, before `|` is escaped."""
    return [
        [*map(escape_markdown, row.keys), *(f"**{cell.text}**" if cell.bold else cell.text for cell in row.cells)]
        for row in grid.rows
    ]


def escape_markdown(name: str) -> str:
    """Return a name that Markdown shows as it is; underscores inside of words have no meaning there."""
    return _MARKDOWN.sub(r"\\\g<0>", name)


def format_request(table: Comparison) -> str:
    """Return the request as one line of text."""
    # "-->" would end the comment that contains the line.
    text = json.dumps(asdict(table.request), ensure_ascii=True).replace(">", "\\u003e")
    return f"{REQUEST} {text}"


STYLES: dict[str, Callable[[Comparison], str]] = {
    "table": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
    "csv": as_csv,
    "json": as_json,
}
