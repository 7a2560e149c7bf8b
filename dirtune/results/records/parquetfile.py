"""Parquet files of results: encoding, and reading with the damaged files named.

Pages have checksums, and the footer has some of the columns, of itself and of the whole file, so that a changed byte is a
damaged file and no other number.

Files are decoded from bytes by `ParquetFile`, not through a pyarrow dataset: a dataset opens every file twice to unify the
schemas, cannot name the damaged one of 10,000 files, and takes as long to import as everything else together.
"""

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import find_column_fault
from dirtune.io.storage import Storage
from dirtune.results.records.schema import READABLE_VERSIONS, SCHEMA_VERSION, SCHEMAS

VERSION_KEY = b"dirtune.schema_version"
COLUMNS_KEY = b"dirtune.columns"
CHECKSUM_KEY = "dirtune.checksum"
_MARK = b"sha256 of file and footer: "
_NO_DIGEST = b"0" * 64
COMPACTED = "compacted"
"""Folder of the files that hold a table of many trials."""
OnDamaged = Callable[[Fault], None]
"""Callback for each damaged file, which is then skipped."""
# Concurrent requests to an object store; on a local disk, more threads than cores only slow each other down
REMOTE_REQUESTS = 32


def encode_table(table: pa.Table, metadata: Mapping[bytes, str] | None = None) -> bytes:
    """Return the content of a Parquet file with the schema version, and `metadata`, in its metadata."""
    own = {VERSION_KEY: str(SCHEMA_VERSION), COLUMNS_KEY: hash_columns(table.schema, table.num_rows)}
    table = table.replace_schema_metadata({**own, **(metadata or {})})
    # For one row, dictionaries and statistics of every column would be most of the file and of the time to open it
    many = table.num_rows > 1
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd" if many else "none",
        use_dictionary=many,
        write_statistics=many,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
        # Not in the schema's metadata, which the file has twice
        writer.add_key_value_metadata({CHECKSUM_KEY: (_MARK + 2 * _NO_DIGEST).decode()})
    content = sink.getvalue()
    at = content.rindex(_MARK) + len(_MARK)
    footer = content[-_get_footer_size(content[-8:]) :]
    digests = hashlib.sha256(content).hexdigest() + hashlib.sha256(footer).hexdigest()
    return content[:at] + digests.encode() + content[at + len(digests) :]


def _find_checksum_fault(content: bytes, *, is_footer: bool = False) -> str | None:
    """Return the fault of a file, or of its footer alone, that was changed after it was written, else None.

    The checksums are in the footer, and are those of the bytes with zeros in their place.
    """
    at, size = content.rfind(_MARK) + len(_MARK), len(_NO_DIGEST)
    # Files of earlier releases have none
    if at < len(_MARK):
        return None
    digests = content[at : at + 2 * size]
    found = hashlib.sha256(content[:at])
    found.update(2 * _NO_DIGEST)
    found.update(memoryview(content)[at + 2 * size :])
    expected = digests[size:] if is_footer else digests[:size]
    return None if found.hexdigest().encode() == expected else "its bytes are not those that were written"


def _get_footer_size(tail: bytes) -> int:
    """Return the bytes of the footer of a Parquet file, with its length and a marker, from the last 8 bytes of the file."""
    return int.from_bytes(tail[:4], "little") + 8


def hash_columns(schema: pa.Schema, rows: int) -> str:
    """Return a checksum of the names and types of the columns and of the number of rows, which pages do not cover."""
    return _hash_columns(schema.remove_metadata(), rows)


@lru_cache(maxsize=256)
def _hash_columns(schema: pa.Schema, rows: int) -> str:
    columns = "\n".join(f"{field.name}: {_format_type(field.type)}" for field in schema)
    return hashlib.sha256(f"{rows}\n{columns}".encode()).hexdigest()[:16]


def _format_type(kind: pa.DataType) -> str:
    # Parquet may rename the elements of a list, which are part of the name of its type.
    is_any_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return f"list<{_format_type(kind.value_type)}>" if is_any_list else str(kind)


