"""Sheets: tables of own data (`dirtune.data.sources`) with all faults of their rows.

Cells of text files are read as text and converted to numbers afterwards, so that a bad cell is a fault of its row, and not a
column of another type. Rows are numbered as in the file: the header of a text file is row 1; of all other sources, the first
row is row 1. Blank lines are skipped.

Columns without a name, and those that pandas writes for the index of a frame, hold the position of a row: they are
`index_columns`, which are data only if an option names them.
"""

import codecs
import io
import itertools
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from dirtune.data.file_kinds import describe_kind
from dirtune.data.sources import SUFFIXES, Source, find_source, read_arrays, read_json_lines
from dirtune.data.verify import SHOWN_FAULTS, raise_faults
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.io.parquet_safety import check_columns

LARGEST = float(np.finfo(np.float32).max)
"""Largest number that a model, which computes with 32 bits, can represent."""
# Beyond it, floats of 64 bits have gaps.
_LARGEST_INTEGER = 2**53
_PART_BYTES = 4 * 2**20
_EMPTY = "the cell is empty"
# Rows that are searched for the header
_TITLE_ROWS = 20
_COMMENTS = ("#", "//", "%")
# Cells that are looked at for a form of numbers before all of a column are
_SAMPLE_ROWS = 1000
# Rows below a row of units that tell which columns are of numbers
_ROWS_BELOW_UNITS = 10
# pandas gives the first kind to columns without a name in a text file, and writes the second for an index without one.
_INVISIBLE = re.compile("[\u200b\u2060\ufeff]")
# Minus signs of typesetting, and the dashes that text processors write for them
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2212\ufe63\uff0d"
_INDEX_NAME = re.compile(r"^(Unnamed: \d+(\.\d+)*|__index_level_\d+__)?$")


def normalize_name(name: str) -> str:
    """Return a name as it can be typed: composed letters, single blanks, and no invisible characters."""
    return " ".join(_INVISIBLE.sub("", unicodedata.normalize("NFC", name)).split())


