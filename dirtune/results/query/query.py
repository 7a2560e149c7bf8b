"""SQL over the results of a sweep, in a DuckDB that can reach nothing else.

A statement sees the tables and the views of `dirtune.results.query.views`. The database is in memory and gets its tables
as Arrow data; then file system, network, extensions, Python variables and settings are locked, so that statements of
untrusted users can be run. Records are never written to.

Only the tables that the statement names are loaded, and of the predictions, which can be large, only the columns and
rows that it selects.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from threading import Event, Thread
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from dirtune.errors import Fault, InputError
from dirtune.results.analysis import floors
from dirtune.results.query.views import COLUMNS, VIEWS, list_view_statements
from dirtune.results.records.parquetfile import OnDamaged
from dirtune.results.records.schema import SCHEMAS, TABLES
from dirtune.results.records.store import read_once, read_table, read_tables, scan_predictions
from dirtune.results.records.studies import open_studies


@read_once()
def query(
    sql: str,
    root: str | Path,
    *,
    studies: Sequence[str] | None = None,
    limit: int | None = None,
    timeout: float | None = None,
    memory: int | None = None,
    on_damaged: OnDamaged | None = None,
) -> pa.Table:
    """Run one SQL query over a results root.

    Args:
        sql: a single SELECT (or FROM, WITH, PIVOT, DESCRIBE, EXPLAIN ...) over `trials`, `metrics`, `epochs`,
            `predictions`, `results`, `arms`, `curves`, `floors` and `floor_predictions`.
        root: the results root, a path or URL.
        studies: only these; None means all.
        limit: maximum number of rows; None means all.
        timeout: time limit of the statement in seconds, above zero, without the loading of its tables; None means none.
        memory: limit of the database's memory in bytes; None means DuckDB's own, a share of the machine's.
        on_damaged: called with the fault of each damaged file, which is then left out; None means that the first such
            file is an error. Of predictions, only the end of the file, with its index, is read beforehand.

    Returns:
        The rows as an Arrow table.

    Raises:
        InputError: there is no such study, a file is damaged, the statement runs out of time, tries to reach something
            else, or is invalid: then with the first line of DuckDB's message, and near names.
    """
    if limit is not None and limit < 0:
        raise InputError(Fault(where="query", key="limit", rule="must not be negative", got=limit))
    if timeout is not None and not 0 < timeout < np.inf:
        raise InputError(Fault(where="query", key="timeout", rule="must be above zero and finite", got=timeout))
    if studies is not None and not studies:
        raise InputError(Fault(where="query", rule="needs a study; without a choice all are read"))
    # An unknown study is reported before any table is read.
    open_studies(root, studies)
    with open_sealed(_load_tables(sql, root, studies, on_damaged), memory) as database:
        try:
            _check_is_query(database, sql)
            with _limit_time(timeout, database):
                return _make_plain(_execute(database, sql, limit))
        except duckdb.InterruptException:
            rule = f"took longer than {timeout:g} seconds"
            raise InputError(Fault(where="query", rule=rule)) from None
        except duckdb.PermissionException:
            rule = "reaches the results alone: no files, network, extensions or settings"
            raise InputError(Fault(where="query", rule=rule)) from None
        except duckdb.OutOfMemoryException:
            most = "DuckDB takes of this machine" if memory is None else f"{memory:,} bytes"
            raise InputError(Fault(where="query", rule=f"needs more memory than {most}")) from None
        except duckdb.Error as error:
            columns = {name: list(SCHEMAS[name].names) for name in TABLES}
            columns |= {name: list(schema.names) for name, schema in floors.TABLES.items()}
            trials = read_table(root, "trials", studies=studies, on_damaged=on_damaged)
            columns |= {"trials": trials.column_names, **COLUMNS}
            raise InputError(Fault(where="query", rule=_explain(str(error), columns))) from None


def _explain(message: str, columns: Mapping[str, Sequence[str]]) -> str:
    """Return the first line of DuckDB's message, with names of tables or columns that are near to one that it names.

    Args:
        message: of DuckDB; its further lines repeat the statement and guess by the columns of its tables alone.
        columns: by table.
    """
    first, *others = message.strip().splitlines()
    missing = re.search(r'(?:column|name) (?:named )?"?([\w.]+)"?(?: not found| does not exist|$)', first)
    if missing is None:
        place = next((line.strip() for line in others if line.startswith("LINE ")), "")
        return f"{first} ({place})" if place else first
    name = missing[1]
    if first.startswith("Catalog Error: Table"):
        return f"{first.partition('!')[0]}; tables: {', '.join(columns)}"
    where: dict[str, list[str]] = {}
    for table, own in columns.items():
        for column in own:
            where.setdefault(column, []).append(table)
    # A name of another table's column is as useful as one that is spelled alike.
    near = [name] if name in where else get_close_matches(name, list(where), n=3)
    found = "; ".join(f"{column} is a column of {', '.join(where[column])}" for column in near)
    return f"{first.partition('!')[0]}; {found or '`describe TABLE` has the columns of ' + ', '.join(columns)}"


def _execute(database: duckdb.DuckDBPyConnection, sql: str, limit: int | None) -> pa.Table:
    """Return the rows of a statement; Ctrl-C interrupts it.

    Raises:
        InputError: Arrow would change the values of a column without a word.
    """

    def execute() -> pa.Table:
        relation = database.sql(sql)
        for name, kind in zip(relation.columns, relation.types, strict=True):
            if not _has_arrow_form(kind):
                rule = f"values of the type {kind} cannot be returned; cast them, such as to text"
                raise InputError(Fault(where="query", key=name, rule=rule))
        return (relation if limit is None else relation.limit(limit)).to_arrow_table()

    # In a thread of its own: Python notices Ctrl-C only in the main one, which DuckDB would block until the last row
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(execute)
        try:
            return running.result()
        except KeyboardInterrupt:
            # Repeatedly: an interrupt that comes before the statement has started is forgotten
            while not running.done():
                database.interrupt()
                wait([running], timeout=0.05)
            raise


def _has_arrow_form(kind: Any, *, is_inner: bool = False) -> bool:
    """Return True if Arrow has the values of a DuckDB type; intervals are converted, but not those in lists or structures."""
    if kind.id in {"list", "array", "struct", "map", "union"}:
        # Beside inner types it has the length of an array
        return all(_has_arrow_form(each, is_inner=True) for _, each in kind.children if hasattr(each, "id"))
    # The zone of a time would be lost
    return kind.id not in {"uhugeint", "bit", "bignum", "time with time zone"} and not (
        is_inner and kind.id == "interval"
    )


def _make_plain(table: pa.Table) -> pa.Table:
    """Return the table with a name for each column, which JSON objects and Parquet files need, and durations for intervals.

    Raises:
        InputError: an interval has months, which have no fixed length.
    """
    names: list[str] = []
    for name in table.column_names:
        count = 1
        while (unique := name if count == 1 else f"{name}_{count}") in names:
            count += 1
        names.append(unique)
    table = table.rename_columns(names)
    for place, column in enumerate(table.columns):
        if pa.types.is_interval(column.type):
            table = table.set_column(place, names[place], _to_durations(column, names[place]))
    return table


def _to_durations(column: pa.ChunkedArray, name: str) -> pa.Array:
    # Arrow converts no intervals; each is months and days of 32 bits, then nanoseconds of 64.
    values = column.combine_chunks()
    parts = np.frombuffer(values.buffers()[1], dtype=[("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])
    parts = parts[values.offset : values.offset + len(values)]
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if parts["months"][~missing].any():
        rule = "an interval of months or years has no fixed length: use date_diff, or a number of days"
        raise InputError(Fault(where="query", key=name, rule=rule))
    microseconds = parts["days"].astype(np.int64) * 86_400_000_000 + parts["nanoseconds"] // 1000
    return pa.array(microseconds, pa.int64(), mask=missing).cast(pa.duration("us"))


def _load_tables(
    sql: str, root: str | Path, studies: Sequence[str] | None, on_damaged: OnDamaged | None
) -> dict[str, Any]:
    """Load the tables that a statement names, and the others without rows."""
    # A search for words finds too many tables at worst; DuckDB's own parser misses those inside PIVOT and query().
    words = set(re.findall(r"\w+", sql.lower()))
    for view, parts in VIEWS.items():
        words |= set(parts) if view in words else set()
    tables: dict[str, Any] = {name: pa.Table.from_batches([], SCHEMAS[name]) for name in TABLES}
    named = dict.fromkeys(words & {"trials", "metrics", "epochs"})
    if named:
        tables |= read_tables(root, named, studies=studies, on_damaged=on_damaged, encode=True)
    if "predictions" in words:
        tables["predictions"] = scan_predictions(root, studies=studies, on_damaged=on_damaged)
    tables |= {name: pa.Table.from_batches([], schema) for name, schema in floors.TABLES.items()}
    if words & floors.TABLES.keys():
        tables |= floors.read_floor_tables(root, studies, on_damaged)
    return tables


@contextmanager
def open_sealed(tables: dict[str, Any], memory: int | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an in-memory database with these tables, sealed from everything else; `memory` limits its bytes."""
    # Without a temporary directory nothing is spilled to the disk either.
    config: dict[str, Any] = {"python_enable_replacements": False, "temp_directory": ""}
    if memory is not None:
        config["memory_limit"] = f"{memory}B"
    with duckdb.connect(":memory:", config=config) as database:
        # Times are recorded in UTC; the session would use the local zone.
        database.execute("SET TimeZone = 'UTC'")
        for name, table in tables.items():
            database.register(name, table)
        for statement in list_view_statements(tables["metrics"]):
            database.execute(statement)
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        yield database


@contextmanager
def _limit_time(timeout: float | None, database: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Interrupt the statement of the block after the time limit."""
    if timeout is None:
        yield
        return
    # DuckDB has no time limit of its own.
    ended = Event()

    def interrupt() -> None:
        # Repeatedly: an interrupt that comes before the statement has started is forgotten.
        while not ended.wait(timeout):
            database.interrupt()

    watcher = Thread(target=interrupt, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _check_is_query(database: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Raise unless the text is one statement that reads."""
    kinds = [statement.type for statement in database.extract_statements(sql)]
    # MULTI is what DuckDB takes a PIVOT apart into.
    allowed = {duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN, duckdb.StatementType.MULTI}
    if len(kinds) != 1 or kinds[0] not in allowed:
        names = ", ".join(kind.name for kind in kinds) or "nothing"
        raise InputError(Fault(where="query", rule=f"must be one SELECT statement, but is {names}"))
