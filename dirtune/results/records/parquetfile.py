"""Parquet files of results: encoding, and reading with the damaged files named.

Pages have checksums, and the footer has some of the columns, of itself and of the whole file, so that a changed byte is a
damaged file and no other number.

A small file, such as that of one trial, has its rows a second time in its footer, as an Arrow message below the same
checksum: pyarrow decodes 80 columns of one row in 3 ms from the pages and in 0.1 ms from the message. Other readers see
nothing of it.

Files are decoded from bytes by `ParquetFile`, not through a pyarrow dataset: a dataset opens every file twice to unify the
schemas, cannot name the damaged one of 10,000 files, and takes as long to import as everything else together.
"""

import base64
import hashlib
import io
import os
import zlib
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import find_column_fault
from dirtune.io.storage import Storage
from dirtune.results.records.schema import READABLE_VERSIONS, REQUIRED_COLUMNS, SCHEMA_VERSION, SCHEMAS

VERSION_KEY = b"dirtune.schema_version"
COLUMNS_KEY = b"dirtune.columns"
CHECKSUM_KEY = "dirtune.checksum"
_MARK = b"sha256 of file and footer: "
_NO_DIGEST = b"0" * 64
_ROWS_MARK = b"rows: "
_SAMPLED_ROWS = 1_000
"""Rows from which the encoding of a column follows."""
_MOST_REPEATED_BYTES = 65_536
"""Size of a file's rows above which the footer does not repeat them."""
COMPACTED = "compacted"
"""Folder of the files that hold a table of many trials."""
OnDamaged = Callable[[Fault], None]
"""Callback for each damaged file, which is then skipped."""
_FILES_AT_ONCE = 50
"""Local files that a thread reads without a pause."""
# Concurrent requests to an object store; on a local disk, more threads than cores only slow each other down
REMOTE_REQUESTS = 32


