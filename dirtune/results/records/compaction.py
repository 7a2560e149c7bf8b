"""One study's rows from its many small files, and the cache that spares opening them one by one.

Opening many small files is slow whatever opens them: the table of 10,000 trials takes 12 s from their files (two cores, 40
settings), hardly any of it the disk, and 1 s from the cache.

`compact` writes the rows of all recorded trials once more into one file per table, `results/compacted/<table>.parquet`,
which says in its metadata which trials it holds and the stamp (size and time) that each one's file in `trials/` had. A
reader takes a trial from there while its stamp is the same, and from its own files otherwise. So the small files stay
the truth; the cache may be missing, old, or deleted at any time.

Safe beside a running sweep. The trials are listed before anything is read, so the cache claims no trial whose rows it cannot
have; it takes its place by one rename; and each of its files says itself which trials it holds. So a reader between two
steps finds every record once, in the cache or in its own file, and a writer is never waited for or written over.

Only the two tables that every table and figure reads are compacted; predictions would double the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.parquetfile import OnDamaged, encoded, read_files
from dirtune.results.records.schema import SCHEMAS
from dirtune.results.records.studies import open_study
from dirtune.results.records.unify import unify

COMPACTED_TABLES = ("trials", "metrics")
STAMPS_KEY = b"dirtune.stamps"
# Files that are held one by one: a row of 80 columns takes 100 kB alone, and 1 kB among others
BATCH = 1_000
SUFFIX = ".parquet"


def compact_study(study: str, *, results: str | Path = "results") -> dict[str, int]:
    """Compact a study by its name, also while its sweep runs; the rows written, by table.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    return compact(open_study(results, study))


def compact(storage: Storage) -> dict[str, int]:
    """Compact the results in a study's folder; the rows written, by table.

    Raises:
        InputError: a file is damaged.
    """
    stamps = recorded_stamps(storage)
    metadata = {STAMPS_KEY: json.dumps(stamps)}
    written = {}
    for table in COMPACTED_TABLES:
        rows = unify([pa.Table.from_batches([], SCHEMAS[table]), *study_rows(storage, table, stamps)])
        storage.write(_compacted(table), encoded(rows, metadata))
        written[table] = rows.num_rows
    return written


def recorded_stamps(storage: Storage) -> dict[str, str]:
    """The recorded trials of a study, by id in order, each with the stamp of its file in `trials/`."""
    folder = pafs.FileSelector(storage.path("results/trials"), allow_not_found=True)
    stamps = {
        info.base_name.removesuffix(SUFFIX): f"{info.size}/{info.mtime_ns}"
        for info in storage.filesystem.get_file_info(folder)
        if info.base_name.endswith(SUFFIX) and not info.base_name.startswith(".")
    }
    return dict(sorted(stamps.items()))


def study_rows(
    storage: Storage,
    table: str,
    stamps: Mapping[str, str],
    columns: Sequence[str] | None = None,
    on_damaged: OnDamaged | None = None,
) -> list[pa.Table]:
    """What a study has recorded in one table, in parts for `unify`.

    Args:
        storage: the study's folder.
        table: one of the four.
        stamps: the trials to read, from `recorded_stamps`. Listed before anything is read, so that what is recorded
            meanwhile stays unseen in every table.
        columns: only these, as far as they exist, `trial_id` among them; none: all.
        on_damaged: called with each damaged file, which is then left out (a damaged cache costs no rows); none: an error.

    Raises:
        InputError: a file is damaged, or of a newer version.
    """
    parts, held = _compacted_rows(storage, table, stamps, columns, on_damaged)
    files = row_files(storage, table, [trial_id for trial_id in stamps if trial_id not in held])
    faults: list[Fault] = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        if tables := read_files(storage, batch, columns, on_damaged or faults.append):
            parts.append(unify(tables))
    if faults:
        raise InputError(faults)
    return parts


def row_files(storage: Storage, table: str, trial_ids: Iterable[str]) -> list[str]:
    """The files, relative to the study's folder, that hold these trials' rows; a trial that failed has no metrics."""
    names = [f"{trial_id}{SUFFIX}" for trial_id in trial_ids]
    existing = set(storage.names(f"results/{table}", suffix=SUFFIX)) if names else set()
    return [f"results/{table}/{name}" for name in names if name in existing]


def _compacted_rows(
    storage: Storage, table: str, stamps: Mapping[str, str], columns: Sequence[str] | None, on_damaged: OnDamaged | None
) -> tuple[list[pa.Table], set[str]]:
    """The part of the rows that the cache can give, and the trials that it answers for."""
    if table not in COMPACTED_TABLES:
        return [], set()
    cache = read_files(storage, [_compacted(table)], columns, on_damaged)
    if not cache:
        return [], set()
    stored = json.loads(cache[0].schema.metadata[STAMPS_KEY])
    held = {trial_id for trial_id, stamp in stored.items() if stamps.get(trial_id) == stamp}
    if len(held) < len(stored):
        valid = pa.array(sorted(held), pa.string())
        cache = [cache[0].filter(pc.is_in(cache[0]["trial_id"], value_set=valid))]
    return cache, held


def _compacted(table: str) -> str:
    return f"results/compacted/{table}{SUFFIX}"
