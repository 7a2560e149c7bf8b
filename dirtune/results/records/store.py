"""Writing the record of a trial, and reading the tables of many.

Every trial has one immutable Parquet file per table, `results/<table>/<trial_id>.parquet` in its study's folder. The
file in `trials/` is written last and commits: without it, what else has the trial's name does not exist. So a reader
needs no lock and sees a sweep that is running, finished, or was killed half-way.

Tables are read with whatever columns their files have (`dirtune.results.records.unify`), and from the cache of
`dirtune.results.records.compaction` where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.compaction import recorded_stamps, row_files, study_rows
from dirtune.results.records.parquetfile import OnDamaged, encoded, whole_files
from dirtune.results.records.schema import SCHEMAS, TABLES, Status, TrialRecord
from dirtune.results.records.studies import open_studies
from dirtune.results.records.unify import unify

if TYPE_CHECKING:
    from pyarrow.dataset import Dataset

Shares = Sequence[tuple[Storage, Mapping[str, str]]]
"""Studies, each with the trials that are read of it and their stamps."""


def write_record(storage: Storage, record: TrialRecord) -> None:
    """Write everything that is kept of a trial into its study's folder; the file in `trials/` comes last.

    A record of the same trial that was there before is replaced.

    Raises:
        ValueError: the record does not fit `dirtune.results.records.schema`.
    """
    tables = {
        "metrics": _long("metrics", record, record.metrics),
        "epochs": _long("epochs", record, _epoch_rows(record)),
        "predictions": _predictions(record),
        "representations": _representations(record),
        "trials": _trial(record),
    }
    for name in TABLES:
        path = f"results/{name}/{record.trial_id}.parquet"
        if tables[name].num_rows:
            storage.write(path, encoded(tables[name]))
        else:
            # An earlier, failed attempt may have left one
            storage.remove(path)


def recorded(storage: Storage) -> dict[str, str]:
    """The status of every recorded trial of a study, by trial id."""
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
    """The rows of all recorded trials in one of the tables.

    Args:
        source: a study's folder (a `Storage`, as `write_record` takes it), or the path or URL of a results root.
        table: a name of `TABLES`.
        studies: of a root, only these.
        columns: only these, as far as they exist; `trial_id` comes always. none: all.
        on_damaged: called with each damaged file, which is then left out; none: a damaged file is an error.

    Returns:
        The columns of the table's schema and, in `trials`, whatever `config.*` columns any trial has. One run can be
        recorded by several studies under one `trial_id`: it is then one row of `trials` per study, while its rows in
        the other tables are taken from the first, so that a join on `trial_id` counts nothing twice.

    Raises:
        InputError: no such table or study, or a file that is damaged or of a newer version.
    """
    return read_tables(source, {table: columns}, studies=studies, on_damaged=on_damaged)[table]


def read_tables(
    source: Storage | str | Path,
    tables: Mapping[str, Sequence[str] | None],
    *,
    studies: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
) -> dict[str, pa.Table]:
    """Several tables at one moment: each has the same trials, also beside a running sweep.

    Args:
        source: as in `read_table`, whose other arguments and errors these are, too.
        tables: the names of the tables, and the columns of each.
        studies: as there.
        on_damaged: as there.
    """
    if unknown := [table for table in tables if table not in SCHEMAS]:
        raise InputError(Fault(where="results", rule="unknown table", got=unknown[0], known=TABLES))
    folders = [source] if isinstance(source, Storage) else [*open_studies(source, studies).values()]
    recorded_in = [(folder, recorded_stamps(folder)) for folder in folders]
    once = _each_trial_once(recorded_in)
    return {
        table: _rows(table, recorded_in if table == "trials" else once, columns, on_damaged)
        for table, columns in tables.items()
    }


def scan_predictions(
    root: str | Path, *, studies: Sequence[str] | None = None, on_damaged: OnDamaged | None = None
) -> Dataset:
    """The predictions of all recorded trials without reading them: a dataset that decodes what is asked of it.

    With `on_damaged`, a file whose end cannot be read is reported to it and left out; else it is an error when it is read.

    Raises:
        InputError: there is no such study.
    """
    # Costs as much as importing everything else here
    import pyarrow.dataset as pads

    folders = [*open_studies(root, studies).values()]
    files = []
    shares = _each_trial_once([(folder, recorded_stamps(folder)) for folder in folders])
    for folder, stamps in shares:
        names = row_files(folder, "predictions", stamps)
        names = names if on_damaged is None else whole_files(folder, names, on_damaged)
        files += [folder.path(name) for name in names]
    return pads.dataset(files, schema=SCHEMAS["predictions"], filesystem=folders[0].filesystem, format="parquet")


def by_sample(rows: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and predictions as they were recorded: `(n,)`, or `(n, L)` for labels of L dimensions.

    Args:
        rows: of one trial and split, in the order of the file, with `component`, `label` and `prediction`.
    """
    labels, predictions = rows["label"].to_numpy(), rows["prediction"].to_numpy()
    last = pc.max(rows["component"]).as_py()
    if last is None:
        return labels, predictions
    return labels.reshape(-1, last + 1), predictions.reshape(-1, last + 1)


