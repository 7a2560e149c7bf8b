r"""LaTeX table of a grid, for `article` with the package booktabs.

Every text is escaped, so that a name with `_`, `&` or `%` neither breaks the run nor changes its meaning. Two traps are
closed as well: a cell that begins with `[` or `*` would be taken for an argument of the `\\` or `\midrule` before
it, and a hyphen before a digit is not a minus.
"""

import re
import unicodedata
from collections.abc import Sequence
from itertools import groupby

from dirtune.results.tables.render.grids import Grid

LAST_LATIN = 0x17F
"""Last code point of the letters that LaTeX knows without further packages."""
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
    # Outside of math, the default font encoding prints other characters for these three.
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    # A straight quote is typeset as a closing one, and is a command in some languages of babel.
    '"': "''",
    "[": "{[}",
    "]": "{]}",
    "±": r"$\pm$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "→": r"$\to$",
    "\u2212": "$-$",
    "\u2013": "{--}",
    "\u2014": "{---}",
    "\n": " ",
}
_SCRIPTS = {"<sub>": "_", "<super>": "^"}
"""Commands of raised and lowered characters, by the tag of their Unicode decomposition."""
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def make_table(grid: Grid, notes: Sequence[str] = ()) -> str:
    """Return a `table` environment with the grid's title as caption, and notes in small print."""
    width = len(grid.keys) + len(grid.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(grid.title)}}}",
        rf"\begin{{tabular}}{{{'l' * len(grid.keys)}{'r' * (width - len(grid.keys))}}}",
        r"\toprule",
        *_make_group_lines(grid),
        format_line([*map(escape, grid.keys), *(escape(column.name) for column in grid.columns)]),
        r"\midrule",
        *map(format_line, format_rows(grid)),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip\raggedright\footnotesize {escape(note)}" for note in notes),
        r"\end{table}",
    ]
    return "\n".join(lines)


def format_rows(grid: Grid) -> list[list[str]]:
    """Return the cells of every line, as LaTeX."""
    return [
        [
            *map(escape, row.keys),
            *(rf"\textbf{{{escape(cell.text)}}}" if cell.bold else escape(cell.text) for cell in row.cells),
        ]
        for row in grid.rows
    ]


def format_line(cells: Sequence[str]) -> str:
    """Return one line of a tabular."""
    return rf"{' & '.join(cells)} \\"


def escape(text: str) -> str:
    """Return text that LaTeX prints as it is; Greek letters become math, unknown letters their code point."""
    parts: list[str] = []
    for character in text:
        name = unicodedata.name(character, "").split()
        # pdfTeX has no Greek letters in its text fonts; omicron has no command of its own.
        is_greek = name[:3] == ["GREEK", "SMALL", "LETTER"] and len(name) == 4 and name[3] != "OMICRON"
        tag, _, plain = unicodedata.decomposition(character).partition(" ")
        if character == "-" and parts and parts[-1].endswith("-"):
            # Two hyphens would become a dash.
            parts.append("{}-")
        elif character == "*" and not "".join(parts).strip():
            parts.append("{*}")
        elif character in _ESCAPES:
            parts.append(_ESCAPES[character])
        elif tag in _SCRIPTS and plain < "0080" and " " not in plain:
            parts.append(f"${_SCRIPTS[tag]}{chr(int(plain, 16))}$")
        elif is_greek:
            parts.append(rf"$\{'lambda' if name[3] == 'LAMDA' else name[3].lower()}$")
        elif ord(character) <= LAST_LATIN:
            parts.append(character if character.isprintable() else " ")
        else:
            # A letter that the fonts lack would stop the run.
            parts.append(f"(U+{ord(character):04X})")
    return _MINUS.sub("$-$", "".join(parts))


def _make_group_lines(grid: Grid) -> list[str]:
    """Return the headings of groups of columns, each with its rule."""
    if not grid.has_groups:
        return []
    cells, rules, at = [""] * len(grid.keys), [], len(grid.keys) + 1
    for name, columns in groupby(column.group for column in grid.columns):
        span = len(list(columns))
        cells.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(name)}}}")
        # Trimmed on both sides, so that neighboring groups do not touch.
        rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if name else []
        at += span
    return [format_line(cells), *rules]
