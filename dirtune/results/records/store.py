"""Trial records: writing one, and reading the tables of many.

Every trial has one immutable Parquet file per table, `results/<table>/<trial_id>.parquet` in its study's folder. The file in
`trials/` is written last and commits: without it, the trial's other files are ignored. So a reader needs no lock and can
read a sweep that is running, finished, or was killed.

Tables are read with the columns that their files have (`dirtune.results.records.unify`), and from the cache of
`dirtune.results.records.compaction` if there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.compaction import Records, encode_texts, list_row_files
from dirtune.results.records.parquetfile import OnDamaged, encode_table, select_readable
from dirtune.results.records.schema import SCHEMAS, TABLES, Status, TrialRecord
from dirtune.results.records.studies import open_studies
from dirtune.results.records.unify import unify

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

_KNOWN_RECORDS: ContextVar[dict[str, Records] | None] = ContextVar("known_records", default=None)


@contextmanager
def read_once() -> Iterator[None]:
    """Read each table of a study at most once in the block: all that it makes shows the same trials, also during a sweep."""
    if _KNOWN_RECORDS.get() is not None:
        yield
        return
    token = _KNOWN_RECORDS.set({})
    try:
        yield
    finally:
        _KNOWN_RECORDS.reset(token)


def write_record(storage: Storage, record: TrialRecord) -> None:
    """Write the record of a trial into its study's folder; the file in `trials/` is written last.

    An earlier record of the same trial is replaced.

    Raises:
        ValueError: the record does not fit `dirtune.results.records.schema`.
    """
    epochs = [
        {"epoch": epoch, "name": name, "value": value}
        for epoch, values in enumerate(record.epochs, start=1)
        for name, value in values.items()
    ]
    tables = {
        "metrics": _make_long_table("metrics", record, record.metrics),
        "epochs": _make_long_table("epochs", record, epochs),
        "predictions": _make_predictions(record),
        "representations": _make_representations(record),
        "trials": _make_trial(record),
    }
    for name in TABLES:
        path = f"results/{name}/{record.trial_id}.parquet"
        if tables[name].num_rows:
            storage.write(path, encode_table(tables[name]))
        else:
            # An earlier, failed attempt may have left a file
            storage.remove(path)


def read_statuses(storage: Storage) -> dict[str, str]:
    """Return the status of every recorded trial of a study, by trial id."""
    rows = read_table(storage, "trials", columns=["trial_id", "status"])
    return dict(zip(rows["trial_id"].to_pylist(), rows["status"].to_pylist(), strict=True))


def read_table(
    source: Storage | str | Path,
    table: str,
    *,
    studies: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
) -> pa.Table:
    """Return the rows of all recorded trials in one table.

    Args:
        source: a study's folder (a `Storage`, as in `write_record`), or the path or URL of a results root.
        table: a name of `TABLES`.
        studies: the studies of a root to read; None means all.
        columns: the columns to read, if they exist; `trial_id` is always read. None means all.
        on_damaged: called with each damaged file, which is then skipped; None means to raise.

    Returns:
        The columns of the table's schema and, in `trials`, the `config.*` columns that any trial has. One run can be
        recorded by several studies under one `trial_id`: it is then one row of `trials` per study, while its rows in
        the other tables are read from the first study only, so that a join on `trial_id` counts nothing twice.

    Raises:
        InputError: no such table or study, or a file that is damaged or of an unreadable version.
    """
    return read_tables(source, {table: columns}, studies=studies, on_damaged=on_damaged)[table]


def read_tables(
    source: Storage | str | Path,
    tables: Mapping[str, Sequence[str] | None],
    *,
    studies: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
    encode: bool = False,
) -> dict[str, pa.Table]:
    """Return several tables with the same trials in each, also during a running sweep.

    Args:
        source: as for `read_table`, whose other arguments and errors apply as well.
        tables: names of tables, each with its columns.
        studies: as for `read_table`.
        on_damaged: as for `read_table`.
        encode: True returns the columns of text in `metrics` as dictionaries, which is several times faster.
    """
    if unknown := [table for table in tables if table not in SCHEMAS]:
        raise InputError(Fault(where="results", rule="unknown table", got=unknown[0], known=TABLES))
    folders = [source] if isinstance(source, Storage) else [*open_studies(source, studies).values()]
    records = [_open_records(folder) for folder in folders]
    repeated = _find_repeated_trials(records)

    def read(table: str, columns: Sequence[str] | None) -> pa.Table:
        names = None if columns is None else ["trial_id", *columns]
        parts = [
            part
            for study, others in zip(records, repeated, strict=True)
            for part in study.read(table, names, on_damaged, () if table == "trials" else others, encode)
        ]
        schema = pa.schema([field for field in SCHEMAS[table] if names is None or field.name in names])
        # `schema.empty_table()` would import pandas, which takes longer than reading
        empty = pa.Table.from_batches([], schema)
        if not encode:
            return unify([empty, *parts])
        # One dictionary for all parts, because Arrow aggregates no others
        return unify([encode_texts(empty, table), *parts]).unify_dictionaries()

    return {table: read(table, columns) for table, columns in tables.items()}


def scan_predictions(
    root: str | Path, *, studies: Sequence[str] | None = None, on_damaged: OnDamaged | None = None
) -> Dataset:
    """Return the predictions of all recorded trials as a dataset, which decodes columns on demand.

    With `on_damaged`, a file whose footer is damaged is reported and skipped. Damaged pages raise while they are decoded.

    Raises:
        InputError: there is no such study, or, without `on_damaged`, a footer is damaged.
    """
    # Importing pyarrow.dataset takes as long as all other imports of this module
    import pyarrow.dataset as pads

    folders = [*open_studies(root, studies).values()]
    files = []
    records = [_open_records(folder) for folder in folders]
    for folder, study, others in zip(folders, records, _find_repeated_trials(records), strict=True):
        names = list_row_files(folder, "predictions", [each for each in study.stamps if each not in others])
        files += [folder.path(name) for name in select_readable(folder, names, on_damaged)]
    verified = pads.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = pads.ParquetFileFormat(default_fragment_scan_options=verified)
    return pads.dataset(files, schema=SCHEMAS["predictions"], filesystem=folders[0].filesystem, format=form)


def stack_components(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return labels and predictions of shape `(n,)`, or `(n, L)` for labels of L dimensions.

    Args:
        rows: the rows of one trial and split, in the order of the file, with `component`, `label` and `prediction`.
    """
    labels, predictions = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    last = pc.max(rows["component"]).as_py()
    if last is None:
        return labels, predictions
    return labels.reshape(-1, last + 1), predictions.reshape(-1, last + 1)


