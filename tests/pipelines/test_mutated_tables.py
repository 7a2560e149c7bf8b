"""Run with `pytest tests/pipelines/test_mutated_tables.py`: a changed table gives its own numbers, or one sentence."""

from __future__ import annotations

import csv
import io
import math
import random
import traceback
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.pipelines.own import describe_columns, describe_labels, divide, read_entries
from dirtune.pipelines.sheets import read_sheet
from dirtune.pipelines.table import (
    Options,
    check_vectors,
    describe_outliers,
    describe_row_numbers,
    make_vectors,
    read_cells,
)

ROWS = 40
ODD_NUMBERS = [
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e999",
    "1e39",
    "1e-400",
    "1,5",
    "1.5 ",
    "\u00a05",
    "\u22123",
    "+4",
    ".5",
    "5.",
]
ODD_TEXTS = [
    "",
    " ",
    "TRUE",
    "None",
    "N/A",
    "-",
    "?",
    "a,b",
    'a"b',
    "a\nb",
    "a;b",
    "a\tb",
    "\u03b2",
    "\ufeff",
    "#",
    "'1",
]
ODD_DIGITS = [
    "1e5",
    "1E+2",
    "0x1F",
    "1_000",
    "--1",
    "1-",
    "=1+1",
    "\uff11\uff12",
    "\u0663",
    "9" * 400,
    "0." + "0" * 400 + "1",
]
ODD_CELLS = [*ODD_NUMBERS, *ODD_TEXTS, *ODD_DIGITS, "x" * 5000, "-9999"]
ODD_HEADERS = [
    "",
    " ",
    "a",
    "y",
    "Unnamed: 0",
    "index",
    "y ",
    "\ufeffa",
    "a\nb",
    'a"',
    "#",
    "0",
    "\u00df",
    "x" * 3000,
    "NaN",
]


def _base(drawn: random.Random) -> list[list[str]]:
    numbers = np.random.default_rng(drawn.randrange(10**6))
    header = ["a", "b", "who", "kind", "y"]
    rows = [
        [
            f"{numbers.normal():.3f}",
            str(numbers.integers(0, 50)),
            f"p{row % 10}",
            drawn.choice("uvw"),
            f"{numbers.gamma(2, 9):.2f}",
        ]
        for row in range(ROWS)
    ]
    return [header, *rows]


def _mutate(rows: list[list[str]], drawn: random.Random) -> None:
    row, column = drawn.randrange(1, len(rows)), drawn.randrange(5)
    kind = drawn.choice(("cell", "cell", "cell", "column", "header", "drop", "add", "blank", "twice", "shift"))
    if kind == "cell":
        rows[row][min(column, len(rows[row]) - 1)] = drawn.choice(ODD_CELLS)
    elif kind == "column":
        cells = drawn.choices(ODD_CELLS, k=2)
        for each in rows[1:]:
            if len(each) > column and drawn.random() < 0.7:
                each[column] = drawn.choice(cells)
    elif kind == "header":
        rows[0][min(column, len(rows[0]) - 1)] = drawn.choice(ODD_HEADERS)
    elif kind == "drop":
        if len(rows[row]) > 1:
            rows[row].pop()
    elif kind == "add":
        rows[row].append(drawn.choice(ODD_CELLS))
    elif kind == "blank":
        rows.insert(row, [""] * 5)
    elif kind == "twice":
        rows.insert(row, list(rows[row]))
    else:
        for each in rows[1:]:
            each.append("")


def _encode(rows: list[list[str]], drawn: random.Random) -> bytes:
    text = io.StringIO()
    writer = csv.writer(
        text, delimiter=drawn.choice(",,,,;\t"), lineterminator=drawn.choice(("\n", "\n", "\r\n", "\r"))
    )
    writer.writerows(rows)
    encoding = drawn.choice([*["utf-8"] * 6, "utf-8-sig", "latin-1", "utf-16", "cp1252"])
    content = bytearray(text.getvalue().encode(encoding, errors="replace"))
    if drawn.random() < 0.2 and content:
        if drawn.random() < 0.5:
            content[drawn.randrange(len(content))] = drawn.randrange(256)
        else:
            content = content[: drawn.randrange(1, len(content))]
    return bytes(content)


def _read_independently(path: Path) -> dict[str, list[str]] | None:
    """Return the cells of a text file by Python's own reader, which treats stray quotes in another way."""
    text = path.read_bytes().decode().lstrip("\ufeff")
    if '"' in text:
        return None
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    whole = [row for row in rows if len(row) == len(header) and any(cell.strip() for cell in row)]
    # Some letters have several code points, of which names keep the usual one.
    names = [unicodedata.normalize("NFC", name).strip() or f"Unnamed: {place}" for place, name in enumerate(header)]
    return dict(zip(names, map(list, zip(*whole, strict=True)), strict=True))


