"""SQL over the results of a sweep, in a DuckDB that can reach nothing else.

The statement sees the four tables as views and `results`, one row per trial: the columns of `trials` and one column
`<split>.<region>.<metric>` per number at the best validation epoch (to be quoted: `"test.few.mae"`). The database is in
memory and gets its tables as Arrow data; then file system, network, extensions, Python variables and settings are
locked, so that a statement from anybody can be answered. What is recorded is never written to.

Only the tables that the statement names are loaded, and of the predictions, which can be large, only the columns and
rows that it asks for.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dirtune.errors import Fault, InputError
from dirtune.results.schema import SCHEMAS, TABLES
from dirtune.results.store import read_table, scan_predictions
from dirtune.results.studies import open_studies
from dirtune.results.textgrid import as_markdown, as_text

WIDE = "results"


def query(sql: str, root: str | Path, *, studies: Sequence[str] | None = None) -> pa.Table:
    """Answer one SQL query over a results root.

    Args:
        sql: a single SELECT (or FROM, WITH, PIVOT, DESCRIBE, EXPLAIN ...) over `trials`, `metrics`, `epochs`,
            `predictions` and `results`.
        root: the results root, a path or URL.
        studies: only these; none: all.

    Raises:
        InputError: there is no such study, a file is damaged, or the statement cannot be answered: then with DuckDB's
            message and the columns that there are.
    """
    open_studies(root, studies)  # an unknown study is reported before any table is read
    with _sealed(_tables(sql, root, studies)) as database:
        try:
            _check_is_query(database, sql)
            return database.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            columns = _known_columns(root, studies)
            raise InputError([Fault(where="query", rule=str(error).strip()), *columns]) from None


def format_table(table: pa.Table, format: str = "table") -> str:
    """A table as text: `table` for a terminal, `markdown`, `csv`, or `json` (a list of objects).

    Numbers are rounded to six digits in the first two only. What is null is empty, and null in JSON, as is a number
    that JSON cannot write.

    Raises:
        InputError: unknown format.
    """
    if format not in _FORMATS:
        known = list(_FORMATS)
        raise InputError(Fault(where="format", rule="unknown format", got=format, known=known))
    columns = [column.to_pylist() for column in table.columns]
    return _FORMATS[format](table.column_names, [list(row) for row in zip(*columns, strict=True)])


def _tables(sql: str, root: str | Path, studies: Sequence[str] | None) -> dict[str, Any]:
    """The tables that a statement names, and the others without rows."""
    # Looking for the words finds too many tables at worst; DuckDB's own parser misses those inside PIVOT and query().
    words = set(re.findall(r"\w+", sql.lower()))
    if WIDE in words:
        words |= {"trials", "metrics"}
    tables: dict[str, Any] = {name: SCHEMAS[name].empty_table() for name in TABLES}
    for name in words & {"trials", "metrics", "epochs"}:
        tables[name] = read_table(root, name, studies=studies)
    if "predictions" in words:
        tables["predictions"] = scan_predictions(root, studies=studies)
    return tables


@contextmanager
def _sealed(tables: dict[str, Any]) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory database with these tables and no way out."""
    # Without a temporary directory nothing is spilled to the disk either.
    config = {"python_enable_replacements": False, "temp_directory": ""}
    with duckdb.connect(":memory:", config=config) as database:
        database.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            database.register(name, table)
        database.execute(_wide_view(tables["metrics"]))
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield database


def _wide_view(metrics: pa.Table) -> str:
    """SQL that creates the view `results`."""
    best = metrics.filter(pc.equal(metrics["selection"], "best_val"))
    keys = best.group_by(["split", "region", "metric"]).aggregate([]).to_pylist()
    columns = [
        f"""max(value) FILTER (split = {_text(key["split"])} AND region = {_text(key["region"])} """
        f"""AND metric = {_text(key["metric"])}) AS {_name(".".join(key.values()))}"""
        for key in keys
    ]
    values = ", ".join(["trial_id", *columns])
    return (
        f"CREATE VIEW {WIDE} AS SELECT * FROM trials LEFT JOIN "
        f"(SELECT {values} FROM metrics WHERE selection = 'best_val' GROUP BY trial_id) "
        "USING (trial_id)"
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def _check_is_query(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    kinds = [statement.type for statement in database.extract_statements(sql)]
    answered = {
        duckdb.StatementType.SELECT,
        duckdb.StatementType.EXPLAIN,
        duckdb.StatementType.MULTI,  # what a PIVOT is taken apart into
    }
    if len(kinds) != 1 or kinds[0] not in answered:
        names = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(Fault(where="query", rule=f"must be one SELECT statement, but is {names}"))


def _known_columns(root: str | Path, studies: Sequence[str] | None) -> list[Fault]:
    columns = {name: SCHEMAS[name].names for name in TABLES}
    columns["trials"] = read_table(root, "trials", studies=studies).column_names
    columns[WIDE] = ["all columns of trials", 'one "<split>.<region>.<metric>" per best_val metric']
    return [
        Fault(where=f"table {name}", rule=f"has {', '.join(found)}")
        for name, found in columns.items()
    ]


def _as_csv(names: list[str], rows: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    return text.getvalue().rstrip("\n")


def _as_json(names: list[str], rows: list[list[Any]]) -> str:
    objects = [
        {name: _plain(value) for name, value in zip(names, row, strict=True)} for row in rows
    ]
    return json.dumps(objects, indent=1, default=str, allow_nan=False)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cells(rows: list[list[Any]]) -> list[list[str]]:
    return [[_cell(value) for value in row] for row in rows]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


_FORMATS: dict[str, Callable[[list[str], list[list[Any]]], str]] = {
    "table": lambda names, rows: as_text(names, _cells(rows)),
    "markdown": lambda names, rows: as_markdown(names, _cells(rows)),
    "csv": _as_csv,
    "json": _as_json,
}
