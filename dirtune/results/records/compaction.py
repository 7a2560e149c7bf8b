"""Compaction: a cache with the rows of all trials of a study in one file per table.

Opening many small files is slow with any reader: the table of 10,000 trials takes 12 s from their files (two cores, 40
settings), hardly any of it for the disk, and 1 s from the cache.

`compact` writes the rows of all recorded trials once more into one file per table, `results/compacted/<table>.parquet`,
with the ids of its trials in the metadata, each with the stamp (size and time) that its file in `trials/` had. A reader
takes a trial from the cache while its stamp is the same, and from its own files otherwise. So the small files remain the
truth; the cache may be missing, old, or deleted at any time.

On a local disk, one number tells that the whole cache is valid: before it lists the trials, a compaction sets the time of the
folder `trials/` to a value that no clock shows, its seal. Every record is renamed into the folder and every removal takes a name
out of it, which both replace the time, so a folder with the seal of the cache has exactly its trials, and none of 100,000
files is asked for its stamp. A file that something else has edited in place is noticed at the next compaction.

A compaction opens only the files of trials that the cache lacks. A sweep compacts whenever a quarter of the trials, and at
least `LEAST_NEW`, are new, so that no reader opens more files than that.

Compaction is safe during a running sweep. The trials are listed before anything is read, so the cache lists no trial whose
rows it could lack; the cache appears by one rename; and each of its files lists its own trials. So a reader between two
steps finds every record once, in the cache or in its own file, and no writer waits for another.

Only the two tables that every table and figure reads are compacted; predictions would double the disk space.
"""

import base64
import contextlib
import json
import os
import secrets
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.progress import show_progress
from dirtune.results.records import parquetfile, schema, studies
from dirtune.results.records.unify import unify

COMPACTED_TABLES = ("trials", "metrics")
ENCODED = {"metrics": [each.name for each in schema.SCHEMAS["metrics"] if each.type == pa.string()]}
"""Columns by table whose few texts are read as dictionaries, a fifth of the time and memory."""
TRIALS = "results/trials"
"""Folder of the files that commit records."""
_SUFFIX = ".parquet"
TRIALS_KEY = "dirtune.trials"
"""Stamps by trial as JSON, compressed."""
SEAL_KEY = "dirtune.seal"
LEAST_NEW = 1_000
"""Recorded trials that the cache lacks before a running sweep compacts."""
SECONDS_BETWEEN_CHECKS = 30.0
"""Time between two looks of a running sweep at the number of its recorded trials."""
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
    seal = _seal_trials(storage)
    stamps = list_stamps(storage)
    trials = base64.b64encode(zlib.compress(json.dumps(stamps).encode(), level=1)).decode()
    metadata = {TRIALS_KEY: trials, SEAL_KEY: seal}
    row_counts = {}
    for table in COMPACTED_TABLES:
        rows = unify([pa.Table.from_batches([], schema.SCHEMAS[table]), *read_rows(storage, table, stamps)])
        storage.write(_name_cache(table), parquetfile.encode_table(rows, metadata))
        row_counts[table] = rows.num_rows
    return row_counts


def compact_if_outdated(storage: Storage) -> None:
    """Compact the results in a study's folder unless its cache has all trials; a storage error leaves the cache as it is.

    Raises:
        InputError: a record is damaged.
    """
    try:
        records = Records(storage)
        if not all(records.is_compacted(table) for table in COMPACTED_TABLES):
            compact(storage)
    # Readers do without the cache, and the next sweep tries again
    except OSError:
        return


