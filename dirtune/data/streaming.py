"""Inputs that are not on the device: they lie in chunks, in memory or on disk, and come batch by batch.

A chunk is a block of Ray's object store or a row group of a Parquet file. Chunks in memory are not copied: pixels are
views of the object store, so that all workers of a node share one copy, and encoded images are decoded when a batch
needs them. Chunks on disk are read when the first batch needs them, a window of them ahead, and forgotten after the last
one. Decoding runs in threads ahead of the training (Pillow lets go of the interpreter while it decodes).

Parquet is read here by pyarrow and not by Ray Data, whose tasks would wait for a CPU that the trials hold.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from dirtune.batch import Inputs
from dirtune.data.cache import WINDOW_GROUPS, DecodeCount, ResidentSplit, Rows, Split
from dirtune.data.columns import decoded_size, to_numpy
from dirtune.data.images import decode
from dirtune.data.views import make_transform
from dirtune.errors import Fault, InputError
from dirtune.io.parquet_safety import check_columns
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, Manifest
from dirtune.reweighting.density import label_bins

Chunk = dict[str, Any]
"""Columns by input: an array of numbers, first dimension = rows, or the Arrow array of encoded images."""

Item = TypeVar("Item")
Result = TypeVar("Result")

# While a split is taken onto the device
_ROWS_AT_ONCE = 256


class Chunks(Protocol):
    """Where the inputs of a split lie."""

    def held(self, needed: Sequence[NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        """For each step of a pass the chunks that it needs, by number; `needed` names them."""


@dataclass(frozen=True)
class InMemory:
    """Chunks that stay in memory."""

    chunks: Mapping[int, Chunk]

    def held(self, needed: Sequence[NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        return (self.chunks for _ in needed)

    def all(self) -> InMemory:
        return self


@dataclass(frozen=True)
class RowGroup:
    """A chunk on disk."""

    file: str
    number: int
    """In its file."""
    metadata: pq.FileMetaData
    """So that the file's footer is read once."""