class TextFormat(Frozen):
    """Format of a text file with a table."""

    delimiter: str | None = Field(default=None, min_length=1)
    """Delimiter of the cells of a text file, one character or `tab`; null: a tab in tsv, a comma in csv."""
    quoted: bool | None = None
    """True: cells of a text file may be in double quotes; null: true for csv, false for tsv."""
    text_encoding: str = "utf-8"
    """Encoding of a text file, such as latin-1, cp1252 or utf-16."""
    skip_lines: int = Field(default=0, ge=0)
    """Lines of a text file before its header, such as comments."""
    decimal: Literal[".", ","] = "."
    """Decimal mark of the numbers in a text file."""
    thousands: Literal[",", ".", " ", "'", "_"] | None = None
    """Mark between groups of three digits in a text file, `space` for a blank; null: there is none."""
    symbols: str = ""
    """Characters around the numbers of a text file that are removed, such as `%` or `$`."""

    @field_validator("delimiter", mode="before")
    @classmethod
    def _read_delimiter(cls, delimiter: Any) -> Any:
        # As a shell and a YAML file show a tab
        return "\t" if delimiter in {"tab", "\\t"} else delimiter

    @field_validator("thousands", mode="before")
    @classmethod
    def _read_thousands(cls, mark: Any) -> Any:
        return " " if mark == "space" else mark

    @model_validator(mode="after")
    def _check_text_format(self) -> "TextFormat":
        if self.delimiter is not None and (len(self.delimiter) > 1 or self.delimiter in '"\r\n'):
            raise ValueError("delimiter must be one character, other than a quote or a line break, or `tab`")
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands must differ")
        if re.search(rf"[\d\s.,+{_DASHES}-]", self.symbols):
            raise ValueError("symbols must not have digits, signs, decimal marks or blanks")
        if re.search(r"[()]", self.symbols):
            raise ValueError("symbols must not have parentheses, which mean negative numbers: write a minus")
        try:
            # Python calls other transformations encodings, too.
            "".encode(self.text_encoding)
        except (LookupError, UnicodeError):
            raise ValueError(
                "text_encoding is unknown; known are utf-8, latin-1, cp1252, utf-16 and Python's others"
            ) from None
        return self

    @property
    def number(self) -> str:
        """Regular expression of a whole cell with a number."""
        mark, point = re.escape(self.thousands or ""), re.escape(self.decimal)
        whole = rf"\d{{1,3}}({mark}\d{{3}})+|\d+" if self.thousands else r"\d+"
        if self.thousands == ",":
            # As in India: 12,34,567
            whole += r"|\d{1,2}(,\d{2})+,\d{3}"
        return rf"^[-+]?(({whole})({point}\d*)?|{point}\d+)([eE][-+]?\d+)?$"

    def get_delimiter(self, path: Path) -> str:
        """Return the delimiter of a text file."""
        return self.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")

    def normalize(self, cells: pa.ChunkedArray) -> pa.ChunkedArray:
        """Return the cells with numbers as Python writes them, and null for all others."""
        # Blanks that do not break a line, too
        cells = pc.utf8_trim_whitespace(pc.replace_substring_regex(cells, f"[{_DASHES}]", "-"))
        if self.symbols:
            around = f"[{re.escape(self.symbols)}\\s]*"
            cells = pc.replace_substring_regex(cells, f"^{around}([-+]?){around}(.*?){around}$", r"\1\2")
        # Blanks that do not break a line, and the apostrophe of typesetting
        if variants := {" ": "[\u00a0\u2009\u202f]", "'": "\u2019"}.get(self.thousands or ""):
            cells = pc.replace_substring_regex(cells, variants, self.thousands)
        cells = pc.if_else(pc.match_substring_regex(cells, self.number), cells, None)
        if self.thousands:
            cells = pc.replace_substring(cells, self.thousands, "")
        return cells if self.decimal == "." else pc.replace_substring(cells, self.decimal, ".")


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
    form: TextFormat = field(default_factory=TextFormat)
    """Format of the numbers of a text file."""
    index_columns: Sequence[str] = ()
    """Columns without a name of their own, and those with the index of a pandas frame."""
    where: str = ""
    """Location for messages; that of the file if it is not given."""
    folder: Path = Path()
    """Folder of relative paths in the table."""
    written_names: Sequence[str] = ()
    """Names of the columns as they are in the file."""
    preamble: int = 0
    """Lines of a text file before the one that looks like its header."""
    has_units: bool = False
    """True if the first row looks like one of units or descriptions."""
    remarks: list[str] = field(default_factory=list)
    """Notes on how the table was read."""

    def __post_init__(self) -> None:
        self.where = self.where or str(self.path)

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
                rule = "no such column" + self.suggest_header(column)
                # As in `ignore=a, b`
                if "," in column and all(normalize_name(part) in known for part in column.split(",")):
                    rule += f" (several names are in brackets: {option.partition('.')[0]}=[{column}])"
                faults.append(Fault(where=self.where, key=option, rule=rule, got=column, known=known))
            elif column is not None and roles.setdefault(column, option) != option:
                rule = f"the column is {roles[column]!r} already"
                faults.append(Fault(where=self.where, key=option, rule=rule, got=column))
        raise_faults(faults, where=self.where)

    def add_fault(self, row: int, column: str, rule: str, got: object = None) -> None:
        """Add a fault of a cell."""
        where = f"{self.where}:{self.row_numbers[row]}"
        fault = Fault(where=where, key=column, rule=rule, got=got)
        self.row_faults.setdefault(row, []).append(fault)

    def read_numbers(self, column: str, *, hint: str = "") -> np.typing.NDArray[np.float64]:
        """Read a column as numbers, NaN in cells with a fault; a column of texts is one fault, which ends with the hint."""
        cells = _to_plain(self.table.column(column))
        # A number is also written as a list of one.
        if _is_list(cells.type) and pc.all(pc.equal(pc.fill_null(pc.list_value_length(cells), 0), 1)).as_py():
            cells = pa.chunked_array([pc.list_flatten(chunk) for chunk in cells.chunks], cells.type.value_type)
        is_text = pa.types.is_string(cells.type)
        if is_text and (fault := self._check_written_numbers(column, cells)) is not None:
            return self._add_column_fault(column, *fault)
        try:
            # By chunks, because there are several copies of texts on the way. Unsafe, because a safe cast refuses integers
            # beyond 2**53, of which rounding is harmless.
            parts = [
                pc.cast(self.form.normalize(chunk) if is_text else chunk, pa.float64(), safe=False)
                for chunk in (pa.chunked_array([each]) for each in cells.chunks)
            ]
            numbers = np.concatenate([np.empty(0), *(part.to_numpy(zero_copy_only=False) for part in parts)])
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            return self._add_column_fault(column, f"a column of {cells.type}{hint or '; convert it to numbers'}")
        # Infinite numbers, too, and those that would be infinite in a model: no label bin and no model can take them.
        usable = np.abs(numbers) <= LARGEST
        bad = np.flatnonzero(~usable)
        texts = [(row, cells[row].as_py()) for row in bad.tolist()]
        written = [text for _, text in texts if not _is_blank(text)]
        if len(bad) == len(numbers) and not written:
            return self._add_column_fault(column, f"all cells are empty{'' if len(numbers) else ': there are no rows'}")
        of_cells = [text for row, text in texts if not (_is_blank(text) or (self.has_units and row == 0))]
        suggestion = suggest_format([text.strip() for text in of_cells if isinstance(text, str)])
        if rule := _describe_lost_digits(cells, numbers):
            return self._add_column_fault(column, rule)
        # One fault of the column instead of thousands of its cells
        if len(written) > len(numbers) // 2:
            if np.isnan(numbers[bad]).any():
                # Dates, ranges and numbers of other forms, which are no categories
                like = sum(str(text).lstrip()[:1].isdigit() for text in written) * 2 > len(written)
                rule = f"most cells are not numbers{suggestion or (' such as 1234.5' if like else '') + hint}"
            else:
                rule = f"most numbers are infinite or beyond {LARGEST:.2g}, the largest number of 32 bits; write them in a larger unit"
            return self._add_column_fault(column, rule, written[0])
        for row, text in texts:
            if _is_blank(text):
                self.add_fault(row, column, _EMPTY)
            elif np.isfinite(numbers[row]):
                self.add_fault(row, column, f"must be within {LARGEST:.2g}, the largest number of 32 bits", text)
            else:
                units = (
                    " (it looks like a unit, in a row below the header: remove the row, or leave it out by skip_bad)"
                )
                is_unit = self.has_units and row == 0
                self.add_fault(row, column, f"must be a finite number{units if is_unit else suggestion}", text)
        return np.where(usable, numbers, np.nan)

    def _check_written_numbers(self, column: str, cells: pa.ChunkedArray) -> tuple[str, object] | None:
        """Return the fault of a column with numbers of several units; note marks that may be decimal or between thousands."""
        if self.form.symbols:
            others = f"[^{re.escape(self.form.symbols)}]"
            numbers = cells.filter(pc.is_valid(self.form.normalize(cells)))
            marks = pc.replace_substring_regex(numbers, others, "")
            counts = {each["values"]: each["counts"] for each in pc.value_counts(marks).to_pylist()}
            # A currency may be written in some of the cells, but 0.5 and 50 % are different units.
            if len({*counts} - {""}) > 1 or ("" in counts and {*"".join(counts)} & {*"%\u2030"}):
                found = ", ".join(f"{mark or 'none'} in {count:,}" for mark, count in sorted(counts.items()))
                return (
                    f"the cells have different symbols ({found}), so that their numbers may have different units",
                    None,
                )
        if self.form.thousands is None:
            point = re.escape(self.form.decimal)
            grouped, plain = rf"^[-+]?[1-9]\d{{0,2}}{point}\d{{3}}$", r"^[-+]?\d{1,3}$"
            either = f"{grouped}|{plain}"
            if (
                pc.all(pc.match_substring_regex(cells.slice(0, _SAMPLE_ROWS), either)).as_py()
                and pc.all(pc.match_substring_regex(cells, either)).as_py()
            ):
                number = pc.sum(pc.match_substring_regex(cells, grouped)).as_py() or 0
                if 0 < number < len(cells):
                    other = "," if self.form.decimal == "." else "."
                    self.remarks.append(
                        f"{column}: {number:,} cells have three digits after {self.form.decimal!r}, all others none: if it is "
                        f"between thousands, set thousands={self.form.decimal} and decimal={other}"
                    )
        return None

    def release(self, column: str) -> None:
        """Free the memory of a column that has been read; its name remains."""
        place = self.table.column_names.index(column)
        self.table = self.table.set_column(place, column, pa.nulls(self.table.num_rows))

    def expand_lists(self, columns: Sequence[str]) -> list[str]:
        """Replace the columns of lists of numbers by one column per element, `NAME.0`, `NAME.1` ..., and return all names."""
        names = list[str]()
        numbers = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean)
        for name in columns:
            column = self.table.column(name)
            if not _is_list(column.type) or not any(test(column.type.value_type) for test in numbers):
                names.append(name)
                continue
            lengths = sorted(pc.list_value_length(column).fill_null(0).unique().to_pylist())
            if len(lengths) != 1 or lengths == [0]:
                rule = "the lists of a column must have the same length, at least one, in all rows"
                self.column_faults.append(Fault(where=self.where, key=name, rule=rule, got=lengths[:5]))
                continue
            elements = [f"{name}.{element}" for element in range(lengths[0])]
            if taken := [each for each in elements if each in self.table.column_names]:
                rule = "the elements of its lists would have the name of another column; rename one of the columns"
                self.column_faults.append(Fault(where=self.where, key=name, rule=rule, got=taken[0]))
                continue
            flat = column.combine_chunks().flatten()
            index = self.table.column_names.index(name)
            self.table = self.table.remove_column(index)
            for place, element in enumerate(elements):
                values = flat.take(pa.array(np.arange(place, len(flat), len(elements))))
                self.table = self.table.add_column(index + place, element, values)
            names += elements
        return names

    def is_list(self, column: str) -> bool:
        """Return True if the cells of a column are lists."""
        return _is_list(self.table.column(column).type)

    def is_text(self, column: str) -> bool:
        """Return True if the cells of a column are texts."""
        kind = self.table.column(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))

    def suggest_header(self, column: str) -> str:
        """Return the reason why a text file has not the expected column, and its remedy."""
        names = self.written_names
        if self.path.suffix.lower() not in (".csv", ".tsv"):
            return ""
        first = self.table.slice(0, _TITLE_ROWS).to_pydict().values()
        for row, cells in enumerate(zip(*first, strict=True)):
            if column in [normalize_name(cell or "") for cell in cells]:
                line = self.row_numbers[row]
                return f" (line {line} has it: `--option skip_lines={line - 1}` skips those before it)"
        if self.preamble:
            return _suggest_skip(self.preamble)
        if any(re.fullmatch(r"(['\"]).+\1", name.strip()) for name in names):
            return " (names are in quotes that belong to them: single ones, or double ones behind a blank; remove them)"
        if all(re.fullmatch(self.form.number, name) for name in names):
            return " (the first line has numbers alone: add a line with the names of the columns)"
        if len(names) > 1:
            return ""
        if self.form.get_delimiter(self.path) in names[0]:
            return " (each line is in quotes as a whole: remove these quotes)"
        return _suggest_delimiter(names[0])

    def _add_column_fault(self, column: str, rule: str, got: object = None) -> np.typing.NDArray[np.float64]:
        self.column_faults.append(Fault(where=self.where, key=column, rule=rule, got=got))
        return np.full(len(self.row_numbers), np.nan)

    def read_texts(self, column: str) -> np.typing.NDArray[Any]:
        """Read a column as texts (objects), empty in cells with a fault; numbers are formatted."""
        cells = _to_plain(self.table.column(column))
        try:
            found = pc.fill_null(pc.cast(cells, pa.string()), "").to_pylist()
        except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
            rule = f"a column of {cells.type} cannot be read as texts"
            self.column_faults.append(Fault(where=self.where, key=column, rule=rule))
            found = [""] * len(self.row_numbers)
        else:
            for row, text in enumerate(found):
                if not text.strip():
                    self.add_fault(row, column, _EMPTY)
        return np.array(found, dtype=object)

    def read_names(self, column: str) -> np.typing.NDArray[Any]:
        """Read a column of names, such as those of groups or categories: texts without differences that are invisible."""
        return np.array([normalize_name(text) for text in self.read_texts(column).tolist()], dtype=object)

    def select_usable(self, skip_bad: int) -> np.typing.NDArray[np.int64]:
        """Return the positions of the rows without a fault.

        Raises:
            InputError: a whole column has a fault, or more rows than `skip_bad` have, or no row is left.
        """
        bad = len(self.unreadable) + len(self.row_faults)
        if self.column_faults or bad > skip_bad:
            # A fault of a column is mended in the file or by its options alone.
            remedy = "" if self.column_faults else f"skip_bad={bad} leaves out the rows that cannot be used"
            raise_faults([*self.column_faults, *self.faults], where=self.where, remedy=remedy)
        rows = np.arange(len(self.row_numbers))
        good = rows[~np.isin(rows, list(self.row_faults))]
        if not len(good):
            raise InputError(Fault(where=self.where, rule="no row can be used"))
        return good

    @property
    def faults(self) -> list[Fault]:
        """Faults of rows: first those of unreadable rows, then in the order of the file."""
        return [*self.unreadable, *(each for row in sorted(self.row_faults) for each in self.row_faults[row])]

    @property
    def notes(self) -> list[str]:
        """Notes for the manifest on how the table was read, and on the rows that are left out."""
        if not self.faults:
            return self.remarks
        count = len(self.unreadable) + len(self.row_faults)
        shown = [f"left out: {fault}" for fault in self.faults[:SHOWN_FAULTS]]
        return [*self.remarks, f"rows that cannot be used, left out: {count}", *shown]


