r"""Check of a table that was written earlier, possibly edited by hand: are its numbers still supported by the store?

The table is made again from its request and put into the same format; then both texts are read by the same reader, line
by line, and their numbers compared. A line belongs to the last grid whose headings were read (columns may have been
taken out) and is found by its row keys. A number is supported if the store's number rounds to it.

Markdown, LaTeX, plain text and our CSV are read; the numbers of a CSV are compared at full precision. A word such as helps is
a claim and is compared, too, with its mark "chosen after the study"; other words and bold are not.
"""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dirtune.errors import Fault, InputError
from dirtune.metrics import REGIONS
from dirtune.results import spreadsheets, textgrid
from dirtune.results.records.store import read_once
from dirtune.results.tables import comparison
from dirtune.results.tables.render import flat, formats, grids, latex
from dirtune.wording import format_count

MINUS = "\N{MINUS SIGN}"
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?(?:e[-+]?\d+)?")
_WORD = re.compile(
    r"\b(?:helps|hurts|same|open)\b(?:, within the margin| \((?:seeds|searches|splits|test samples)\))?(?:, but: [^*]*[^*}\s])?|\bearly\b"
)
_MARKUP = re.compile(r"\\textbf|\\pm|[${}*]")

CSV_KEYS = ("study", "arm", "split", "selection", "metric", "region", "reference")
"""Columns by which a CSV is recognized and its lines are identified."""
CSV_DEFAULTS = {"shots": "", "bin_width": "", "margin_requested": "", "regions_requested": " ".join(REGIONS)}
"""Columns that belong to the request, too, and may have been taken out."""
CSV_NUMBERS = (
    "mean",
    "sd",
    "n",
    "difference",
    "difference_sd",
    "low",
    "high",
    "pairs",
    "reference_mean",
    "p_seeds",
    "p_seeds_and_samples",
    "units",
    "p_corrected",
    "margin",
    "p_equivalence",
    "configurations",
)
CSV_WORDS = ("word",)
CSV_MARKS = ("chosen_after", "early")
"""Columns that must be there with a word or a difference if the store has them."""
EXTRA_DIGITS = 4
"""Digits beyond those of a table with which written numbers are compared: rounding to fewer digits is no fault."""
CSV_TOLERANCE = 1e-9
"""Relative: another numpy may add up in another order."""


@dataclass(frozen=True)
class Finding:
    """A cell whose numbers the store does not support."""

    line: int
    """Of the text, from 1."""
    row: str
    column: str
    written: str
    now: str | None
    """The store's numbers; None if it has no such cell."""

    def __str__(self) -> str:
        now = "the store has no such row" if self.now is None else f"the store has {self.now}"
        return f"line {self.line}: {self.row}, {self.column}: {self.written}; {now}"


@dataclass(frozen=True)
class CheckReport:
    """Result of a check."""

    numbers: int
    """Numbers and words that were compared."""
    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        cells = format_count(len(self.findings), "cell") if self.findings else "no cells"
        last = f"{self.numbers} numbers and words checked, {cells} not supported"
        return "\n".join([*map(str, self.findings), last])


class TextLine(NamedTuple):
    """A line of a table."""

    number: int
    """In the text, from 1."""
    cells: list[str]


@dataclass(frozen=True)
class StoredGrid:
    """A grid as the store gives it now."""

    keys: int
    """Number of row keys."""
    header: list[str]
    rows: dict[tuple[str, ...], list[str]]
    precise: dict[tuple[str, ...], list[str]]
    """The same with further digits, which the written numbers are compared with."""


def check(root: str | Path, text: str, request: comparison.TableRequest | None = None) -> CheckReport:
    """Compare the numbers of a written table with those of the store.

    Args:
        root: the results root.
        text: the content of the file.
        request: contents of the table, for a text that has no request in it.

    Raises:
        InputError: the contents of the table are not known, no line of the text is one of the table, or the store cannot
            be read.
    """
    # A CSV has its request in its columns, of which some may have been taken out.
    header = text.split("\n", 1)[0].strip().split(",")
    if set(CSV_KEYS) <= set(header) <= set(flat.CSV_COLUMNS):
        return _check_csv(root, text)
    request = read_request(text) or request
    if request is None:
        rule = f"has no request (a comment '{formats.REQUEST} ...'): give the studies and the columns"
        raise InputError(Fault(where="check", rule=rule))
    if r"\begin{tabular}" in text:
        style = "latex"
    else:
        style = "markdown" if re.search(r"^\s*\|.*\|\s*$", text, re.MULTILINE) else "table"
    table = comparison.compare(root, request)
    stored = []
    # As they are written now; then with the columns of counts, and all changes in one grid, as a table may have been written.
    for is_whole in (False, True):
        pairs = zip(
            grids.make_grids(table, is_whole=is_whole),
            grids.make_grids(table, is_whole=is_whole, extra=EXTRA_DIGITS),
            strict=True,
        )
        for grid, precise in pairs:
            header, rows = _read_grid(grid, style)
            stored.append(StoredGrid(len(grid.keys), header, rows, _read_grid(precise, style)[1]))
    found = list(_compare_lines(_read_lines(text, style), stored))
    # A check that has compared nothing must not look like one that found no fault.
    if not found:
        raise InputError(Fault(where="check", rule="no line of the text is one of the table"))
    return CheckReport(
        numbers=sum(count for count, _ in found),
        findings=tuple(finding for _, findings in found for finding in findings),
    )