def flattened(config: Mapping[str, Any], prefix: str = "config") -> Iterator[tuple[str, Any]]:
    """The leaves of a nested configuration as `config.<dotted.path>` and value; lists as JSON text.

    Raises:
        ValueError: a leaf is not plain data.
    """
    for key, value in config.items():
        path = f"{prefix}.{key}"
        if isinstance(value, Mapping):
            yield from flattened(value, path)
        elif isinstance(value, list | tuple):
            yield path, json.dumps(value)
        elif value is None or isinstance(value, bool | int | float | str):
            yield path, value
        else:
            raise ValueError(f"{path} must be plain data, but got {value!r}")


def _trial(record: TrialRecord) -> pa.Table:
    schema, row = SCHEMAS["trials"], record.trial
    unknown = sorted(set(row) - set(schema.names))
    if unknown:
        raise ValueError(f"trial has unknown columns {unknown}; known: {schema.names}")
    if row.get("status") not in get_args(Status):
        raise ValueError(f"status must be one of {get_args(Status)}, got {row.get('status')!r}")
    table = _columns([row], schema)
    for path, value in flattened(record.config):
        table = table.append_column(path, pa.array([value]))
    return table


def _long(name: str, record: TrialRecord, rows: Sequence[Mapping[str, object]]) -> pa.Table:
    schema = SCHEMAS[name]
    for row in rows:
        if set(row) != set(schema.names) - {"trial_id"}:
            raise ValueError(f"a row of {name} must have {schema.names[1:]}, but got {row}")
    return _columns([{**row, "trial_id": record.trial_id} for row in rows], schema)


def _columns(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    # from_pandas: what is undefined is NaN in the making and null in the tables.
    arrays = [pa.array([row.get(field.name) for row in rows], field.type, from_pandas=True) for field in schema]
    return pa.table(arrays, schema=schema)


def _epoch_rows(record: TrialRecord) -> list[dict[str, object]]:
    return [
        {"epoch": epoch, "name": name, "value": value}
        for epoch, values in enumerate(record.epochs, start=1)
        for name, value in values.items()
    ]


def _predictions(record: TrialRecord) -> pa.Table:
    schema = SCHEMAS["predictions"]
    parts = [schema.empty_table()]
    for split, of_split in record.predictions.items():
        labels = np.asarray(of_split.labels, dtype=np.float64)
        predictions = np.asarray(of_split.predictions, dtype=np.float64)
        if labels.shape != predictions.shape:
            shapes = (labels.shape, predictions.shape)
            raise ValueError(f"labels and predictions of {split} must have one shape, got {shapes}")
        dims = labels.shape[1] if labels.ndim == 2 else 1
        ids = pa.array([str(sample) for sample in of_split.sample_ids for _ in range(dims)], pa.string())
        columns = [
            pa.repeat(record.trial_id, len(ids)),
            pa.repeat(split, len(ids)),
            ids,
            _components(labels),
            pa.array(labels.reshape(-1)),
            pa.array(predictions.reshape(-1)),
        ]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def _representations(record: TrialRecord) -> pa.Table:
    schema = SCHEMAS["representations"]
    parts = [schema.empty_table()]
    for split, of_split in record.representations.items():
        ids = pa.array([str(sample) for sample in of_split.sample_ids], pa.string())
        vectors = pa.array(list(np.asarray(of_split.vectors, dtype=np.float32)), schema.field("vector").type)
        columns = [pa.repeat(record.trial_id, len(ids)), pa.repeat(split, len(ids)), ids, vectors]
        parts.append(pa.table(columns, schema=schema))
    return pa.concat_tables(parts)


def _components(labels: NDArray[np.float64]) -> pa.Array:
    if labels.ndim == 1:
        return pa.nulls(len(labels), pa.int8())
    samples, dims = labels.shape
    return pa.array(np.tile(np.arange(dims, dtype=np.int8), samples))


def _rows(table: str, shares: Shares, columns: Sequence[str] | None, on_damaged: OnDamaged | None) -> pa.Table:
    wanted = None if columns is None else ["trial_id", *columns]
    parts = [part for folder, stamps in shares for part in study_rows(folder, table, stamps, wanted, on_damaged)]
    empty = pa.schema([f for f in SCHEMAS[table] if wanted is None or f.name in wanted])
    # `empty.empty_table()` imports pandas, which takes longer than reading.
    return unify([pa.Table.from_batches([], empty), *parts])


def _each_trial_once(shares: Shares) -> Shares:
    """Of every study the trials that no earlier one has."""
    seen: set[str] = set()
    found = []
    for folder, stamps in shares:
        found.append((folder, {trial: s for trial, s in stamps.items() if trial not in seen}))
        seen |= stamps.keys()
    return found