def flatten_config(config: Mapping[str, Any], prefix: str = "config") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested configuration as `config.<dotted.path>` and value; lists become JSON text.

    Raises:
        ValueError: a leaf is not plain data.
    """
    for key, value in config.items():
        path = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from flatten_config(value, path)
        elif isinstance(value, list | tuple):
            yield path, json.dumps(value)
        elif value is None or isinstance(value, bool | int | float | str):
            yield path, value
        else:
            raise ValueError(f"{path} must be plain data, but got {value!r}")


def _make_trial(record: TrialRecord) -> pa.Table:
    schema, row = SCHEMAS["trials"], record.trial
    unknown = sorted(set(row) - set(schema.names))
    if unknown:
        raise ValueError(f"trial has unknown columns {unknown}; known: {schema.names}")
    if row.get("status") not in get_args(Status):
        raise ValueError(f"status must be one of {get_args(Status)}, got {row.get('status')!r}")
    settings = {path: pa.array([value]) for path, value in flatten_config(record.config)}
    columns = dict(zip(schema.names, _make_table([row], schema).columns, strict=True))
    return pa.table({**columns, **settings})


def _make_long_table(name: str, record: TrialRecord, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    schema = SCHEMAS[name]
    for row in rows:
        if set(row) != set(schema.names) - {"trial_id"}:
            raise ValueError(f"a row of {name} must have {schema.names[1:]}, but got {row}")
    return _make_table([{**row, "trial_id": record.trial_id} for row in rows], schema)


def _make_table(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    # from_pandas: undefined values are NaN in computations and null in the tables
    arrays = [pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema]
    return pa.table(arrays, schema=schema)


def _make_predictions(record: TrialRecord) -> pa.Table:
    schema = SCHEMAS["predictions"]
    parts = [schema.empty_table()]
    for split, arrays in record.predictions.items():
        labels = np.asarray(arrays.labels, dtype=np.float64)
        predictions = np.asarray(arrays.predictions, dtype=np.float64)
        if labels.shape != predictions.shape:
            shapes = (labels.shape, predictions.shape)
            raise ValueError(f"labels and predictions of {split} must have one shape, got {shapes}")
        dims = labels.shape[1] if labels.ndim == 2 else 1
        ids = pa.array([str(sample) for sample in arrays.sample_ids for _ in range(dims)], pa.string())
        if labels.ndim == 1:
            components = pa.nulls(len(labels), pa.int8())
        else:
            components = pa.array(np.tile(np.arange(dims, dtype=np.int8), len(labels)))
        columns = [
            pa.repeat(record.trial_id, len(ids)),
            pa.repeat(split, len(ids)),
            ids,
            components,
            pa.array(labels.reshape(-1)),
            pa.array(predictions.reshape(-1)),
            pa.nulls(len(ids), pa.float64()) if arrays.deviations is None else pa.array(arrays.deviations),
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def _make_representations(record: TrialRecord) -> pa.Table:
    schema = SCHEMAS["representations"]
    parts = [schema.empty_table()]
    for split, arrays in record.representations.items():
        ids = pa.array([str(sample) for sample in arrays.sample_ids], pa.string())
        vectors = pa.array(list(np.asarray(arrays.vectors, dtype=np.float32)), schema.field("vector").type)
        columns = [pa.repeat(record.trial_id, len(ids)), pa.repeat(split, len(ids)), ids, vectors]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def _open_records(folder: Storage) -> Records:
    """Return the records of a study as they are now, or, within `read_once`, as they were when it was first read."""
    known = _KNOWN_RECORDS.get()
    if known is None:
        return Records(folder)
    return known.setdefault(folder.root, Records(folder, keep=True))


def _find_repeated_trials(records: Sequence[Records]) -> list[frozenset[str]]:
    """Return, for each study, the trials that an earlier one of them has."""
    if len(records) == 1:
        return [frozenset()]
    seen: set[str] = set()
    repeated = []
    for study in records:
        repeated.append(frozenset(seen & study.stamps.keys()))
        seen |= study.stamps.keys()
    return repeated