def find_data_file(pipeline: str, raw: Path | Source | None) -> Source:
    """Return the table of a source, which must be given.

    Raises:
        InputError: nothing was given, or there is no such file, or more than one.
    """
    if raw is None:
        kinds = ", ".join(SUFFIXES)
        rule = f"needs a file ({kinds}) or the folder of one (`dirtune ingest {pipeline} --raw FILE`)"
        raise InputError(Fault(where=pipeline, key="raw", rule=rule))
    return raw if isinstance(raw, Source) else find_source(raw)


def read_sheet(source: Path | Source, form: TextFormat | None = None) -> Sheet:
    """Read a whole table; the suffix of a file determines its format.

    Args:
        source: the table.
        form: of a text file.

    Raises:
        InputError: the file cannot be read as a table, or has two columns of one name.
    """
    source = Source(where=str(source), path=source) if isinstance(source, Path) else source
    form, where = form or TextFormat(), source.where
    try:
        sheet = _read(source, form)
    # UnicodeDecodeError: names of columns in a damaged Parquet file; BadZipFile: a damaged npz file
    except (OSError, pa.ArrowException, UnicodeDecodeError, ValueError, BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split())
        raise InputError(Fault(where=where, rule=f"cannot be read ({reason})")) from None
    sheet.folder, sheet.written_names = source.folder, sheet.table.column_names
    index = _list_index_columns(sheet.table)
    # With the names that pandas gives them, so that options can refer to them
    names = [normalize_name(name) or f"Unnamed: {place}" for place, name in enumerate(sheet.table.column_names)]
    sheet.table = sheet.table.rename_columns(names)
    sheet.index_columns = [names[place] for place in index]
    # Arrow accepts equal names, and a lookup by name would then fail later.
    twice = sorted({name for name in names if names.count(name) > 1})
    rule = "two columns have this name"
    raise_faults([Fault(where=where, rule=rule, got=name) for name in twice], where=where)
    is_text = source.table is None and source.path.suffix.lower() in (".csv", ".tsv")
    # pandas numbers columns without names.
    is_counted = names in ([str(place + first) for place in range(len(names))] for first in (0, 1))
    if is_text and not is_counted and all(re.fullmatch(form.number, name) for name in names):
        sheet.remarks.append("the first line has numbers alone: if it is a row of data, add a line with names above it")
    return sheet