@contextlib.contextmanager
def keep_compacted(storage: Storage) -> Iterator[None]:
    """Compact a study now and then while the block records its trials; errors are those of the storage, and are left alone."""
    ended = Event()

    def compact_repeatedly() -> None:
        compacted = 0
        while not ended.wait(SECONDS_BETWEEN_CHECKS):
            # A damaged record is reported by the reader that needs it
            with contextlib.suppress(OSError, InputError):
                recorded = _count_trials(storage)
                if recorded - compacted >= max(LEAST_NEW, compacted // 4):
                    compact(storage)
                    compacted = recorded

    thread = Thread(target=compact_repeatedly, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _count_trials(storage: Storage) -> int:
    if not storage.is_local:
        return len(list_stamps(storage))
    with contextlib.suppress(FileNotFoundError), os.scandir(storage.path(TRIALS)) as entries:
        return sum(not entry.name.startswith(".") for entry in entries)
    return 0


def _name_cache(table: str) -> str:
    return f"results/compacted/{table}.parquet"


def _seal_trials(storage: Storage) -> str:
    """Mark the present state of the folder of records, and return the mark; empty if the file system allows none."""
    if not storage.is_local:
        return ""
    folder = storage.path(TRIALS)
    # Of this second, with random nanoseconds: the time of no later change is equal
    wanted = time.time_ns() // 10**9 * 10**9 + 1 + 2 * secrets.randbelow(10**9 // 2)
    try:
        os.utime(folder, ns=(os.stat(folder).st_atime_ns, wanted))
    # Another user's folder, or no trial yet
    except OSError:
        return ""
    seal = _read_seal(storage)
    # A file system with coarse times cannot hold the mark
    return seal if seal.endswith(f"/{wanted}") else ""


def _read_seal(storage: Storage) -> str:
    """Return the state of the folder of records, in the form of a seal; empty if there is none."""
    if not storage.is_local:
        return ""
    try:
        about = os.stat(storage.path(TRIALS))
    except OSError:
        return ""
    # The inode, because a copy of a folder may have its time and not all of its files
    return f"{about.st_ino}/{about.st_mtime_ns}"


def list_stamps(storage: Storage) -> dict[str, str]:
    """Return the recorded trials of a study, sorted by id, each with the stamp of its file in `trials/`.

    Raises:
        InputError: a record is no file; what another process has just removed is none.
    """
    stamps, wrong = {}, []
    for info in storage.list_entries(TRIALS):
        name = info.base_name
        if name.endswith(_SUFFIX) and not name.startswith("."):
            stamps[name.removesuffix(_SUFFIX)] = f"{info.size}/{info.mtime_ns}"
            if info.type == pafs.FileType.Directory:
                wrong.append(info.path)
    if storage.is_local:
        # pyarrow does not list links that lead to no file, such as those of git-annex
        with contextlib.suppress(FileNotFoundError), os.scandir(storage.path(TRIALS)) as found:
            wrong += [
                each.path
                for each in found
                if each.name.endswith(_SUFFIX) and each.name.removesuffix(_SUFFIX) not in stamps and each.is_symlink()
            ]
    if wrong:
        rule = "must be a file, but is a folder or a link that leads to no file"
        raise InputError(Fault(where=path, rule=rule) for path in wrong)
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
    return Records(storage, stamps).read(table, columns, on_damaged)


@dataclass
class Records:
    """The records of a study at one moment: all its tables have the same trials, also during a running sweep."""

    storage: Storage
    """The study's folder."""
    _stamps: Mapping[str, str] | None = None
    """Trials with their stamps; None until they are needed."""
    _seal: str = ""
    """State of the folder of records; empty if its trials had to be listed."""
    _sealed: "_Cache | None" = None
    """A cache with this seal, whose trials are the recorded ones whatever is recorded meanwhile."""
    keep: bool = False
    """True keeps the rows of all files, with all columns, for further reads."""
    _caches: dict[str, "_Cache | None"] = field(default_factory=dict)
    _own_rows: dict[tuple[str, bool], list[pa.Table]] = field(default_factory=dict)
    """Rows that are not in the cache, by table and whether damage is an error."""

    def __post_init__(self) -> None:
        if self._stamps is None:
            self._seal = _read_seal(self.storage)

    @property
    def stamps(self) -> Mapping[str, str]:
        """Return the recorded trials, sorted by id, each with the stamp of its file in `trials/`."""
        if self._stamps is None:
            sealed = self._sealed or self._open_cache("trials")
            if sealed is not None and self._is_sealed(sealed):
                self._stamps = sealed.stamps
            else:
                self._seal, self._stamps = "", list_stamps(self.storage)
        return self._stamps

    def is_compacted(self, table: str) -> bool:
        """Return True if the cache of a table has exactly these trials."""
        cache = self._open_cache(table)
        return cache is not None and (self._is_sealed(cache) or cache.stamps == self.stamps)

    def read(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        on_damaged: parquetfile.OnDamaged | None = None,
        leave_out: Iterable[str] = (),
        encode: bool = False,
    ) -> list[pa.Table]:
        """Return the rows of one table, in parts for `unify`; further arguments and errors are those of `read_rows`.

        Args:
            leave_out: ids of trials whose rows are not read.
            encode: True returns the texts of `ENCODED` as dictionaries.
        """
        left_out = frozenset(leave_out)
        parts: list[pa.Table] = []
        cached: Iterable[str] = ()
        cache = self._open_cache(table, on_damaged) if table in COMPACTED_TABLES else None
        if cache is not None and (rows := cache.read(columns, encode=encode)) is not None:
            if self._is_sealed(cache):
                self._sealed = cache
                if not left_out:
                    return [rows]
            stamps = self.stamps
            valid = {trial_id for trial_id, stamp in cache.stamps.items() if stamps.get(trial_id) == stamp} - left_out
            if len(valid) < len(cache.stamps):
                own = pa.array(sorted(valid), pa.string())
                rows = rows.filter(pc.is_in(rows["trial_id"].cast(pa.string()), value_set=own))
            parts, cached = [rows], valid
        wanted = [trial_id for trial_id in self.stamps if trial_id not in cached and trial_id not in left_out]
        if not self.keep or left_out:
            own_rows = _read_own_files(self.storage, table, wanted, columns, on_damaged)
        else:
            key = (table, on_damaged is None)
            if key not in self._own_rows:
                self._own_rows[key] = _read_own_files(self.storage, table, wanted, None, on_damaged)
            own_rows = [_select_columns(rows, columns) for rows in self._own_rows[key]]
        return [*parts, *(encode_texts(rows, table) if encode else rows for rows in own_rows)]

    def _is_sealed(self, cache: "_Cache") -> bool:
        """Return True if a cache has exactly these trials, by its seal."""
        return bool(self._seal) and cache.seal == self._seal

    def _open_cache(self, table: str, on_damaged: parquetfile.OnDamaged | None = None) -> "_Cache | None":
        if table not in self._caches:
            # A damaged cache is as good as none: each trial's own files have its rows, and the next compaction replaces it
            faults: list[Fault] = []
            self._caches[table] = _open_cache(self.storage, table, on_damaged or faults.append)
        return self._caches[table]


def encode_texts(rows: pa.Table, table: str) -> pa.Table:
    """Return rows of a table with the columns of `ENCODED` as dictionaries."""
    for name in ENCODED.get(table, ()):
        if name in rows.column_names and rows[name].type == pa.string():
            rows = rows.set_column(rows.column_names.index(name), name, rows[name].dictionary_encode())
    return rows


def _decode_texts(rows: pa.Table) -> pa.Table:
    for position, column in enumerate(rows.columns):
        if pa.types.is_dictionary(column.type):
            rows = rows.set_column(position, rows.column_names[position], column.cast(pa.string()))
    return rows


def _select_columns(rows: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    return (
        rows if columns is None else rows.select([each for each in dict.fromkeys(columns) if each in rows.column_names])
    )


@dataclass
class _Cache:
    """A compacted table whose checksum fits; its columns are decoded when they are first needed."""

    file: pq.ParquetFile
    where: str
    on_damaged: parquetfile.OnDamaged
    _columns: dict[str, pa.ChunkedArray] = field(default_factory=dict)
    _stamps: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self._names = frozenset(self.file.schema_arrow.names)
        self._metadata: Mapping[bytes, bytes] = self.file.metadata.metadata or {}
        self.seal = self._metadata.get(SEAL_KEY.encode(), b"").decode(errors="replace")

    @property
    def stamps(self) -> Mapping[str, str]:
        """Return the trials that the table has, with their stamps; one that no trial has if they are damaged."""
        if self._stamps is None:
            try:
                text = base64.b64decode(self._metadata[TRIALS_KEY.encode()], validate=True)
                stamps = json.loads(zlib.decompress(text))
            except (KeyError, ValueError, zlib.error):
                stamps = None
            # One entry that no trial has leaves all rows of the cache out.
            self._stamps = stamps if isinstance(stamps, dict) else {"": ""}
        return self._stamps

    def read(self, columns: Sequence[str] | None, *, encode: bool) -> pa.Table | None:
        """Return columns, those that exist, or None if the file is damaged; texts as dictionaries if they are to be encoded."""
        wanted = self.file.schema_arrow.names if columns is None else columns
        names = [name for name in dict.fromkeys(wanted) if name in self._names]
        missing = [name for name in names if name not in self._columns]
        if missing:
            try:
                found = self.file.read(columns=missing)
            except (pa.ArrowException, OSError, ValueError) as error:
                self.on_damaged(Fault(where=self.where, rule=f"damaged Parquet file ({error})"))
                return None
            self._columns.update(zip(found.column_names, found.columns, strict=True))
        rows = pa.table({name: self._columns[name] for name in names})
        return rows if encode else _decode_texts(rows)


def _open_cache(storage: Storage, table: str, on_damaged: parquetfile.OnDamaged) -> _Cache | None:
    """Return the compacted form of a table; None if there is none, or a damaged one, which is reported."""
    name, where = _name_cache(table), storage.path(_name_cache(table))
    try:
        file = parquetfile.open_file(storage.read(name), name, where, encoded=ENCODED.get(table, ()))
    except FileNotFoundError:
        return None
    if isinstance(file, Fault):
        on_damaged(file)
        return None
    return _Cache(file, where, on_damaged)


def _read_own_files(
    storage: Storage,
    table: str,
    trial_ids: Iterable[str],
    columns: Sequence[str] | None,
    on_damaged: parquetfile.OnDamaged | None,
) -> list[pa.Table]:
    """Return the rows of one table from the files of single trials; arguments and errors are those of `read_rows`."""
    files = list_row_files(storage, table, trial_ids)
    parts: list[pa.Table] = []
    faults: list[Fault] = []
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        # Faults are collected over all batches, so that one error names every damaged file
        if tables := parquetfile.read_files(storage, batch, columns, on_damaged or faults.append):
            parts.append(unify(tables))
    parquetfile.raise_faults(faults)
    return parts


def list_row_files(storage: Storage, table: str, trial_ids: Iterable[str]) -> list[str]:
    """Return the files, relative to the study's folder, of these trials that exist; a failed trial has no metrics."""
    names = [f"{trial_id}.parquet" for trial_id in trial_ids]
    existing = set(storage.list_files(f"results/{table}", suffix=".parquet")) if names else set()
    return [f"results/{table}/{name}" for name in names if name in existing]
