"""A grid of texts, for a terminal or as Markdown: how tables look, whatever is in them.

Texts end without a line break, as `print` wants them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

# Characters; text that is written to a file or a pipe is never folded
WIDTH = 10_000


def as_rich(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """For a rich console: the first column to the left, the others to the right."""
    heading = Text(title, no_wrap=True, overflow="ignore") if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for position, name in enumerate(header):
        table.add_column(escape(name), justify="right" if position else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Plain text, as wide as it needs to be."""
    return plain_text(as_rich(header, rows))


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of GitHub's Markdown."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [[_in_markdown(cell) for cell in line] for line in (header, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], marks, *lines[1:]))


def plain_text(*parts: RenderableType) -> str:
    """What a rich console of any width prints, without colours and without folding."""
    console = Console(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    lines = [line.rstrip() for line in captured.get().split("\n")]
    return "\n".join(lines).strip("\n")


def _in_markdown(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