def _read_grid(grid: grids.Grid, style: str) -> tuple[list[str], dict[tuple[str, ...], list[str]]]:
    """Return the headings and the rows of a grid, written and read as a text in this style."""
    if style == "latex":
        written = latex.make_table(grid)
    elif style == "markdown":
        written = textgrid.as_markdown(grid.header, formats.to_markdown_rows(grid))
    else:
        written = textgrid.as_text(grid.header, formats.to_plain_rows(grid))
    lines = [line.cells for line in _read_lines(written, style)]
    # Counted from the end, because the number of lines above the rows depends on the style.
    keys, first = len(grid.keys), len(lines) - len(grid.rows)
    return lines[first - 1], {tuple(cells[:keys]): cells for cells in lines[first:]}


@read_once()
def check_file(root: str | Path, file: Path, request: comparison.TableRequest | None = None) -> CheckReport:
    """Compare the numbers of a table in a file with those of the store.

    Raises:
        InputError: the file cannot be read; and as `check`.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(file), rule=f"cannot be read ({error})")) from None
    return check(root, text, request)


def read_request(text: str) -> comparison.TableRequest | None:
    """Return the request in a comment of the text; None if there is none.

    Raises:
        InputError: it is not readable.
    """
    # JSON on one line: `format_request` writes it so.
    match = re.search(rf"{formats.REQUEST} (\{{.*\}})", text)
    if match is None:
        return None
    try:
        plain: dict[str, Any] = json.loads(match[1])
        lists = {key: tuple(value) for key, value in plain.items() if isinstance(value, list)}
        return comparison.TableRequest(**{**plain, **lists})
    except (TypeError, json.JSONDecodeError) as error:
        rule = f"the comment '{formats.REQUEST} ...' is not readable ({error})"
        raise InputError(Fault(where="check", rule=rule)) from None


def _read_lines(text: str, style: str) -> list[TextLine]:
    """Return the lines that have more than one cell; rules between them, without letter and digit, are left out."""
    lines = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip()
        if style == "table":
            cells = re.split(r"\s{2,}", line)
        elif style == "markdown":
            # A bar after a backslash belongs to a text: it is escaped when the table is written.
            cells = [part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1]]
        else:
            # A line of the headings of groups has no row.
            is_row = line.endswith(r"\\") and r"\multicolumn" not in line
            parts = re.split(r"(?<!\\)&", line[:-2]) if is_row else []
            cells = [part.strip() for part in parts]
        if len(cells) > 1 and any(character.isalnum() for character in "".join(cells)):
            lines.append(TextLine(number, cells))
    return lines


def _compare_lines(lines: Sequence[TextLine], stored: Sequence[StoredGrid]) -> Iterator[tuple[int, list[Finding]]]:
    """Yield the number of compared numbers and the findings of every line that is one of the table."""
    # A text without headings is taken for the first grid.
    last, current = -1, stored[0]
    positions = list(range(len(current.header)))
    for line in lines:
        # Grids may have the same headings: one with all of them is meant, the next of these, and an earlier one only if there
        # is none.
        order = [*range(last + 1, len(stored)), *range(last + 1)]
        headings = [(at, found) for at in order if (found := _find_headings(line.cells, stored[at]))]
        heading = min(headings, key=lambda each: len(each[1]) < len(stored[each[0]].header), default=None)
        if heading is not None:
            last, positions = heading
            current = stored[last]
            lost = [
                Finding(line.number, "headings", "whole line", cell, current.header[at])
                for cell, at in zip(line.cells, positions, strict=True)
                if cell != current.header[at]
            ]
            if lost:
                yield 0, lost
        elif len(line.cells) == len(positions):
            yield _compare_line(line, current, positions)
        elif row := current.rows.get(tuple(line.cells[: current.keys])):
            now = f"{len(row)} columns, {' '.join(row)}"
            yield 0, [Finding(line.number, line.cells[0], "whole line", " ".join(line.cells), now)]


def _find_headings(cells: Sequence[str], stored: StoredGrid) -> list[int] | None:
    """Return the positions of a text's headings in those of a grid; None unless they are some of them, in that order.

    A mark at the heading of the words makes no other heading; that it is missing is a finding.
    """
    known = [heading.replace(grids.CHOSEN_AFTER, "") for heading in stored.header]
    found: list[int] = []
    for cell in cells:
        start, name = found[-1] + 1 if found else 0, cell.replace(grids.CHOSEN_AFTER, "")
        if name not in known[start:]:
            return None
        found.append(known.index(name, start))
    return found if found[: stored.keys] == list(range(stored.keys)) else None


def _compare_line(line: TextLine, stored: StoredGrid, positions: Sequence[int]) -> tuple[int, list[Finding]]:
    """Return the number of compared numbers and the findings of a line."""
    label = tuple(line.cells[: stored.keys])
    row, precise = stored.rows.get(label), stored.precise.get(label)
    findings, count = [], 0
    for cell, position in list(zip(line.cells, positions, strict=True))[stored.keys :]:
        claims = [*_find_numbers(cell), *_WORD.findall(cell)]
        count += len(claims)
        now = None if row is None else row[position]
        if claims and (now is None or precise is None or not _is_supported(cell, precise[position])):
            findings.append(Finding(line.number, " ".join(label), stored.header[position], cell, now))
    return count, findings


def _find_numbers(cell: str) -> list[str]:
    # An editor or a typesetter may have replaced the hyphen by a minus sign.
    return _NUMBER.findall(_MARKUP.sub("", cell.replace(MINUS, "-")))


def _is_supported(cell: str, now: str) -> bool:
    """Return True if the words agree and the store's numbers, or the first of them, round to the written ones."""
    written, stored = _find_numbers(cell), _find_numbers(now)
    # Fewer numbers than the store has are no fault: spreads and intervals may have been taken out.
    if len(written) > len(stored) or _WORD.findall(cell) not in ([], _WORD.findall(now)):
        return False
    return all(
        float(old) == float(new)
        # Slightly more than half a unit of the last digit, for ties that rounding of floats may miss. An infinite difference
        # is less than no unit. A count has no decimals in the store either, and is not rounded.
        or ("." in old + new and abs(float(old) - float(new)) < 0.5000001 * _compute_last_digit(old))
        for old, new in zip(written, stored, strict=False)
    )