def _read(source: Source, form: TextFormat) -> Sheet:
    suffix = source.path.suffix.lower()
    if source.table is None and not _has_begin(source.path, suffix) and (kind := describe_kind(source.path)):
        raise InputError(Fault(where=source.where, rule=f"cannot be read (it is {kind})"))
    if source.table is not None:
        table = source.table
    elif suffix == ".parquet":
        table = pq.ParquetFile(source.path, page_checksum_verification=True).read()
        check_columns(table.schema, where=source.where)
    elif suffix in (".jsonl", ".npz"):
        table = read_json_lines(source.path) if suffix == ".jsonl" else read_arrays(source.path)
    else:
        return _read_text(source, form)
    return Sheet(source.path, table, np.arange(1, 1 + table.num_rows), where=source.where)


def _has_begin(path: Path, suffix: str) -> bool:
    """Return True if a file begins as those with its suffix do."""
    with path.open("rb") as stream:
        begin = stream.read(4)
    return begin == {".parquet": b"PAR1", ".npz": b"PK\x03\x04"}.get(suffix)


def _list_index_columns(table: pa.Table) -> list[int]:
    """Return the positions of columns without a name of their own, and of those with the index of a pandas frame."""
    try:
        stored = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}"))
    except ValueError:
        # Another program's, or damaged
        stored = {}
    columns = stored.get("index_columns") if isinstance(stored, dict) else None
    # A range has no column; pandas describes it by a mapping.
    index = [name for name in columns if isinstance(name, str)] if isinstance(columns, list) else []
    return [
        place for place, name in enumerate(table.column_names) if name in index or _INDEX_NAME.fullmatch(name.strip())
    ]


