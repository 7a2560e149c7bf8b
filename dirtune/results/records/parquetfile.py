"""Parquet files of results: encoding, and reading with the damaged files named.

Files are decoded from bytes by `ParquetFile`, not through a pyarrow dataset: a dataset opens every file twice to unify the
schemas, cannot name the damaged one of 10,000 files, and takes as long to import as everything else together.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import find_column_fault
from dirtune.io.storage import Storage
from dirtune.results.records.schema import READABLE_VERSIONS, SCHEMA_VERSION

VERSION_KEY = b"dirtune.schema_version"
OnDamaged = Callable[[Fault], None]
"""Callback for each damaged file, which is then skipped."""
# Concurrent requests to an object store; on a local disk, more threads than cores only slow each other down
REMOTE_REQUESTS = 32


def encode_table(table: pa.Table, metadata: Mapping[bytes, str] | None = None) -> bytes:
    """Return the content of a Parquet file with the schema version, and `metadata`, in its metadata."""
    table = table.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION), **(metadata or {})})
    # For one row, dictionaries and statistics of every column would be most of the file and of the time to open it
    many = table.num_rows > 1
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd" if many else "none", use_dictionary=many, write_statistics=many)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_files(
    storage: Storage, names: Sequence[str], columns: Sequence[str] | None = None, on_damaged: OnDamaged | None = None
) -> list[pa.Table]:
    """Return the tables in files, in the order of the names; a file that was removed meanwhile is skipped.

    Args:
        storage: the folder of the files.
        names: file names, relative to the folder.
        columns: the columns to read, if a file has them; None means all.
        on_damaged: called with the fault of each unreadable file, which is then skipped; None means to raise.

    Raises:
        InputError: files are damaged or of an unreadable version; one fault per file.
    """
    threads = (os.cpu_count() or 1) if storage.is_local else REMOTE_REQUESTS
    # Either the columns of one file are decoded in parallel, or several files
    decode_in_parallel = len(names) == 1

    def read(name: str) -> pa.Table | Fault | None:
        where = storage.path(name)
        try:
            content = pa.BufferReader(storage.read(name))
            table = pq.ParquetFile(content).read(columns=columns, use_threads=decode_in_parallel)
        except FileNotFoundError:
            return None
        # ValueError: raised by the class of an extension type
        except (pa.ArrowException, OSError, ValueError) as error:
            return Fault(where=where, rule=f"damaged Parquet file ({error})")
        if (fault := find_column_fault(table.schema, where=where)) is not None:
            return fault
        version = (table.schema.metadata or {}).get(VERSION_KEY, b"unknown").decode()
        if version not in READABLE_VERSIONS:
            known = ", ".join(READABLE_VERSIONS)
            return Fault(where=where, rule=f"has schema version {version}, but this dirtune reads {known}")
        return table

    with ThreadPoolExecutor(min(threads, len(names) or 1)) as pool:
        results = list(pool.map(read, names))
    _report_faults([result for result in results if isinstance(result, Fault)], on_damaged)
    return [result for result in results if isinstance(result, pa.Table)]


def select_readable(storage: Storage, names: Sequence[str], on_damaged: OnDamaged) -> list[str]:
    """Return the files whose footer can be read; call `on_damaged` with the faults of the others."""

    def find_fault(name: str) -> Fault | None:
        try:
            with storage.filesystem.open_input_file(storage.path(name)) as file:
                pq.read_metadata(file)
        except (pa.ArrowException, OSError) as error:
            return Fault(where=storage.path(name), rule=f"damaged Parquet file ({error})")
        return None

    faults = {name: find_fault(name) for name in names}
    _report_faults([fault for fault in faults.values() if fault is not None], on_damaged)
    return [name for name, fault in faults.items() if fault is None]


def _report_faults(faults: Sequence[Fault], on_damaged: OnDamaged | None) -> None:
    if on_damaged is None:
        if faults:
            raise InputError(faults)
        return
    for fault in faults:
        on_damaged(fault)