def _compute_last_digit(number: str) -> float:
    """Return the value of one unit of the last digit of a number."""
    mantissa, _, exponent = number.partition("e")
    return float(f"1e{int(exponent or 0) - len(mantissa.partition('.')[2])}")


def _check_csv(root: str | Path, text: str) -> CheckReport:
    """Compare every number and word of every line of a CSV at full precision.

    Raises:
        InputError: a study, metric or reference is not in the store any more, or there are no lines.
    """
    lines = [{**CSV_DEFAULTS, **line} for line in _read_csv(text)]
    if not lines:
        raise InputError(Fault(where="check", rule="the CSV has no lines"))
    keys = (*CSV_KEYS, "shots", "bin_width")
    asked = ("study", "split", "selection", "reference", *CSV_DEFAULTS)
    stored: dict[tuple[str, ...], Mapping[str, str]] = {}
    # One comparison per distinct request and not per line, because each reads the records of a study.
    for line in {tuple(line[name] for name in asked): line for line in lines}.values():
        request = comparison.TableRequest(
            studies=(line["study"],),
            metrics=tuple(dict.fromkeys(other["metric"] for other in lines if other["study"] == line["study"])),
            split=line["split"],
            selection=line["selection"],
            reference=line["reference"] or None,
            margin=line["margin_requested"] or None,
            regions=tuple(line["regions_requested"].split()),
            shots=line["shots"] or None,
            bin_width=float(line["bin_width"]) if line["bin_width"] else None,
        )
        made = _read_csv(flat.as_csv(comparison.compare(root, request)))
        stored |= {tuple(row[name] for name in keys): row for row in made}
    findings = []
    # Line 1 has the names of the columns.
    for number, line in enumerate(lines, start=2):
        now = stored.get(tuple(line[name] for name in keys))
        for name in (*CSV_NUMBERS, *CSV_WORDS):
            value = None if now is None else now[name]
            if line.get(name) and not _is_equal(line[name], value):
                label = " ".join(line[key] for key in CSV_KEYS[:-1])
                findings.append(Finding(number, label, name, line[name], value))
        # A word without its mark would be taken for the study's claim.
        for name in CSV_MARKS if now is not None and line.get("word") else ():
            written, stored_mark = line.get(name) or "nothing", (now or {}).get(name) or "nothing"
            if written != stored_mark:
                label = " ".join(line[key] for key in CSV_KEYS[:-1])
                findings.append(Finding(number, label, name, written, stored_mark))
    return CheckReport(sum(bool(line.get(name)) for line in lines for name in CSV_NUMBERS), tuple(findings))


def _read_csv(text: str) -> list[dict[str, str]]:
    """Return the lines of a CSV by column, with texts as they were before they were written."""
    return [
        # The reader has None for the missing cells of a short line, and as the name of the further ones of a long line
        {name: spreadsheets.restore(cell or "") for name, cell in line.items() if name is not None}
        for line in csv.DictReader(io.StringIO(text))
    ]


def _is_equal(written: str, now: str | None) -> bool:
    """Return True if two texts are the same, or the same number up to rounding."""
    if not now or written == now:
        return written == now
    try:
        return math.isclose(float(written), float(now), rel_tol=CSV_TOLERANCE)
    except ValueError:
        # Edited by hand into something that is no number.
        return False