def _read_text(source: Source, form: TextFormat) -> Sheet:
    path, where = source.path, source.where
    is_tsv, invalid = path.suffix.lower() == ".tsv", list[tuple[int, int, int]]()
    texts, skipped = _decode(source, form), form.skip_lines
    text = _drop_lines(texts, skipped, where)
    delimiter = form.get_delimiter(path)
    # The line by which spreadsheets write the delimiter
    if written := re.match(r"\"?sep=([^\r\n])\"?\r?\n", text):
        text, skipped = text[written.end() :], skipped + 1
        delimiter = form.delimiter or written[1]
    stream = _TextStream(itertools.chain([text], texts))

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        invalid.append((row.number, row.expected_columns, row.actual_columns))
        return "skip"

    has_quotes = not is_tsv if form.quoted is None else form.quoted
    if len(delimiter.encode()) > 1:
        raise InputError(Fault(where=where, key="delimiter", rule="must be an ASCII character", got=delimiter))
    table = pyarrow.csv.read_csv(
        stream,
        # With threads, invalid rows have no number.
        read_options=pyarrow.csv.ReadOptions(use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter,
            quote_char='"' if has_quotes else False,
            newlines_in_values=has_quotes,
            ignore_empty_lines=False,
            invalid_row_handler=skip,
        ),
        convert_options=pyarrow.csv.ConvertOptions(default_column_type=pa.string()),
    )
    numbers = np.setdiff1d(np.arange(2, 2 + table.num_rows + len(invalid)), [number for number, _, _ in invalid])
    # Blank lines are rows without a cell that is not empty.
    has_text = np.zeros(table.num_rows, dtype=np.bool_)
    for column in table.columns:
        if not has_text.all():
            has_text |= pc.not_equal(pc.utf8_trim_whitespace(column), "").to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(has_text)
    preamble = _count_comments(text)
    # Rows of one cell above all others are a title.
    is_title = bool(invalid) and table.num_columns == 1 and not (numbers[rows] > invalid[0][0]).any()
    if invalid and (is_title or not len(rows)):
        first, expected, actual = invalid[0]
        rule = f"no row has as many cells as the header ({expected}; the first row has {actual})"
        # A comma in the cells may be a decimal mark.
        joined = delimiter.join(table.column_names)
        if preamble:
            rule += _suggest_skip(max(preamble, first - 1 if is_title else 0) + skipped)
        elif hint := _suggest_delimiter(joined, unlike=delimiter):
            rule += hint
        elif is_title:
            rule += _suggest_skip(first - 1 + skipped)
        elif {actual - expected for _, expected, actual in invalid} == {1}:
            rule += ": either the rows end with a delimiter, or the first column has no name; correct the header"
        raise InputError(Fault(where=where, rule=rule))
    unreadable = [
        Fault(where=f"{where}:{number + skipped}", rule=f"must have {expected} cells", got=actual)
        for number, expected, actual in invalid
    ]
    table = table if has_text.all() else table.take(rows)
    return Sheet(
        path,
        table,
        numbers[rows] + skipped,
        unreadable,
        form=form,
        where=where,
        preamble=preamble and preamble + skipped,
        has_units=_has_units(table, form),
    )


