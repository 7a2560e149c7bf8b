"""Result of a query as text or file: a table for a terminal, Markdown, CSV, JSON, Parquet."""

import csv
import io
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.jsonfile import format_json
from dirtune.io.storage import Storage
from dirtune.results.spreadsheets import defuse
from dirtune.results.textgrid import as_markdown, as_text

PARQUET = "parquet"
# ASCII but the characters with which others are written
_PLAIN = frozenset(map(chr, range(32, 127))) - {"\\", "'", '"'}
SUFFIXES = {".csv": "csv", ".json": "json", ".md": "markdown", ".parquet": PARQUET, ".txt": "table"}


def format_table(table: pa.Table, format: str = "table") -> str:
    """Return a table as text: `table` for a terminal, `markdown`, `csv`, or `json` (a list of objects).

    Numbers are rounded to six digits in the first two only. Durations are seconds, and bytes are written as DuckDB does. Null is
    empty, and null in JSON, as is NaN; infinite numbers, which JSON cannot write, are the texts "inf" and "-inf" there. In CSV, an
    apostrophe precedes texts that spreadsheets would run as formulas.

    Raises:
        InputError: unknown format, or Parquet, which is not text.
    """
    if format == PARQUET:
        raise InputError(Fault(where="format", rule="parquet is not text: give a file (--output)"))
    if format not in _FORMATS:
        known = [*_FORMATS, PARQUET]
        raise InputError(Fault(where="format", rule="unknown format", got=format, known=known))
    columns = [[_to_number(value) for value in _to_python(column)] for column in table.columns]
    return _FORMATS[format](table.column_names, [list(row) for row in zip(*columns, strict=True)])


def save_table(table: pa.Table, file: Path, format: str | None = None) -> Path:
    """Write a table to a file, in a format or in that of the file's suffix, and return its path.

    Raises:
        InputError: as `choose_format`, or unknown format.
    """
    form = choose_format(file, format)
    if form == PARQUET:
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(table, sink, compression="zstd")
        except pa.ArrowException as error:
            raise InputError(Fault(where="output", rule=f"parquet cannot hold this result ({error})")) from None
        content: bytes = sink.getvalue().to_pybytes()
    else:
        content = f"{format_table(table, form)}\n".encode()
    Storage.open(file.parent).write(file.name, content)
    return file


def choose_format(file: Path, format: str | None) -> str:
    """Return the format of a file: the one asked for, or that of its suffix.

    Raises:
        InputError: the suffix is that of another format, or no format is asked for and the suffix has none.
    """
    of_suffix = SUFFIXES.get(file.suffix)
    form = format or of_suffix
    if form is None:
        raise InputError(Fault(where="output", rule="unknown suffix", got=file.suffix, known=list(SUFFIXES)))
    # A .txt file may have any text.
    if of_suffix not in {None, form} and (file.suffix != ".txt" or form == PARQUET):
        rule = f"the suffix {file.suffix} is that of {of_suffix}, not of the format that is asked for"
        raise InputError(Fault(where="output", rule=rule, got=form))
    return form


def _to_python(column: pa.ChunkedArray) -> list[Any]:
    """Return the values of a column; times that Python cannot hold, such as infinite ones, as texts."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        values = pc.cast(column, pa.string()).to_pylist()
    return values


def _to_number(value: Any) -> Any:
    """Return sums and decimals as numbers, durations as seconds, bytes as text, also in lists; other values as they are."""
    if isinstance(value, list | tuple):
        return [_to_number(each) for each in value]
    if isinstance(value, dict):
        return {name: _to_number(each) for name, each in value.items()}
    if isinstance(value, Decimal):
        # Sums of integers are decimals without a fraction, which may have more digits than a float.
        exponent = value.as_tuple().exponent
        return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)
    if isinstance(value, bytes):
        return "".join(chr(byte) if chr(byte) in _PLAIN else f"\\x{byte:02X}" for byte in value)
    return value.total_seconds() if isinstance(value, timedelta) else value


def _as_csv(names: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([defuse(name) for name in names])
    writer.writerows(["" if value is None else defuse(value) for value in row] for row in rows)
    return text.getvalue().rstrip("\n")


def _as_json(names: list[str], rows: list[list[Any]]) -> str:
    return format_json([dict(zip(names, row, strict=True)) for row in rows])


def _format_cells(rows: list[list[Any]]) -> list[list[str]]:
    def format_cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    return [[format_cell(value) for value in row] for row in rows]


_FORMATS: dict[str, Callable[[list[str], list[list[Any]]], str]] = {
    "table": lambda names, rows: as_text(names, _format_cells(rows)),
    "markdown": lambda names, rows: as_markdown(names, _format_cells(rows)),
    "csv": _as_csv,
    "json": _as_json,
}