def _verify_footer(file: pq.ParquetFile) -> None:
    """Raise ValueError if the columns of a file are not those that were written."""
    schema = file.schema_arrow
    written = (schema.metadata or {}).get(COLUMNS_KEY)
    # Files of earlier releases have none.
    if written is not None and written.decode(errors="replace") != hash_columns(schema, file.metadata.num_rows):
        raise ValueError("its columns are not those that were written")


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
        OSError: the storage fails; never skipped, because the rows may be there.
    """
    threads = (os.cpu_count() or 1) if storage.is_local else REMOTE_REQUESTS
    # Either the columns of one file are decoded in parallel, or several files
    decode_in_parallel = len(names) == 1

    def read(name: str) -> pa.Table | Fault | None:
        where = storage.path(name)
        # Outside of the guard below: a storage that fails is an outage, which says nothing about the file
        try:
            content = storage.read(name)
        except FileNotFoundError:
            return None
        if (changed := _find_checksum_fault(content)) is not None:
            return Fault(where=where, rule=f"damaged Parquet file ({changed})")
        try:
            file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True)
            # Before any value is read, because those of an extension type may be made by code
            if (fault := find_column_fault(file.schema_arrow, where=where)) is not None:
                return fault
            _verify_footer(file)
            table = file.read(columns=columns, use_threads=decode_in_parallel)
        # ValueError: raised by the class of an extension type
        except (pa.ArrowException, OSError, ValueError) as error:
            return Fault(where=where, rule=f"damaged Parquet file ({error})")
        version = (table.schema.metadata or {}).get(VERSION_KEY, b"unknown").decode()
        if version not in READABLE_VERSIONS:
            known = ", ".join(READABLE_VERSIONS)
            return Fault(where=where, rule=f"has schema version {version}, but this dirtune reads {known}")
        return _find_foreign_rows(table, name, where) or table

    with ThreadPoolExecutor(min(threads, len(names) or 1)) as pool:
        results = list(pool.map(read, names))
    _report_faults([result for result in results if isinstance(result, Fault)], on_damaged)
    return [result for result in results if isinstance(result, pa.Table)]


def _find_foreign_rows(table: pa.Table, name: str, where: str) -> Fault | None:
    """Return the fault of a file with another table's columns or another trial's rows, as of a file that was renamed."""
    path = PurePosixPath(name)
    is_compacted = path.parent.name == COMPACTED
    kind = path.stem if is_compacted else path.parent.name
    if kind not in SCHEMAS:
        return None
    if wrong := _find_foreign_columns(table.schema.remove_metadata(), kind):
        return Fault(where=where, rule=f"has not the columns of the table {kind!r}", got=list(wrong))
    if not is_compacted and "trial_id" in table.column_names:
        trials = set(table["trial_id"].unique().to_pylist())
        if trials - {path.stem}:
            return Fault(where=where, rule="has rows of another trial", got=sorted(map(str, trials - {path.stem}))[:3])
    return None


# Thousands of files have one schema.
@lru_cache(maxsize=256)
def _find_foreign_columns(schema: pa.Schema, kind: str) -> tuple[str, ...]:
    expected = SCHEMAS[kind]
    own, others = set(expected.names), {name for other in SCHEMAS.values() for name in other.names}
    wrong = [
        each.name
        for each in schema
        if each.name in own and not _is_convertible(each.type, expected.field(each.name).type)
    ]
    # Settings, and columns of other releases, are columns of trials; those of another table are not.
    wrong += [name for name in schema.names if name not in own and (kind != "trials" or name in others)]
    return tuple(wrong)


def _is_convertible(found: pa.DataType, expected: pa.DataType) -> bool:
    """Return True if a column has the type of the schema, or numbers of another size."""
    numbers = [pa.types.is_integer(each) or pa.types.is_floating(each) for each in (found, expected)]
    return found == expected or pa.types.is_null(found) or all(numbers)


def select_readable(storage: Storage, names: Sequence[str], on_damaged: OnDamaged | None) -> list[str]:
    """Return the files whose footer is intact; call `on_damaged` with the faults of the others, or raise them if it is None."""

    def find_fault(name: str) -> Fault | None:
        # Outside of the guard: a storage that fails is an outage, and no damage
        # A local file is read as a whole; an object store has checksums of its own
        footer = storage.read(name) if storage.is_local else _read_footer(storage, name)
        if (changed := _find_checksum_fault(footer, is_footer=not storage.is_local)) is not None:
            return Fault(where=storage.path(name), rule=f"damaged Parquet file ({changed})")
        try:
            _verify_footer(pq.ParquetFile(pa.BufferReader(footer)))
        except (pa.ArrowException, OSError, ValueError) as error:
            return Fault(where=storage.path(name), rule=f"damaged Parquet file ({error})")
        return None

    faults = {name: find_fault(name) for name in names}
    _report_faults([fault for fault in faults.values() if fault is not None], on_damaged)
    return [name for name, fault in faults.items() if fault is None]


def _read_footer(storage: Storage, name: str) -> bytes:
    """Return the end of a Parquet file from its index on, or the whole file if it has no such end."""
    with storage.filesystem.open_input_file(storage.path(name)) as file:
        size = file.size()
        tail: bytes = file.read_at(min(size, 8), max(0, size - 8))
        length = min(size, _get_footer_size(tail))
        footer: bytes = file.read_at(length, size - length)
        return footer


def _report_faults(faults: Sequence[Fault], on_damaged: OnDamaged | None) -> None:
    if on_damaged is None:
        if faults:
            raise InputError(faults)
        return
    for fault in faults:
        on_damaged(fault)