def _count_comments(text: str) -> int:
    """Return the number of lines at the start of a text that are blank or look like comments."""
    lines = text[:_PART_BYTES].splitlines()
    return next(
        (place for place, line in enumerate(lines) if line.strip() and not line.startswith(_COMMENTS)), len(lines)
    )


def _suggest_skip(lines: int) -> str:
    """Return the option that skips the lines before a header, as the end of a sentence."""
    which = "line looks" if lines == 1 else f"{lines} lines look"
    return f" (the first {which} like no header; `--option skip_lines={lines}` skips {'it' if lines == 1 else 'them'})"


def _has_units(table: pa.Table, form: TextFormat) -> bool:
    """Return True if no column of numbers has one in the first row, and its cells are in brackets or there are several."""
    first, below = table.slice(0, 1), table.slice(1, _ROWS_BELOW_UNITS)
    cells = list[str]()
    for column, other in zip(first.columns, below.columns, strict=True):
        if len(other) and form.normalize(other).null_count * 2 < len(other):
            if form.normalize(column).null_count == 0:
                return False
            cells.append(column[0].as_py().strip())
    in_brackets = [bool(re.fullmatch(r"[\[(<{]\s*[^-+.,\d\s].*[\])>}]|[\[(]\s*-?\s*[\])]", cell)) for cell in cells]
    written = [cell for cell in cells if cell and not re.match(r"[-+.,(\[]*\d", cell)]
    return any(in_brackets) or len(set(written)) > 1


