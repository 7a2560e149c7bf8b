"""SQL over the results of a sweep, in a DuckDB that can reach nothing else.

The statement sees the tables and the views of `dirtune.results.query.views`. The database is in memory and gets its tables
as Arrow data; then file system, network, extensions, Python variables and settings are locked, so that a statement from
anybody can be answered. What is recorded is never written to.

Only the tables that the statement names are loaded, and of the predictions, which can be large, only the columns and
rows that it asks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import pyarrow as pa

from dirtune.errors import Fault, InputError
from dirtune.results.query.views import COLUMNS, VIEWS, view_statements
from dirtune.results.records.parquetfile import OnDamaged
from dirtune.results.records.schema import SCHEMAS, TABLES
from dirtune.results.records.store import read_table, read_tables, scan_predictions
from dirtune.results.records.studies import open_studies


def query(
    sql: str,
    root: str | Path,
    *,
    studies: Sequence[str] | None = None,
    limit: int | None = None,
    seconds: float | None = None,
    on_damaged: OnDamaged | None = None,
) -> pa.Table:
    """Answer one SQL query over a results root.

    Args:
        sql: a single SELECT (or FROM, WITH, PIVOT, DESCRIBE, EXPLAIN ...) over `trials`, `metrics`, `epochs`,
            `predictions`, `results`, `arms` and `curves`.
        root: the results root, a path or URL.
        studies: only these; none: all.
        limit: the most rows of the answer; none: all.
        seconds: the longest that the statement may run, once its tables are loaded, above zero; none: for ever.
        on_damaged: called with each file that is damaged, which is then left out; none: the first such file is an error. Of
            predictions only the end of the file, with its index, is looked at beforehand.

    Raises:
        InputError: there is no such study, a file is damaged, the statement takes too long, wants to reach something
            else, or cannot be answered: then with DuckDB's message and the columns that there are.
    """
    # An unknown study is reported before any table is read
    open_studies(root, studies)
    with _sealed(_tables(sql, root, studies, on_damaged)) as database:
        try:
            _check_is_query(database, sql)
            with _at_most(seconds, database):
                relation = database.sql(sql)
                return (relation if limit is None else relation.limit(limit)).to_arrow_table()
        except duckdb.InterruptException:
            rule = f"took longer than {seconds:g} seconds"
            raise InputError(Fault(where="query", rule=rule)) from None
        except duckdb.PermissionException:
            rule = "reaches the results alone: no files, network, extensions or settings"
            raise InputError(Fault(where="query", rule=rule)) from None
        except duckdb.Error as error:
            columns = _known_columns(root, studies, on_damaged)
            raise InputError([Fault(where="query", rule=str(error).strip()), *columns]) from None


def _tables(sql: str, root: str | Path, studies: Sequence[str] | None, on_damaged: OnDamaged | None) -> dict[str, Any]:
    """The tables that a statement names, and the others without rows."""
    # Looking for the words finds too many tables at worst; DuckDB's own parser misses those inside PIVOT and query().
    words = set(re.findall(r"\w+", sql.lower()))
    for view, parts in VIEWS.items():
        words |= set(parts) if view in words else set()
    tables: dict[str, Any] = {name: pa.Table.from_batches([], SCHEMAS[name]) for name in TABLES}
    named = dict.fromkeys(words & {"trials", "metrics", "epochs"})
    if named:
        tables |= read_tables(root, named, studies=studies, on_damaged=on_damaged)
    if "predictions" in words:
        tables["predictions"] = scan_predictions(root, studies=studies, on_damaged=on_damaged)
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
        for statement in view_statements(tables["metrics"]):
            database.execute(statement)
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield database


@contextmanager
def _at_most(seconds: float | None, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
    if seconds is None:
        yield
        return
    ended = Event()

    def watch() -> None:
        # Again and again: an interrupt that comes before the statement has begun is forgotten.
        while not ended.wait(seconds):
            database.interrupt()

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _check_is_query(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    kinds = [statement.type for statement in database.extract_statements(sql)]
    answered = {
        duckdb.StatementType.SELECT,
        duckdb.StatementType.EXPLAIN,
        # What a PIVOT is taken apart into
        duckdb.StatementType.MULTI,
    }
    if len(kinds) != 1 or kinds[0] not in answered:
        names = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(Fault(where="query", rule=f"must be one SELECT statement, but is {names}"))


def _known_columns(root: str | Path, studies: Sequence[str] | None, on_damaged: OnDamaged | None) -> list[Fault]:
    columns = {name: SCHEMAS[name].names for name in TABLES}
    trials = read_table(root, "trials", studies=studies, on_damaged=on_damaged)
    columns |= {"trials": trials.column_names, **COLUMNS}
    return [Fault(where=f"table {name}", rule=f"has {', '.join(found)}") for name, found in columns.items()]
