"""Sheets: tables of own data, read from a csv, tsv or Parquet file, with all faults of their rows.

Cells of text files are read as text and converted to numbers afterwards, so that a bad cell is a fault of its row, and not a
column of another type. Rows are numbered as in the file: the header of a text file is row 1, the first row of a Parquet file
is row 1. Blank lines are skipped.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from dirtune.data.verify import SHOWN_FAULTS, raise_faults
from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import check_columns

SUFFIXES = (".csv", ".tsv", ".parquet")
_NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"
_EMPTY = "the cell is empty"


@dataclass
class Sheet:
    """A table and its faults so far; reading a column adds those of its cells."""

    path: Path
    table: pa.Table
    row_numbers: np.typing.NDArray[np.int64]
    """Number of each row of the table in the file."""
    unreadable: list[Fault] = field(default_factory=list)
    """Faults of rows that are not in the table."""
    column_faults: list[Fault] = field(default_factory=list)
    """Faults of whole columns."""
    row_faults: dict[int, list[Fault]] = field(default_factory=dict)
    """Faults of rows by position in the table."""

    def require(self, columns: Mapping[str, str | None]) -> None:
        """Raise an error if a column does not exist or has two roles.

        Args:
            columns: by option; None means that the option is not used.

        Raises:
            InputError: with all such columns.
        """
        known, roles, faults = self.table.column_names, dict[str, str](), list[Fault]()
        for option, column in columns.items():
            if column is not None and column not in known:
                rule = "no such column"
                faults.append(Fault(where=str(self.path), key=option, rule=rule, got=column, known=known))
            elif column is not None and roles.setdefault(column, option) != option:
                rule = f"the column is {roles[column]!r} already"
                faults.append(Fault(where=str(self.path), key=option, rule=rule, got=column))
        raise_faults(faults, where=str(self.path))

    def add_fault(self, row: int, column: str, rule: str, got: object = None) -> None:
        """Add a fault of a cell."""
        where = f"{self.path}:{self.row_numbers[row]}"
        fault = Fault(where=where, key=column, rule=rule, got=got)
        self.row_faults.setdefault(row, []).append(fault)

    def read_numbers(self, column: str, *, hint: str = "") -> np.typing.NDArray[np.float64]:
        """Read a column as numbers, NaN in cells with a fault; a column of texts is one fault, which ends with the hint."""
        cells = _to_plain(self.table.column(column))
        if pa.types.is_string(cells.type):
            cells = pc.utf8_trim_whitespace(cells)
            values = pc.if_else(pc.match_substring_regex(cells, _NUMBER), cells, None)
        else:
            values = cells
        try:
            # Unsafe, because a safe cast refuses integers beyond 2**53, of which rounding is harmless.
            numbers = pc.cast(values, pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return self._add_column_fault(column, f"a column of {cells.type}{hint}")
        # Infinite numbers, too: neither a label bin nor a model can take them.
        bad = np.flatnonzero(~np.isfinite(numbers))
        texts = [(row, cells[row].as_py()) for row in bad.tolist()]
        written = [text for _, text in texts if not _is_blank(text)]
        # One fault of the column instead of thousands of its cells
        if len(written) > len(numbers) // 2:
            return self._add_column_fault(column, f"most cells are not numbers{hint}", written[0])
        for row, text in texts:
            rule = _EMPTY if _is_blank(text) else "must be a finite number"
            self.add_fault(row, column, rule, None if _is_blank(text) else text)
        return np.where(np.isfinite(numbers), numbers, np.nan)

    def _add_column_fault(self, column: str, rule: str, got: object = None) -> np.typing.NDArray[np.float64]:
        self.column_faults.append(Fault(where=str(self.path), key=column, rule=rule, got=got))
        return np.full(len(self.row_numbers), np.nan)

    def read_texts(self, column: str) -> np.typing.NDArray[Any]:
        """Read a column as texts (objects), empty in cells with a fault; numbers are formatted."""
        cells = _to_plain(self.table.column(column))
        try:
            found = pc.fill_null(pc.cast(cells, pa.string()), "").to_pylist()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            rule = f"a column of {cells.type} cannot be read as texts"
            self.column_faults.append(Fault(where=str(self.path), key=column, rule=rule))
            found = [""] * len(self.row_numbers)
        else:
            for row, text in enumerate(found):
                if not text.strip():
                    self.add_fault(row, column, _EMPTY)
        return np.array(found, dtype=object)

    def select_usable(self, skip_bad: int) -> np.typing.NDArray[np.int64]:
        """Return the positions of the rows without a fault.

        Raises:
            InputError: a whole column has a fault, or more rows than `skip_bad` have, or no row is left.
        """
        bad = len(self.unreadable) + len(self.row_faults)
        if self.column_faults or bad > skip_bad:
            raise_faults([*self.column_faults, *self.faults], where=str(self.path))
        rows = np.arange(len(self.row_numbers))
        good = rows[~np.isin(rows, list(self.row_faults))]
        if not len(good):
            raise InputError(Fault(where=str(self.path), rule="no row can be used"))
        return good

    @property
    def faults(self) -> list[Fault]:
        """Faults of rows: first those of unreadable rows, then in the order of the file."""
        return [*self.unreadable, *(each for row in sorted(self.row_faults) for each in self.row_faults[row])]

    @property
    def notes(self) -> list[str]:
        """Notes for the manifest on the rows that are left out."""
        if not self.faults:
            return []
        count = len(self.unreadable) + len(self.row_faults)
        shown = [f"left out: {fault}" for fault in self.faults[:SHOWN_FAULTS]]
        return [f"rows that cannot be used, left out: {count}", *shown]


def find_data_file(pipeline: str, raw: Path | None) -> Path:
    """Return the given file, or the only data file of the given folder.

    Raises:
        InputError: nothing was given, or there is no such file, or more than one.
    """
    kinds = ", ".join(SUFFIXES)
    if raw is None:
        rule = f"needs a file ({kinds}) or the folder of one (`dirtune ingest {pipeline} --raw FILE`)"
        raise InputError(Fault(where=pipeline, key="raw", rule=rule))
    if not raw.exists():
        raise InputError(Fault(where=str(raw), rule="no such file or folder"))
    found = sorted(raw.iterdir()) if raw.is_dir() else [raw]
    files = [file for file in found if file.suffix.lower() in SUFFIXES]
    if len(files) != 1:
        names = [file.name for file in files] if raw.is_dir() else raw.name
        raise InputError(Fault(where=str(raw), rule=f"must be one file of {kinds}", got=names))
    return files[0].resolve()


def read_sheet(path: Path, *, delimiter: str | None = None, quoted: bool | None = None) -> Sheet:
    """Read a whole file; its suffix determines the format.

    Args:
        path: the file.
        delimiter: between the cells of a text file; None means a tab in tsv, a comma in csv.
        quoted: True allows double quotes around the cells of a text file; None means True for csv, False for tsv.

    Raises:
        InputError: the file cannot be read as a table, or has two columns of one name.
    """
    try:
        if path.suffix.lower() == ".parquet":
            table = pq.ParquetFile(path).read()
            check_columns(table.schema, where=str(path))
            sheet = Sheet(path, table, np.arange(1, 1 + table.num_rows))
        else:
            sheet = _read_text(path, delimiter, quoted)
    except (OSError, pa.ArrowException) as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None
    # Arrow accepts equal names, and a lookup by name would then fail later.
    names = sheet.table.column_names
    twice = sorted({name for name in names if names.count(name) > 1})
    rule = "two columns have this name"
    raise_faults([Fault(where=str(path), rule=rule, got=name) for name in twice], where=str(path))
    return sheet


def _read_text(path: Path, delimiter: str | None, quoted: bool | None) -> Sheet:
    is_tsv, invalid = path.suffix.lower() == ".tsv", list[tuple[int, int, int]]()

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        invalid.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    has_quotes = not is_tsv if quoted is None else quoted
    table = pyarrow.csv.read_csv(
        path,
        # With threads, invalid rows have no number.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter or ("\t" if is_tsv else ","),
            quote_char='"' if has_quotes else False,
            newlines_in_values=has_quotes,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(default_column_type=pa.string()),
    )
    unreadable = [
        Fault(where=f"{path}:{number}", rule=f"must have {expected} cells", got=actual)
        for number, expected, actual in invalid
    ]
    numbers = np.setdiff1d(np.arange(2, 2 + table.num_rows + len(invalid)), [number for number, _, _ in invalid])
    # Blank lines are rows without a cell that is not empty.
    has_text = np.zeros(table.num_rows, dtype=np.bool_)
    for column in table.columns:
        has_text |= pc.not_equal(column, "").to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(has_text)
    return Sheet(path, table.take(rows), numbers[rows], unreadable)


def _to_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert texts and dictionaries of all Arrow types to plain strings and values."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column


def _is_blank(cell: object) -> bool:
    # pandas writes an empty cell to a Parquet file as NaN.
    return cell is None or cell == "" or cell != cell