class _TextStream(io.RawIOBase):
    """Texts as a stream of UTF-8, of which a part is in memory at a time."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts, self._rest = texts, b""

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes, at most `size`; none at the end."""
        while len(self._rest) < size and (text := next(self._texts, None)) is not None:
            self._rest += text.encode()
        found, self._rest = self._rest[:size], self._rest[size:]
        return found


def _decode(source: Source, form: TextFormat) -> Iterator[str]:
    """Yield the text of a file in parts.

    Raises:
        InputError: the file is not in the given encoding, or has null characters.
    """
    where, rule, line = source.where, f"is not text in {form.text_encoding}", 1
    # Accepts a byte order mark, too
    encoding = "utf-8-sig" if codecs.lookup(form.text_encoding).name == "utf-8" else form.text_encoding
    decoder = codecs.getincrementaldecoder(encoding)()
    with source.path.open("rb") as file:
        start = file.read(4096)
        file.seek(0)
        wide = _find_wide_encoding(start)
        while True:
            content = file.read(_PART_BYTES)
            try:
                text = decoder.decode(content, final=not content)
            except UnicodeError as error:
                line += content.count(b"\n", 0, getattr(error, "start", 0))
                commands = " or ".join(
                    f"`--option text_encoding={name}`" for name in ([wide] if wide else ["cp1252", "latin-1"])
                )
                rule = f"{rule} (line {line}); choose its encoding, such as {commands}"
                raise InputError(Fault(where=where, rule=rule)) from None
            if "\0" in text:
                rule = f"{rule}: it has null characters" + (f" (`--option text_encoding={wide}`?)" if wide else "")
                raise InputError(Fault(where=where, rule=rule))
            line += content.count(b"\n")
            yield text
            if not content:
                return


def _find_wide_encoding(start: bytes) -> str:
    """Return the encoding of several bytes per character that the begin of a file looks like, else ""."""
    # The mark of UTF-32 begins with that of UTF-16.
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Without a mark: half of the bytes of Western text are zeros.
    if start.count(0) <= len(start) // 4:
        return ""
    return "utf-16-le" if start[1::2].count(0) > start[::2].count(0) else "utf-16-be"


def _drop_lines(texts: Iterator[str], number: int, where: str) -> str:
    """Return the first parts of a text without its first lines.

    Raises:
        InputError: there are not more lines.
    """
    text = next(texts)
    while number:
        lines = text.splitlines(keepends=True)
        # The last one may be a part of a line.
        if len(lines) > number + 1:
            return "".join(lines[number:])
        if (further := next(texts, None)) is not None:
            text += further
        elif len(lines) > number:
            return "".join(lines[number:])
        else:
            rule = f"the file has only {len(lines)} lines"
            raise InputError(Fault(where=where, key="skip_lines", rule=rule, got=number))
    return text