def encode_table(table: pa.Table, metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the content of a Parquet file with the schema version, and `metadata`, in its metadata."""
    own = {VERSION_KEY: str(SCHEMA_VERSION), COLUMNS_KEY: hash_columns(table.schema, table.num_rows)}
    table = table.replace_schema_metadata(own)
    # For one row, dictionaries and statistics of every column would be most of the file and of the time to open it
    many = table.num_rows > 1
    numbers = _list_varied_numbers(table)
    sink = io.BytesIO()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression={name: "none" if name in numbers or not many else "zstd" for name in table.column_names},
        use_dictionary=[name for name in table.column_names if many and name not in numbers],
        write_statistics=many,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table)
        # Not in the schema's metadata, which the file has twice
        writer.add_key_value_metadata(
            {**(metadata or {}), CHECKSUM_KEY: (_encode_rows(table) + _MARK + 2 * _NO_DIGEST).decode()}
        )
    content = sink.getvalue()
    at = content.rindex(_MARK) + len(_MARK)
    footer = content[-_get_footer_size(content[-8:]) :]
    digests = hashlib.sha256(content).hexdigest() + hashlib.sha256(footer).hexdigest()
    return content[:at] + digests.encode() + content[at + len(digests) :]


def _list_varied_numbers(table: pa.Table) -> set[str]:
    """Return the columns of numbers that hardly repeat: larger as a dictionary, no smaller if compressed, slower in both forms."""
    first = table.slice(0, _SAMPLED_ROWS)
    return {
        field.name
        for field in (table.schema if table.num_rows >= _SAMPLED_ROWS else ())
        if pa.types.is_floating(field.type) and pc.count_distinct(first[field.name]).as_py() > _SAMPLED_ROWS // 2
    }


def _encode_rows(table: pa.Table) -> bytes:
    """Return the rows of a small table as text for the footer; empty for a large one."""
    if not 0 < table.nbytes <= _MOST_REPEATED_BYTES:
        return b""
    (batch,) = table.combine_chunks().to_batches()
    schema, rows = (base64.b64encode(zlib.compress(each.serialize(), level=1)) for each in (table.schema, batch))
    return _ROWS_MARK + schema + b" " + rows + b" "


class SchemaFault(Fault):
    """Fault of the version or the columns of a file, which is intact."""


@dataclass(frozen=True)
class _RowsSchema:
    """Columns of rows that a footer repeats; thousands of files have one."""

    schema: pa.Schema
    extension_fault: Fault | None
    positions: Mapping[str, int]


def _decode_rows(content: bytes) -> tuple[pa.RecordBatch, bytes] | None:
    """Return the rows that the footer of a file repeats, and the text of their schema, or None if it has none.

    Raises:
        ValueError, pyarrow.ArrowException: they are no rows, which the checksum of an intact file excludes.
    """
    end = content.rfind(_MARK)
    start = content.rfind(_ROWS_MARK, 0, max(end, 0))
    parts = content[start + len(_ROWS_MARK) : end].split(b" ") if start >= 0 else []
    # A text that merely looks like the marker is not followed by two texts without a blank
    if len(parts) != 3 or parts[2]:
        return None
    return pa.ipc.read_record_batch(pa.py_buffer(_inflate(parts[1])), _decode_schema(parts[0]).schema), parts[0]


@lru_cache(maxsize=256)
def _decode_schema(text: bytes) -> _RowsSchema:
    schema = pa.ipc.read_schema(pa.py_buffer(_inflate(text)))
    return _RowsSchema(
        schema=schema,
        extension_fault=find_column_fault(schema, where=""),
        positions={name: position for position, name in enumerate(schema.names)},
    )


@lru_cache(maxsize=256)
def _find_fault_of_rows(text: bytes, kind: str | None) -> str | None:
    return _find_schema_fault(_decode_schema(text).schema, kind)


def _inflate(text: bytes) -> bytes:
    try:
        return zlib.decompress(base64.b64decode(text, validate=True))
    except zlib.error as error:
        raise ValueError(str(error)) from None


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
    threads = min((os.cpu_count() or 1) if storage.is_local else REMOTE_REQUESTS, len(names) or 1)
    # Either the columns of one file are decoded in parallel, or several files
    decode_in_parallel = len(names) == 1

    def read(some: Sequence[str]) -> list[pa.Table | Fault | None]:
        return [_read_file(storage, name, columns, use_threads=decode_in_parallel) for name in some]

    # A request to an object store takes long, a local file less than the step from one thread to another
    at_once = max(1, min(_FILES_AT_ONCE, len(names) // threads)) if storage.is_local else 1
    parts = [names[start : start + at_once] for start in range(0, len(names), at_once)]
    with ThreadPoolExecutor(threads) as pool:
        results = [result for part in pool.map(read, parts) for result in part]
    _report_faults([result for result in results if isinstance(result, Fault)], on_damaged)
    return [result for result in results if isinstance(result, pa.Table)]


def _read_file(
    storage: Storage, name: str, columns: Sequence[str] | None, *, use_threads: bool
) -> pa.Table | Fault | None:
    """Return the table in a file, its fault, or None if it does not exist."""
    # Outside of the guard below: a storage that fails is an outage, which says nothing about the file
    try:
        content = storage.read(name)
    except FileNotFoundError:
        return None
    where = storage.path(name)
    if (changed := _find_checksum_fault(content)) is not None:
        return _make_damage(changed, where)
    try:
        if (rows := _decode_rows(content)) is not None:
            return _check_rows(*rows, name, where, columns)
        file = _open_parquet(content, name, where)
        if isinstance(file, Fault):
            return file
        table = file.read(columns=columns, use_threads=use_threads)
        table = _add_missing_columns(table, set(table.column_names), name, columns)
    # ValueError: raised by the class of an extension type
    except (pa.ArrowException, OSError, ValueError) as error:
        return _make_damage(error, where)
    return _find_foreign_rows(table, name, where) or table


def open_file(content: bytes, name: str, where: str, *, encoded: Sequence[str] = ()) -> pq.ParquetFile | Fault:
    """Return a file whose columns can be read one by one, or its fault; damage to a page may be found only then.

    Args:
        content: of the file.
        name: as for `read_files`.
        where: name of the file in faults.
        encoded: columns of text that are read as dictionaries.
    """
    if (changed := _find_checksum_fault(content)) is not None:
        return _make_damage(changed, where)
    try:
        file = _open_parquet(content, name, where)
        if isinstance(file, Fault) or not encoded:
            return file
        return pq.ParquetFile(
            pa.BufferReader(content),
            read_dictionary=list(encoded),
            page_checksum_verification=_needs_page_checksums(content),
        )
    except (pa.ArrowException, OSError, ValueError) as error:
        return _make_damage(error, where)


def _make_damage(reason: object, where: str) -> Fault:
    return Fault(where=where, rule=f"damaged Parquet file ({reason})")


def _open_parquet(content: bytes, name: str, where: str) -> pq.ParquetFile | Fault:
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=_needs_page_checksums(content))
    schema = file.schema_arrow
    # Before any value is read, because those of an extension type may be made by code
    if (fault := find_column_fault(schema, where=where)) is not None:
        return fault
    _verify_footer(file)
    if (rule := _find_schema_fault(schema, _get_kind(name))) is not None:
        return SchemaFault(where=where, rule=rule)
    return file


def _needs_page_checksums(content: bytes) -> bool:
    """Return False for a file with a checksum of the whole, which is that of its pages, too."""
    return _MARK not in content[-_get_footer_size(content[-8:]) :]


def _get_kind(name: str) -> str | None:
    """Return the table whose rows a file of this name has; None if it is the file of no table."""
    folder, stem = _split_name(name)
    kind = stem if folder == COMPACTED else folder
    return kind if kind in SCHEMAS else None


def _split_name(name: str) -> tuple[str, str]:
    """Return the name of the folder of a file, and its own without the suffix; without `pathlib`, which takes ten times as long."""
    folder, _, file = name.rpartition("/")
    return folder.rpartition("/")[2], file.rpartition(".")[0] or file


def _get_version(schema: pa.Schema) -> str:
    version: str = (schema.metadata or {}).get(VERSION_KEY, b"unknown").decode()
    return version


def _find_schema_fault(schema: pa.Schema, kind: str | None) -> str | None:
    """Return why a file cannot be read as one of a table, by its version and columns, or None.

    Args:
        schema: of the file, with its metadata.
        kind: the table; None for the file of no table.
    """
    version = _get_version(schema)
    if version not in READABLE_VERSIONS:
        is_newer = version.isdecimal() and int(version) > SCHEMA_VERSION
        advice = "; it was written by a newer dirtune" if is_newer else ""
        return f"has schema version {version}, but this dirtune reads {', '.join(READABLE_VERSIONS)}{advice}"
    if kind is None:
        return None
    if wrong := _find_foreign_columns(schema.remove_metadata(), kind):
        return f"has not the columns of the table {kind!r}, got {list(wrong)}"
    if missing := [name for name in REQUIRED_COLUMNS[kind] if name not in schema.names]:
        return f"lacks columns of the table {kind!r}: {', '.join(missing)}"
    return None


def _add_missing_columns(
    table: pa.Table, present: Container[str], name: str, columns: Sequence[str] | None
) -> pa.Table:
    """Return the rows of a file with nulls in the columns of its table that it lacks, as files of earlier releases do.

    Args:
        table: the rows.
        present: names of the columns of the file, of which a table would make a list for every lookup.
        name: of the file.
        columns: those to read; None means all.
    """
    for field in _list_expected_columns(_get_kind(name), None if columns is None else tuple(columns)):
        if field.name not in present:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table


@lru_cache(maxsize=256)
def _list_expected_columns(kind: str | None, columns: tuple[str, ...] | None) -> list[pa.Field]:
    expected = SCHEMAS[kind] if kind else pa.schema([])
    return [field for field in expected if columns is None or field.name in columns]


def _check_rows(
    batch: pa.RecordBatch, schema: bytes, name: str, where: str, columns: Sequence[str] | None
) -> pa.Table | Fault:
    """Return the columns of rows that a footer repeats, or the fault of their file."""
    known = _decode_schema(schema)
    if known.extension_fault is not None:
        return replace(known.extension_fault, where=where)
    kind = _get_kind(name)
    if (rule := _find_fault_of_rows(schema, kind)) is not None:
        return SchemaFault(where=where, rule=rule)
    if kind and "trial_id" in known.positions:
        trials = batch.column(known.positions["trial_id"])
        if (fault := _find_foreign_trials(trials, name, where)) is not None:
            return fault
    if columns is not None:
        batch = batch.select(
            [known.positions[column] for column in dict.fromkeys(columns) if column in known.positions]
        )
    return _add_missing_columns(pa.Table.from_batches([batch]), known.positions, name, columns)


def _find_foreign_rows(table: pa.Table, name: str, where: str) -> Fault | None:
    """Return the fault of a file of one trial with rows of another, as of a file that was renamed."""
    if _get_kind(name) and "trial_id" in table.column_names:
        return _find_foreign_trials(table["trial_id"], name, where)
    return None


def _find_foreign_trials(trial_ids: pa.Array | pa.ChunkedArray, name: str, where: str) -> Fault | None:
    folder, stem = _split_name(name)
    if folder == COMPACTED:
        return None
    foreign = set(trial_ids.unique().to_pylist()) - {stem}
    if not foreign:
        return None
    return Fault(where=where, rule="has rows of another trial", got=sorted(map(str, foreign))[:3])


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
            file = pq.ParquetFile(pa.BufferReader(footer))
            _verify_footer(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            return Fault(where=storage.path(name), rule=f"damaged Parquet file ({error})")
        rule = _find_schema_fault(file.schema_arrow, _get_kind(name))
        return None if rule is None else SchemaFault(where=storage.path(name), rule=rule)

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
        raise_faults(faults)
        return
    for fault in faults:
        on_damaged(fault)


def raise_faults(faults: Sequence[Fault]) -> None:
    """Raise the faults of files, if there are any; one for all files that have the same version or columns, as of another release.

    Raises:
        InputError: with a fault for each damaged file.
    """
    by_rule: dict[str, list[Fault]] = {}
    for fault in faults:
        by_rule.setdefault(fault.rule if isinstance(fault, SchemaFault) else str(fault), []).append(fault)
    merged = [
        replace(first, rule=f"{first.rule}; so do {len(others):,} other files") if others else first
        for first, *others in by_rule.values()
    ]
    if merged:
        raise InputError(merged)
