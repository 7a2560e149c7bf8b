"""Compaction: a cache with the rows of all trials of a study in one file per table.

Opening many small files is slow with any reader: the table of 10,000 trials takes 12 s from their files (two cores, 40
settings), hardly any of it for the disk, and 1 s from the cache.

`compact` writes the rows of all recorded trials once more into one file per table, `results/compacted/<table>.parquet`,
with the ids of its trials in the metadata, each with the stamp (size and time) that its file in `trials/` had. A reader
takes a trial from the cache while its stamp is the same, and from its own files otherwise. So the small files remain the
truth; the cache may be missing, old, or deleted at any time.

Compaction is safe during a running sweep. The trials are listed before anything is read, so the cache lists no trial whose
rows it could lack; the cache appears by one rename; and each of its files lists its own trials. So a reader between two
steps finds every record once, in the cache or in its own file, and no writer waits for another.

Only the two tables that every table and figure reads are compacted; predictions would double the disk space.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.progress import show_progress
from dirtune.results.records import parquetfile, schema, studies
from dirtune.results.records.unify import unify

COMPACTED_TABLES = ("trials", "metrics")
STAMPS_KEY = b"dirtune.stamps"
# Files in memory at once: a row of 80 columns takes 100 kB in a table of its own, and 1 kB in a large table
BATCH = 1_000


def compact_study(study: str, *, results: str | Path = "results") -> dict[str, int]:
    """Compact a study by its name, also while its sweep runs; return the number of rows by table.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    storage = studies.open_study(results, study)
    with show_progress(f"compacting {study}"):
        return compact(storage)


def compact(storage: Storage) -> dict[str, int]:
    """Compact the results in a study's folder; return the number of rows by table.

    Raises:
        InputError: a file is damaged.
    """
    stamps = list_stamps(storage)
    metadata = {STAMPS_KEY: json.dumps(stamps)}
    row_counts = {}
    for table in COMPACTED_TABLES:
        rows = unify([pa.Table.from_batches([], schema.SCHEMAS[table]), *read_rows(storage, table, stamps)])
        storage.write(f"results/compacted/{table}.parquet", parquetfile.encode_table(rows, metadata))
        row_counts[table] = rows.num_rows
    return row_counts


def compact_if_outdated(storage: Storage) -> None:
    """Compact the results in a study's folder unless its cache has all trials; a storage error leaves the cache as it is.

    Raises:
        InputError: a record is damaged.
    """
    stamps = list_stamps(storage)
    try:
        for table in COMPACTED_TABLES:
            faults: list[Fault] = []
            cache = [f"results/compacted/{table}.parquet"]
            parts = parquetfile.read_files(storage, cache, ["trial_id"], faults.append)
            if not parts or _read_cached_stamps(parts[0]) != stamps:
                compact(storage)
                return
    # Readers do without the cache, and the next sweep tries again
    except OSError:
        return


def list_stamps(storage: Storage) -> dict[str, str]:
    """Return the recorded trials of a study, sorted by id, each with the stamp of its file in `trials/`."""
    folder = pafs.FileSelector(storage.path("results/trials"), allow_not_found=True)
    stamps = {
        info.base_name.removesuffix(".parquet"): f"{info.size}/{info.mtime_ns}"
        for info in storage.filesystem.get_file_info(folder)
        if info.base_name.endswith(".parquet") and not info.base_name.startswith(".")
    }
    return dict(sorted(stamps.items()))


def read_rows(
    storage: Storage,
    table: str,
    stamps: Mapping[str, str],
    columns: Sequence[str] | None = None,
    on_damaged: parquetfile.OnDamaged | None = None,
) -> list[pa.Table]:
    """Return the recorded rows of one table of a study, in parts for `unify`.

    Args:
        storage: the study's folder.
        table: a name of `TABLES`.
        stamps: the trials to read, from `list_stamps`. A caller that reads several tables lists them once, so that trials
            recorded meanwhile are in none of the tables.
        columns: the columns to read, if they exist; must include `trial_id`. None means all.
        on_damaged: called with each damaged file, which is then skipped (a damaged cache costs no rows); None means to
            raise.

    Raises:
        InputError: a file is damaged, or of an unreadable version.
        OSError: the storage fails.
    """
    parts: list[pa.Table] = []
    cached: set[str] = set()
    if table in COMPACTED_TABLES:
        # A damaged cache is as good as none: each trial's own files have its rows, and the next compaction replaces it
        ignored: list[Fault] = []
        cache = [f"results/compacted/{table}.parquet"]
        parts = parquetfile.read_files(storage, cache, columns, on_damaged or ignored.append)
    if parts:
        cached_stamps = _read_cached_stamps(parts[0])
        cached = {trial_id for trial_id, stamp in cached_stamps.items() if stamps.get(trial_id) == stamp}
        if len(cached) < len(cached_stamps):
            valid = pa.array(sorted(cached), pa.string())
            parts = [parts[0].filter(pc.is_in(parts[0]["trial_id"], value_set=valid))]
    files = list_row_files(storage, table, [trial_id for trial_id in stamps if trial_id not in cached])
    faults: list[Fault] = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        # Faults are collected over all batches, so that one error names every damaged file
        if tables := parquetfile.read_files(storage, batch, columns, on_damaged or faults.append):
            parts.append(unify(tables))
    if faults:
        raise InputError(faults)
    return parts


def _read_cached_stamps(part: pa.Table) -> dict[str, str]:
    """Return the stamps of the trials in a compacted table; none if they are damaged, so that every trial's own file is read."""
    try:
        stamps = json.loads((part.schema.metadata or {})[STAMPS_KEY])
    except (KeyError, ValueError):
        stamps = None
    # One entry that no trial has leaves all rows of the cache out.
    return stamps if isinstance(stamps, dict) else {"": ""}


def list_row_files(storage: Storage, table: str, trial_ids: Iterable[str]) -> list[str]:
    """Return the files, relative to the study's folder, of these trials that exist; a failed trial has no metrics."""
    names = [f"{trial_id}.parquet" for trial_id in trial_ids]
    existing = set(storage.list_files(f"results/{table}", suffix=".parquet")) if names else set()
    return [f"results/{table}/{name}" for name in names if name in existing]