def _check_numbers(cells: list[str], values: np.ndarray, used: np.ndarray) -> None:
    """Compare numbers with those that Python reads from the cells."""
    for row, value in zip(used.tolist(), values.tolist(), strict=True):
        text = cells[row].strip().replace("\u2212", "-")
        assert "_" not in text
        assert text.isascii()
        assert math.isclose(float(text), value, rel_tol=1e-15)


def _ingest(path: Path, drawn: random.Random) -> str:
    given: dict[str, Any] = {"name": "mine", "label": "y", "one_hot": ["kind"], "ignore": ["who"]}
    if drawn.random() < 0.3:
        given |= {"group": "who", "split": "grouped", "ignore": []}
    options = read(
        Options, {**given, "skip_bad": drawn.choice((0, 0, 50)), "standardize": drawn.random() < 0.7}, where="o"
    )
    try:
        sheet = read_sheet(path, options)
        roles = {f"one_hot.{place}": name for place, name in enumerate(options.one_hot)}
        sheet.require(
            {**options.roles, **roles, **{f"ignore.{place}": name for place, name in enumerate(options.ignore)}}
        )
        columns = sheet.table.column_names
        entries, cells = read_entries(sheet, options), read_cells(sheet, options)
        used = sheet.select_usable(options.skip_bad)
        cells = cells.select_rows(used)
        division = divide(options, entries, used, cells.list_contents(entries.labels[used]))
        values, features = make_vectors(cells, division.train, standardize=options.standardize)
        check_vectors(sheet, cells, values, used, standardize=options.standardize)
        notes = [*describe_labels(division, sheet), *describe_columns({"label": "y", "features": cells.names}, sheet)]
        notes += [
            *describe_row_numbers(sheet, cells, columns, options),
            *describe_outliers(cells, used, sheet),
            *sheet.notes,
        ]
    except InputError as error:
        message, rules = str(error), [fault.rule for fault in error.faults]
    else:
        message, rules = "", []
    if message:
        assert len(message) <= 2000
        assert not any("\n" in rule for rule in rules)
        return "refused"
    assert all(len(note) < 3000 for note in notes)
    written = _read_independently(path) if path.suffix == ".csv" else None
    if written is not None:
        _check_numbers(written["y"], entries.labels[used], used)
        for name, column in zip(cells.names, cells.numbers.T, strict=True):
            _check_numbers(written[name], column, used)
    assert np.isfinite(values).all()
    assert len(features) == values.shape[1]
    return "ingested"


def _run(folder: Path, seed: int) -> str:
    drawn = random.Random(seed)
    rows = _base(drawn)
    if seed % 4 == 0:
        frame = pd.DataFrame(rows[1:], columns=rows[0]).astype({"a": float, "b": int, "y": float})
        column = drawn.choice(list(frame.columns))
        kinds: list[Any] = ["str", "float32", "datetime64[s]", "category", "bool", "complex64", "timedelta64[s]"]
        try:
            frame[column] = frame[column].astype(drawn.choice(kinds))
        except (ValueError, TypeError):
            frame[column] = [drawn.choice((None, [1.0, 2.0], b"x", {"a": 1}))] * len(frame)
        path = folder / "a.parquet"
        try:
            frame.to_parquet(path)
        except Exception:
            return "not written"
        content = bytearray(path.read_bytes())
        if drawn.random() < 0.5:
            content[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
        path.write_bytes(content)
        return _ingest(path, drawn)
    for _ in range(drawn.choice((0, 1, 1, 2, 5))):
        _mutate(rows, drawn)
    path = folder / "a.csv"
    path.write_bytes(_encode(rows, drawn))
    return _ingest(path, drawn)


def _find_failures(folder: Path, seeds: range) -> tuple[Counter[str], list[str]]:
    outcomes, failures = Counter[str](), list[str]()
    for seed in seeds:
        try:
            outcomes[_run(folder, seed)] += 1
        except Exception:
            failures.append(f"seed {seed}: {traceback.format_exc(limit=-3)}")
    return outcomes, failures


def test_a_mutated_table_is_ingested_with_its_numbers_or_refused(tmp_path: Path) -> None:
    outcomes, failures = _find_failures(tmp_path, range(150))
    assert not failures, "\n".join(failures[:5])
    assert min(outcomes["ingested"], outcomes["refused"]) > 15


@pytest.mark.soak
def test_many_mutated_tables(tmp_path: Path) -> None:
    outcomes, failures = _find_failures(tmp_path, range(1000, 3000))
    assert not failures, "\n".join(failures[:10])
    assert min(outcomes["ingested"], outcomes["refused"]) > 200
