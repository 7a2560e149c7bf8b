r"""A grid as a LaTeX table, for `article` with the package booktabs.

Every text is escaped, so that a name with `_`, `&` or `%` neither breaks the run nor changes its meaning. Two traps are
closed besides: a cell that begins with `[` would be taken for the optional argument of the `\\` or `\midrule` before
it, and a hyphen before a digit is not a minus.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from dirtune.results.tables.layout import Grid, Shown

# Of the letters that LaTeX knows without further packages
LAST_LATIN = 0x17F
PREAMBLE = r"% needs \usepackage{booktabs}"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "²": r"$^2$",
    "\n": " ",
}
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def table(grid: Grid, notes: Sequence[str] = ()) -> str:
    """A `table` environment with the grid's title as caption, and notes in small print."""
    width = len(grid.keys) + len(grid.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(grid.title)}}}",
        rf"\begin{{tabular}}{{{'l' * len(grid.keys)}{'r' * (width - len(grid.keys))}}}",
        r"\toprule",
        *_group_lines(grid),
        line([*map(escape, grid.keys), *(escape(column.name) for column in grid.columns)]),
        r"\midrule",
        *map(line, rows(grid)),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\raggedright\footnotesize {escape(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def rows(grid: Grid) -> list[list[str]]:
    """The cells of every line, as LaTeX."""
    return [[*map(escape, row.keys), *map(_cell, row.cells)] for row in grid.rows]


def line(cells: Sequence[str]) -> str:
    """One line of a tabular."""
    return rf"{' & '.join(cells)} \\"


def escape(text: str) -> str:
    """The text as it is to be read; Greek letters become math, Latin ones stay, others become their code point."""
    escaped = "".join(_ESCAPES.get(each) or _greek(each) or _drawn(each) for each in text)
    return _MINUS.sub("$-$", escaped).replace("--", "-{}-")


def _cell(cell: Shown) -> str:
    return rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text)


def _greek(character: str) -> str | None:
    """`$\\omega$` of an omega: pdfTeX has no Greek letters in its text fonts."""
    name = unicodedata.name(character, "").split()
    if name[:3] != ["GREEK", "SMALL", "LETTER"] or len(name) != 4 or name[3] == "OMICRON":
        return None
    return rf"$\{'lambda' if name[3] == 'LAMDA' else name[3].lower()}$"


def _drawn(character: str) -> str:
    """A letter that the default fonts have, or the code point of one that would stop the run."""
    if ord(character) <= LAST_LATIN:
        return character if character.isprintable() else " "
    return f"(U+{ord(character):04X})"


def _group_lines(grid: Grid) -> list[str]:
    """The headings of groups of columns, each with its rule."""
    if not grid.has_groups:
        return []
    cells, rules, at = [""] * len(grid.keys), [], len(grid.keys) + 1
    for name, columns in groupby(column.group for column in grid.columns):
        span = len(list(columns))
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(name)}}}")
        rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if name else []
        at += span
    return [line(cells), *rules]
