"""Inputs that are streamed to the device batch by batch, from chunks in memory or on disk.

A chunk is a block of Ray's object store or a row group of a Parquet file. Chunks in memory are not copied: pixels are
views of the object store, so that all workers of a node share one copy, and encoded images are decoded when a batch
needs them. Chunks on disk are read when the first batch needs them, prefetched by one window, and released after the last
batch. Threads decode_images ahead of the training (Pillow releases the interpreter lock while it decodes).

Parquet is read here by pyarrow and not by Ray Data, whose tasks would wait for a CPU that the trials occupy.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from dirtune import transfer
from dirtune.batch import Inputs
from dirtune.data import cache, images, store, views
from dirtune.data.columns import get_decoded_size, to_numpy
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, Manifest
from dirtune.reweighting.density import label_bins

Chunk = dict[str, Any]
"""Columns by input: an array of numbers, first dimension = rows, or the Arrow array of encoded images."""

Item = TypeVar("Item")
Result = TypeVar("Result")

# Rows that are read at a time while a split is loaded onto the device.
_LOAD_ROWS = 256
_MIN_DEPTH = 2
"""Batches that are read ahead of the training, at least: one is waited for while the next is decoded."""


class Chunks(Protocol):
    """Chunks with the inputs of a split."""

    def iter_steps(self, needed: Sequence[np.typing.NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        """Yield for each step of a pass the chunks that it needs, by number; `needed` has their numbers by step."""


@dataclass(frozen=True)
class MemoryChunks:
    """Chunks that stay in memory."""

    chunks: Mapping[int, Chunk]

    def iter_steps(self, needed: Sequence[np.typing.NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        return (self.chunks for _ in needed)

    def read_all(self) -> "MemoryChunks":
        return self


@dataclass(frozen=True)
class RowGroup:
    """Chunk on disk."""

    file: str
    number: int
    """In its file."""
    metadata: pq.FileMetaData
    """Kept, so that the file's footer is read once."""


@dataclass(frozen=True)
class DiskChunks:
    """Chunks that are read in every pass, each once; in memory are those that the pass needs at a time."""

    storage: Storage
    groups: Sequence[RowGroup]
    specs: Mapping[str, InputSpec]

    def iter_steps(self, needed: Sequence[np.typing.NDArray[np.int64]]) -> Iterator[Mapping[int, Chunk]]:
        # The keys are in the order of each chunk's first step, the values are its last step.
        last = {chunk: step for step, chunks in enumerate(needed) for chunk in chunks.tolist()}
        prefetched = map_with_prefetch(self._load, last, threads=1, depth=cache.WINDOW_GROUPS)
        loaded: dict[int, Chunk] = {}
        for step, chunks in enumerate(needed):
            for chunk in chunks.tolist():
                if chunk not in loaded:
                    loaded[chunk] = next(prefetched)
            yield loaded
            # A new dictionary, because the threads that gather this step may still read the previous one.
            loaded = {chunk: columns for chunk, columns in loaded.items() if last[chunk] > step}

    def read_all(self) -> MemoryChunks:
        """Return all chunks in memory."""
        return MemoryChunks({chunk: self._load(chunk) for chunk in range(len(self.groups))})

    def _load(self, chunk: int) -> Chunk:
        group = self.groups[chunk]
        with store.open_shard(self.storage, group.file, group.metadata) as parquet:
            table = parquet.read_row_group(group.number, columns=list(self.specs))
            table = store.select_columns(table, list(self.specs), where=group.file)
        (batch,) = table.combine_chunks().to_batches()
        return to_chunk(batch, self.specs)


