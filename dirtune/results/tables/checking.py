r"""Whether the store still supports the numbers of a table that was written earlier, by hand corrected or not.

The table is made anew from its request and put into the same form; then both texts are read by the same reader, line
by line, and their numbers compared. A line belongs to the grid whose headings stand above it (columns may have been
taken out) and is found by its row keys. A number is supported if what the store says now rounds to it.

Read are Markdown, LaTeX, plain text and our CSV. A verdict is a claim and is compared too; other words, marks and bold are
not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

from dirtune.errors import Fault, InputError
from dirtune.results import textgrid
from dirtune.results.statistics.verdict import Decision
from dirtune.results.tables.comparison import TableRequest, compare
from dirtune.results.tables.findings import Check, Finding
from dirtune.results.tables.flatcheck import check_csv, is_csv
from dirtune.results.tables.layout import Grid, grids_of
from dirtune.results.tables.render import latex
from dirtune.results.tables.render.formats import REQUEST, markdown_rows, plain_rows

MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_VERDICT = re.compile(rf"\b({'|'.join(get_args(Decision))})\b")
_MARKUP = re.compile(r"\\textbf|\\pm|[${}*]")


class Line(NamedTuple):
    """A line of a table."""

    number: int
    """In the text, from 1."""
    cells: list[str]


@dataclass(frozen=True)
class Known:
    """A grid as it would be written now."""

    keys: int
    """Number of row keys."""
    header: list[str]
    rows: dict[tuple[str, ...], list[str]]


def check(root: str | Path, text: str, request: TableRequest | None = None) -> Check:
    """Compare the numbers of a written table with what the store says now.

    Args:
        root: the results root.
        text: the content of the file.
        request: what the table shows, for a text that does not say so itself.

    Raises:
        InputError: it is not known what the table shows, no line of the text is one of the table, or the store cannot
            be read.
    """
    if is_csv(text):
        return check_csv(root, text)
    request = written_request(text) or request
    if request is None:
        rule = f"says not what it shows (a comment '{REQUEST} ...'): give the studies and the columns"
        raise InputError(Fault(where="check", rule=rule))
    form = _form_of(text)
    known = [_known(grid, form) for grid in grids_of(compare(root, request))]
    found = list(_compared(_lines(text, form), known))
    if not found:
        raise InputError(Fault(where="check", rule="no line of the text is one of the table"))
    return Check(
        numbers=sum(count for count, _ in found),
        findings=tuple(finding for _, findings in found for finding in findings),
    )


def check_file(root: str | Path, file: Path, request: TableRequest | None = None) -> Check:
    """The same for the text of a file.

    Raises:
        InputError: the file cannot be read; and as `check`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(file), rule=f"cannot be read ({error})")) from None
    return check(root, text, request)


def written_request(text: str) -> TableRequest | None:
    """The request in a comment of the text, if there is one.

    Raises:
        InputError: it is not readable.
    """
    match = re.search(rf"{REQUEST} (\{{.*\}})", text)
    if match is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(match[1])
        lists = {key: tuple(value) for key, value in plain.items() if isinstance(value, list)}
        return TableRequest(**{**plain, **lists})
    except (TypeError, json.JSONDecodeError) as error:
        rule = f"the comment '{REQUEST} ...' is not readable ({error})"
        raise InputError(Fault(where="check", rule=rule)) from None


def _form_of(text: str) -> str:
    if r"\begin{tabular}" in text:
        return "latex"
    return "markdown" if re.search(r"^\s*\|.*\|\s*$", text, re.MULTILINE) else "table"


def _lines(text: str, form: str) -> list[Line]:
    """The lines that have more than one cell; rules between them have no letter and no digit."""
    split = [(number, _cells(line.strip(), form)) for number, line in enumerate(text.split("\n"), 1)]
    return [
        Line(number, cells)
        for number, cells in split
        if len(cells) > 1 and any(character.isalnum() for character in "".join(cells))
    ]


def _cells(line: str, form: str) -> list[str]:
    if form == "table":
        return re.split(r"\s{2,}", line)
    if form == "markdown":
        parts = re.split(r"(?<!\\)\|", line)[1:-1]
    else:
        parts = re.split(r"(?<!\\)&", line[:-2]) if line.endswith(r"\\") else []
    return [part.strip() for part in parts]


def _known(grid: Grid, form: str) -> Known:
    if form == "latex":
        text = latex.table(grid)
    elif form == "markdown":
        text = textgrid.as_markdown(grid.header, markdown_rows(grid))
    else:
        text = textgrid.as_text(grid.header, plain_rows(grid))
    lines = [line.cells for line in _lines(text, form)]
    keys, first = len(grid.keys), len(lines) - len(grid.rows)
    return Known(keys, lines[first - 1], {tuple(cells[:keys]): cells for cells in lines[first:]})


def _compared(lines: Sequence[Line], known: Sequence[Known]) -> Iterator[tuple[int, list[Finding]]]:
    """Of every line that is one of the table: how many numbers it has, and what is wrong with them."""
    # A text without headings is taken for the first grid
    last, current = -1, known[0]
    positions = list(range(len(current.header)))
    for line in lines:
        # Grids may have the same headings: the next one is meant, and an earlier one only if there is none.
        order = [*range(last + 1, len(known)), *range(last + 1)]
        headings = ((at, _positions(line.cells, known[at])) for at in order)
        heading = next(((at, found) for at, found in headings if found), None)
        if heading is not None:
            last, positions = heading
            current = known[last]
            continue
        if len(line.cells) == len(positions):
            yield _line_compared(line, current, positions)
        elif row := current.rows.get(tuple(line.cells[: current.keys])):
            said = f"{len(row)} columns, {' '.join(row)}"
            yield 0, [Finding(line.number, line.cells[0], "whole line", " ".join(line.cells), said)]


def _positions(cells: Sequence[str], known: Known) -> list[int] | None:
    """Where the headings of a text stand in those of a grid, if they are some of them, in that order."""
    found: list[int] = []
    for cell in cells:
        start = found[-1] + 1 if found else 0
        if cell not in known.header[start:]:
            return None
        found.append(known.header.index(cell, start))
    return found if found[: known.keys] == list(range(known.keys)) else None


def _line_compared(line: Line, known: Known, positions: Sequence[int]) -> tuple[int, list[Finding]]:
    label = tuple(line.cells[: known.keys])
    now = known.rows.get(label)
    findings, count = [], 0
    for cell, position in list(zip(line.cells, positions, strict=True))[known.keys :]:
        claims = [*_numbers(cell), *_VERDICT.findall(cell)]
        count += len(claims)
        said = None if now is None else now[position]
        if claims and (said is None or not _is_supported(cell, said)):
            column = known.header[position]
            findings.append(Finding(line.number, " ".join(label), column, cell, said))
    return count, findings


def _numbers(cell: str) -> list[str]:
    return _NUMBER.findall(_MARKUP.sub("", cell.replace(MINUS, "-")))


def _is_supported(cell: str, said: str) -> bool:
    verdicts = _VERDICT.findall(cell)
    return _supported(_numbers(cell), _numbers(said)) and verdicts in ([], _VERDICT.findall(said))


def _supported(written: Sequence[str], now: Sequence[str]) -> bool:
    """Whether the numbers now, or the first of them, round to the written ones."""
    if len(written) > len(now):
        return False
    return all(
        abs(float(old) - float(new)) <= 0.5000001 * 10.0 ** -len(old.partition(".")[2])
        if "." in old
        else float(old) == float(new)
        for old, new in zip(written, now, strict=False)
    )
