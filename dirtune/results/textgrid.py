"""Grid of texts for a terminal or as Markdown.

Texts end without a line break, as `print` adds one. Control characters of names are shown escaped.
"""

import io
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dirtune.errors import escape_control_characters

WIDTH = 10_000
"""Characters of a line: text that is written to a file or a pipe is never folded."""


class EscapingConsole(Console):
    """Console that shows control characters escaped; only its own, of colors and progress bars, reach the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(escape_control_characters(segment.text), segment.style)


def as_rich(header: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Table:
    """Return a table for a rich console: the first column aligned to the left, the others to the right."""
    # Escaped before the widths are measured
    header, *rows = ([escape_control_characters(cell) for cell in line] for line in (header, *rows))
    heading = Text(title, no_wrap=True, overflow="ignore") if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for position, name in enumerate(header):
        table.add_column(Text(name), justify="right" if position else "left")
    for row in rows:
        # `Text`, because a name may contain brackets and backslashes, which rich reads as markup.
        table.add_row(*map(Text, row))
    return table


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return plain text, as wide as it needs to be."""
    return render_plain(as_rich(header, rows))


def as_markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of GitHub's Markdown."""
    marks = ["---", *["---:"] * (len(header) - 1)]
    lines = [
        [escape_control_characters(cell).replace("|", "\\|").replace("\n", " ") for cell in line]
        for line in (header, *rows)
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], marks, *lines[1:]))


def render_plain(*parts: RenderableType) -> str:
    """Return the output of a rich console as text, without colors and without folding."""
    console = EscapingConsole(file=io.StringIO(), width=WIDTH, color_system=None)
    with console.capture() as captured:
        console.print(*parts, sep="\n")
    lines = [line.rstrip() for line in captured.get().split("\n")]
    return "\n".join(lines).strip("\n")