@dataclass(frozen=True, kw_only=True)
class StreamedSplit(cache.Split):
    """Split whose inputs are in chunks."""

    specs: Mapping[str, InputSpec]
    chunks: Chunks
    positions: np.typing.NDArray[np.int64]
    """Chunk of each row, and its row in the chunk; shape (rows, 2)."""
    device: torch.device
    threads: int
    decoded: cache.DecodeCount

    @property
    def placement(self) -> str:
        return "memory" if isinstance(self.chunks, MemoryChunks) else "disk"

    @property
    def decoded_bytes(self) -> int:
        """Bytes of the inputs as tensors."""
        return len(self) * sum(get_decoded_size(spec) for spec in self.specs.values())

    @property
    def is_shared(self) -> bool:
        """True if the inputs are decoded and in the memory of the device, so that workers share them without a copy."""
        in_memory = isinstance(self.chunks, MemoryChunks)
        return self.device.type == "cpu" and in_memory and not self._count_encoded()

    def read(self, batches: Iterable[cache.Rows]) -> Iterator[Inputs]:
        return transfer.copy_ahead(self._read_on_host(batches), self.device)

    def _read_on_host(self, batches: Iterable[cache.Rows]) -> Iterator[Inputs]:
        positions = [self.positions[rows.numpy()] for rows in batches]
        chunks = self.chunks.iter_steps([np.unique(of_batch[:, 0]) for of_batch in positions])
        # Slices of memory are not worth a thread.
        threads = 0 if self.is_shared else self.threads
        steps = zip(positions, chunks, strict=True)
        for rows, inputs in map_with_prefetch(self._gather, steps, threads=threads, depth=max(threads, _MIN_DEPTH)):
            self.decoded.images += rows * self._count_encoded()
            yield inputs

    def _count_encoded(self) -> int:
        """Return the number of inputs that must be decoded."""
        if not isinstance(self.chunks, MemoryChunks):
            return sum(spec.encoding != "raw" for spec in self.specs.values())
        columns = next(iter(self.chunks.chunks.values()), {}).values()
        return sum(isinstance(column, pa.Array) for column in columns)

    def _gather(self, step: tuple[np.typing.NDArray[np.int64], Mapping[int, Chunk]]) -> tuple[int, Inputs]:
        """Return the number of rows of a step, and their inputs in memory of the host from which the device copies."""
        positions, chunks = step
        inputs = {}
        for name, spec in self.specs.items():
            rows = [chunks[chunk][name][row] for chunk, row in positions.tolist()]
            inputs[name] = transfer.make_buffer((len(rows), *spec.shape), spec.element, self.device)
            column = inputs[name].numpy()
            if rows and isinstance(rows[0], pa.Scalar):
                images.decode_images([row.as_buffer() for row in rows], spec, name=name, out=column)
                continue
            for at, row in enumerate(rows):
                column[at] = row
        return len(positions), inputs


def map_with_prefetch(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, depth: int
) -> Iterator[Result]:
    """Yield `map(work, items)` in order, with up to `depth` results computed ahead by threads; plain `map` without."""
    if not threads:
        yield from map(work, items)
        return
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            # A consumer that stops early must not wait for results that it will not read.
            for future in waiting:
                future.cancel()


def to_chunk(batch: pa.RecordBatch, specs: Mapping[str, InputSpec]) -> Chunk:
    """Return the inputs of Arrow rows without a copy."""
    names = [name for name in specs if not pa.types.is_large_binary(batch.column(name).type)]
    encoded = {name: batch.column(name) for name in specs if name not in names}
    return {**to_numpy(batch.select(names), specs), **encoded}


def make_streamed_split(
    manifest: Manifest,
    chunks: Chunks,
    ids: np.typing.NDArray[np.object_],
    labels: np.typing.NDArray[np.float64],
    positions: np.typing.NDArray[np.int64],
    *,
    sample_groups: np.typing.NDArray[np.object_] | None = None,
    device: torch.device,
    threads: int,
    decoded: cache.DecodeCount,
) -> StreamedSplit:
    """Return a split from its rows in any order.

    Args:
        manifest: of the data set.
        chunks: with the inputs.
        ids: sample id of each row, shape `(rows,)`.
        labels: shape `(rows,)`, or `(rows, L)`.
        positions: as in `StreamedSplit.positions`.
        sample_groups: group of each row, shape `(rows,)`; None without groups.
        device: of the batches.
        threads: that prefetch and decode.
        decoded: counts the decoded images.
    """
    order = np.argsort(ids)
    exact, positions = labels[order].astype(np.float64), positions[order]
    groups = None
    if isinstance(chunks, DiskChunks):
        # Rows of a group in the order of the file.
        as_stored = np.lexsort((positions[:, 1], positions[:, 0]))
        starts = np.flatnonzero(np.diff(positions[as_stored, 0])) + 1
        groups = tuple(torch.from_numpy(rows) for rows in np.split(as_stored, starts))
    return StreamedSplit(
        sample_ids=tuple(ids[order].tolist()),
        labels=torch.from_numpy(exact).to(device, torch.float32),
        exact_labels=exact,
        label_bins=torch.from_numpy(label_bins(exact, manifest.label)).to(device),
        groups=groups,
        sample_groups=None if sample_groups is None else sample_groups[order],
        transform=views.make_transform(manifest.label, manifest.inputs),
        specs=manifest.inputs,
        chunks=chunks,
        positions=positions,
        device=device,
        threads=threads,
        decoded=decoded,
    )


def load_onto_device(split: StreamedSplit) -> cache.ResidentSplit:
    """Return the split with its inputs as tensors on the device, each image decoded directly into its row."""
    columns: Inputs = {}
    # In the order of reading, so that each row group is read once.
    batches = split.reading_order.split(_LOAD_ROWS)
    for rows, inputs in zip(batches, split.read(batches), strict=True):
        for name, values in inputs.items():
            if name not in columns:
                columns[name] = values.new_empty((len(split), *values.shape[1:]))
            columns[name].index_copy_(0, rows.to(split.device), values)
    shared = {each.name: getattr(split, each.name) for each in fields(cache.Split)}
    return cache.ResidentSplit(inputs=columns, **shared)
