"""One Parquet file of results: how it is encoded, and how it is read with a damaged file named.

Files are decoded from bytes by `ParquetFile`, not through a pyarrow dataset: a dataset needs a second opening of every
file to unify schemas, cannot say which of 10,000 files is damaged, and importing it costs as much as all the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import fault_of_columns
from dirtune.io.storage import Storage
from dirtune.results.records.schema import READABLE_VERSIONS, SCHEMA_VERSION

VERSION_KEY = b"dirtune.schema_version"
OnDamaged = Callable[[Fault], None]
# In flight at once; on a disk, more threads than cores only get in each other's way
REMOTE_REQUESTS = 32


def encoded(table: pa.Table, metadata: Mapping[bytes, str] | None = None) -> bytes:
    """The content of a Parquet file that says which version of the schema it follows."""
    table = table.replace_schema_metadata({VERSION_KEY: str(SCHEMA_VERSION), **(metadata or {})})
    # Of one row, dictionaries and statistics of every column would be most of the file and of the time to open it.
    many = table.num_rows > 1
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd" if many else "none", use_dictionary=many, write_statistics=many)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def read_files(
    storage: Storage, names: Sequence[str], columns: Sequence[str] | None = None, on_damaged: OnDamaged | None = None
) -> list[pa.Table]:
    """The tables in the named files, in that order; a file that has gone meanwhile is left out.

    Args:
        storage: where the files are.
        names: relative to it.
        columns: only these, as far as a file has them; none: all.
        on_damaged: called with the fault of each file that cannot be read, which is then left out; none: that is an error.

    Raises:
        InputError: with one fault per file that is damaged or of a newer version.
    """
    threads = (os.cpu_count() or 1) if storage.is_local else REMOTE_REQUESTS
    # Its columns are decoded side by side; of many files, the files are
    alone = len(names) == 1
    with ThreadPoolExecutor(min(threads, len(names) or 1)) as pool:
        read = list(pool.map(lambda name: _read(storage, name, columns, alone=alone), names))
    _report([found for found in read if isinstance(found, Fault)], on_damaged)
    return [found for found in read if isinstance(found, pa.Table)]


def whole_files(storage: Storage, names: Sequence[str], on_damaged: OnDamaged) -> list[str]:
    """Those of the named files whose end, with the index, can be read; `on_damaged` is called with the fault of the others."""
    faults = {name: _fault_at_end(storage, name) for name in names}
    _report([fault for fault in faults.values() if fault is not None], on_damaged)
    return [name for name, fault in faults.items() if fault is None]


def _report(faults: Sequence[Fault], on_damaged: OnDamaged | None) -> None:
    if on_damaged is None:
        if faults:
            raise InputError(faults)
        return
    for fault in faults:
        on_damaged(fault)


def _fault_at_end(storage: Storage, name: str) -> Fault | None:
    try:
        with storage.filesystem.open_input_file(storage.path(name)) as file:
            pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        return Fault(where=storage.path(name), rule=f"damaged Parquet file ({error})")
    return None


def _read(storage: Storage, name: str, columns: Sequence[str] | None, *, alone: bool) -> pa.Table | Fault | None:
    try:
        content = pa.BufferReader(storage.read(name))
        table = pq.ParquetFile(content).read(columns=columns, use_threads=alone)
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError, ValueError) as error:  # the last: what an extension type says of itself
        return Fault(where=storage.path(name), rule=f"damaged Parquet file ({error})")
    if (fault := fault_of_columns(table.schema, where=storage.path(name))) is not None:
        return fault
    version = (table.schema.metadata or {}).get(VERSION_KEY, b"1").decode()
    if version not in READABLE_VERSIONS:
        known = ", ".join(READABLE_VERSIONS)
        rule = f"has schema version {version}, but this dirtune reads {known}"
        return Fault(where=storage.path(name), rule=rule)
    return table