def suggest_format(cells: Sequence[str]) -> str:
    """Return the options with which most of the cells would be numbers, as the end of a sentence; "" if there are none."""
    if form := _find_form(cells):
        return f" (they have {form})"
    # Not those that change the meaning of a number, such as that of a limit of detection
    mark = rf"[^\w\s.,+()<>~\u2248\u2264\u2265\u00b1{_DASHES}-]{{1,3}}"
    # In all cells the same; letters without a blank in front belong to a name, such as P012
    unit = r"[^\W\d_]{1,4}(?:/[^\W\d_])?"
    for before, behind in ((mark, mark), (rf"{unit}(?=\s)", unit)):
        expression = rf"([-+]?)\s*({before})?\s*([-+]?)\s*(\d[\d.,'_\u2019\u00a0\u2009\u202f ]*\d|\d)\s*({behind})?"
        found = [match.groups("") for cell in cells if (match := re.fullmatch(expression, cell))]
        marks = sorted({mark for _, first, _, _, last in found for mark in (first, last) if mark})
        if not marks or len(found) * 2 <= len(cells) or (behind == unit and len(marks) > 1):
            continue
        form = _find_form([number for _, _, _, number, _ in found])
        characters = "".join(dict.fromkeys("".join(marks)))
        return f" (symbols={characters!r} removes the symbols{f'; they have {form}' if form else ''})"
    return ""


def _find_form(cells: Sequence[str]) -> str:
    """Return the form of most of the cells and the options for it; "" if there is none."""
    # The first of equals: cells such as 54,700 are ambiguous only if there is none such as 54,7 or 1,054,700.
    forms = {
        r"[-+]?[1-9]\d{0,2}(\.\d{3})+,\d+": "decimal commas and points between thousands: decimal=, thousands=.",
        r"[-+]?[1-9]\d{0,2}(\.\d{3}){2,}": "points between thousands: decimal=, thousands=.",
        r"[-+]?[1-9]\d{0,2},\d{3}": "commas, which are decimal marks (decimal=,) or between thousands (thousands=,)",
        r"[-+]?[1-9]\d{0,2}((,\d{2})*,\d{3})+(\.\d+)?": "commas between thousands: thousands=,",
        r"[-+]?\d*,\d+([eE][-+]?\d+)?": "decimal commas: decimal=,",
        r"[-+]?\d{1,3}([ \u00a0\u2009\u202f]\d{3})+([.,]\d+)?": "blanks between thousands: thousands=space",
        r"[-+]?\d{1,3}(['\u2019]\d{3})+([.,]\d+)?": 'apostrophes between thousands: thousands="\'"',
        r"[-+]?\d{1,3}(_\d{3})+([.,]\d+)?": "underscores between thousands: thousands=_",
        r"\d[\d.,]*-": "a minus behind the number: write it in front",
        r"\([^()]*\d[^()]*\)": "parentheses, which mean negative numbers: write a minus",
        r"\[.*\]": "lists: a Parquet file can have a column of lists, a text file a column for each number",
    }
    counts = {pattern: sum(bool(re.fullmatch(pattern, cell, re.DOTALL)) for cell in cells) for pattern in forms}
    best = max(counts, key=counts.__getitem__)
    return forms[best] if counts[best] * 2 > len(cells) else ""


def _suggest_delimiter(header: str, *, unlike: str = "") -> str:
    """Return the option with which a header has several columns, as the end of a sentence; "" if there is none."""
    for mark, written in {";": "';'", "\t": "tab", "|": "'|'", ",": ","}.items():
        if mark in header and mark != unlike:
            return f" (the header has the delimiter {mark!r}; `--option delimiter={written}`)"
    if unlike in ("", " ") and re.search(r"\s{2,}", header.strip()):
        return " (blanks align the columns: write one delimiter between them, such as a comma)"
    if " " in header.strip() and not unlike:
        return " (if blanks are between the columns: `--option delimiter=' '`)"
    return ""


def _to_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Convert texts and dictionaries of all Arrow types to plain strings and values."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    is_text = pa.types.is_large_string(column.type) or pa.types.is_string_view(column.type)
    return column.cast(pa.string()) if is_text else column


def _describe_lost_digits(cells: pa.ChunkedArray, numbers: np.typing.NDArray[np.float64]) -> str:
    """Return the rule that integers break of which most are equal as numbers of 64 bits, else ""."""
    large = np.abs(numbers) > _LARGEST_INTEGER
    if not large.any() or not (pa.types.is_integer(cells.type) or pa.types.is_string(cells.type)):
        return ""
    before, after = pc.count_distinct(cells.filter(pa.array(large))).as_py(), len(np.unique(numbers[large]))
    if after > before / 2:
        return ""
    return f"{before:,} different cells would be {after:,} as numbers of 64 bits, which have 15 digits; subtract a constant"


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)


def _is_blank(cell: object) -> bool:
    # pandas writes an empty cell to a Parquet file as NaN.
    return cell is None or cell == "" or cell != cell