@dataclass(frozen=True)
class OnDisk:
    """Chunks that are read in every pass, each once; as many of them are in memory as the pass needs at a time."""

    storage: Storage
    groups: Sequence[RowGroup]
    specs: Mapping[str, InputSpec]

    def held(self, needed: Sequence[NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        # A key keeps the place of its first step and gets the number of its last one.
        last = {chunk: step for step, chunks in enumerate(needed) for chunk in chunks.tolist()}
        arriving = ahead(self._load, last, threads=1, depth=WINDOW_GROUPS)
        held: dict[int, Chunk] = {}
        for step, chunks in enumerate(needed):
            for chunk in chunks.tolist():
                if chunk not in held:
                    held[chunk] = next(arriving)
            yield dict(held)
            held = {chunk: columns for chunk, columns in held.items() if last[chunk] > step}

    def all(self) -> InMemory:
        """All of them, in memory from now on."""
        return InMemory({chunk: self._load(chunk) for chunk in range(len(self.groups))})

    def _load(self, chunk: int) -> Chunk:
        group = self.groups[chunk]
        with opened(self.storage, group.file, group.metadata) as parquet:
            table = parquet.read_row_group(group.number, columns=list(self.specs))
        (batch,) = table.combine_chunks().to_batches()
        return as_chunk(batch, self.specs)


@dataclass(frozen=True, kw_only=True)
class StreamedSplit(Split):
    """A split whose inputs lie in chunks."""

    specs: Mapping[str, InputSpec]
    chunks: Chunks
    places: NDArray[np.int64]
    """Of each row: its chunk and its position there; shape (rows, 2)."""
    device: torch.device
    threads: int
    decoded: DecodeCount

    @property
    def decoded_bytes(self) -> int:
        """What the inputs would take as tensors."""
        return len(self) * sum(decoded_size(spec) for spec in self.specs.values())

    @property
    def is_shared(self) -> bool:
        """Whether the inputs are usable as they lie: decoded, and in the memory of the device."""
        in_memory = isinstance(self.chunks, InMemory)
        return self.device.type == "cpu" and in_memory and not self._encoded_inputs

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        places = [self.places[rows.numpy()] for rows in batches]
        held = self.chunks.held([np.unique(of_batch[:, 0]) for of_batch in places])
        steps = zip(places, held, strict=True)
        # What is only cut out of memory is not worth a thread.
        threads = 0 if self.is_shared else self.threads
        for of_batch, inputs in ahead(self._gathered, steps, threads=threads, depth=threads):
            self.decoded.images += len(of_batch) * self._encoded_inputs
            yield {name: torch.from_numpy(value).to(self.device) for name, value in inputs.items()}

    @property
    def _encoded_inputs(self) -> int:
        """Inputs that must be decoded."""
        if not isinstance(self.chunks, InMemory):
            return sum(spec.encoding != "raw" for spec in self.specs.values())
        columns = next(iter(self.chunks.chunks.values()), {}).values()
        return sum(isinstance(column, pa.Array) for column in columns)

    def _gathered(
        self, step: tuple[NDArray[np.int64], Mapping[int, Chunk]]
    ) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        places, chunks = step
        return places, {
            name: _column([chunks[chunk][name][at] for chunk, at in places.tolist()], spec, name)
            for name, spec in self.specs.items()
        }


def _column(rows: list[Any], spec: InputSpec, name: str) -> NDArray[Any]:
    """One input of some rows, as one array."""
    if rows and isinstance(rows[0], pa.Scalar):
        return decode([row.as_buffer() for row in rows], spec, name=name)
    column = np.empty((len(rows), *spec.shape), spec.element)
    for at, row in enumerate(rows):
        column[at] = row
    return column


def ahead(work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, depth: int) -> Iterator[Result]:
    """`map` with the results in order, `depth` of them being made before they are asked for; no threads: plain `map`."""
    if not threads:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ahead") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # also when nobody asks any more
            for future in waiting:
                future.cancel()


def as_chunk(batch: pa.RecordBatch, specs: Mapping[str, InputSpec]) -> Chunk:
    """The inputs of Arrow rows without a copy."""
    names = [name for name in specs if not pa.types.is_large_binary(batch.column(name).type)]
    encoded = {name: batch.column(name) for name in specs if name not in names}
    return {**to_numpy(batch.select(names), specs), **encoded}


@contextmanager
def opened(storage: Storage, file: str, metadata: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """A shard, open for reading.

    Raises:
        InputError: it is missing or damaged, then or while it is read.
    """
    try:
        with storage.filesystem.open_input_file(file) as stream:
            parquet = pq.ParquetFile(stream, metadata=metadata)
            check_columns(parquet.schema_arrow, where=file)
            yield parquet
    except (OSError, pa.ArrowException) as error:
        rule = f"shard cannot be read ({error}); ingest the data set again"
        raise InputError(Fault(where=file, rule=rule)) from None


def streamed(
    manifest: Manifest,
    chunks: Chunks,
    ids: NDArray[np.object_],
    labels: NDArray[np.float64],
    places: NDArray[np.int64],
    *,
    device: torch.device,
    threads: int,
    decoded: DecodeCount,
) -> StreamedSplit:
    """A split from its rows in any order: ids, labels, and the place of each, as in `StreamedSplit.places`."""
    order = np.argsort(ids)
    exact, places = labels[order].astype(np.float64), places[order]
    return StreamedSplit(
        sample_ids=tuple(ids[order].tolist()),
        labels=torch.from_numpy(exact).to(device, torch.float32),
        exact_labels=exact,
        label_bins=torch.from_numpy(label_bins(exact, manifest.label)).to(device),
        groups=_rows_by_chunk(places) if isinstance(chunks, OnDisk) else None,
        transform=make_transform(manifest.label),
        specs=manifest.inputs,
        chunks=chunks,
        places=places,
        device=device,
        threads=threads,
        decoded=decoded,
    )


def _rows_by_chunk(places: NDArray[np.int64]) -> tuple[Rows, ...]:
    as_stored = np.lexsort((places[:, 1], places[:, 0]))
    starts = np.flatnonzero(np.diff(places[as_stored, 0])) + 1
    return tuple(torch.from_numpy(rows) for rows in np.split(as_stored, starts))


def taken_in(split: StreamedSplit) -> ResidentSplit:
    """The split with its inputs as tensors on the device, each image decoded straight to its place."""
    columns: Inputs = {}
    batches = split.reading_order.split(_ROWS_AT_ONCE)
    for rows, inputs in zip(batches, split.read(batches), strict=True):
        for name, values in inputs.items():
            if name not in columns:
                columns[name] = values.new_empty((len(split), *values.shape[1:]))
            columns[name].index_copy_(0, rows.to(split.device), values)
    known = {each.name: getattr(split, each.name) for each in fields(Split)}
    return ResidentSplit(inputs=columns, **known)
