"""From disk to the workers: how a data set gets into Ray's object store, and from there, or from disk, to a worker.

Once per sweep `materialize` reads the whole set with Ray Data, before the first trial starts, because a Ray Data task
would wait for a CPU that the trials hold. Encoded images are decoded on the way, by all CPUs, once for all workers. What
decides is half of the object store of the smallest node, for each node on which a worker runs gets all blocks:

    pixels fit             decoded blocks         workers share them, or take them onto their GPU
    encoded bytes fit      encoded blocks         each worker decodes: once onto its device if its budget allows, else per batch
    nothing fits           no blocks              each worker reads its stretch of the Parquet files in every epoch

The choice is made once, so that the arms of a sweep see one order of samples on whatever worker they run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from numpy.typing import NDArray

from dirtune.data.cache import DecodeCount, ResidentData, Split
from dirtune.data.columns import decoded, decoded_size, plain_values
from dirtune.data.memory_budget import MemoryBudget, measure_memory_budget
from dirtune.data.store import split_files
from dirtune.data.streaming import InMemory, OnDisk, RowGroup, as_chunk, opened, streamed, taken_in
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, Manifest

STORE_SHARE = 0.5
"""A data set may take this share of a node's object store."""
DECODES = "decodes"
"""Column of blocks of encoded sets: how often the images of a row have been decoded."""

ARRIVAL_SECONDS = 60.0
"""A worker reads from disk itself when for so long no block has come from the object store."""

# As pixels, 224 x 224 in color: 38 MB
_IMAGES_PER_BATCH = 256
# Bytes of a split that every worker copies, because one tensor is cut faster than many chunks
_SMALL = 64 * 2**20


@dataclass(frozen=True)
class Blocks:
    """A data set as all workers of a sweep are given it; plain enough to travel between processes."""

    storage: Storage
    references: tuple[Any, ...] | None
    """To Arrow tables in the object store; none: it is read from disk."""


def materialize(storage: Storage, manifest: Manifest, *, budget_bytes: int | None = None) -> Blocks:
    """Read a whole data set with Ray Data into the object store, as far as it fits.

    All splits are read as one: starting a Ray Data execution costs seconds, whatever it reads.

    Args:
        budget_bytes: what it may take on each node; none: half of the smallest object store.
    """
    budget = _smallest_store() * STORE_SHARE if budget_bytes is None else budget_bytes
    if _stored_bytes(storage, manifest) > budget:
        return Blocks(storage, None)
    files = [file for split in manifest.splits for file in split_files(storage, manifest, split)]
    dataset = ray.data.read_parquet(files, filesystem=storage.filesystem, include_paths=True)
    dataset = dataset.select_columns(["path", "sample_id", "label", *manifest.inputs])
    if _is_encoded(manifest) and _decoded_bytes(manifest) <= budget:
        dataset = dataset.map_batches(
            _decoded_once,
            fn_kwargs={"inputs": dict(manifest.inputs)},
            batch_format="pyarrow",
            batch_size=_IMAGES_PER_BATCH,
        )
    return Blocks(storage, tuple(dataset.materialize().to_arrow_refs()))


def _smallest_store() -> float:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    with_workers = [resources for resources in nodes if resources.get("CPU")] or nodes
    return min(float(resources.get("object_store_memory", 0)) for resources in with_workers)


def _is_encoded(manifest: Manifest) -> bool:
    return any(spec.encoding != "raw" for spec in manifest.inputs.values())


def _rows(manifest: Manifest) -> int:
    return sum(split.rows for split in manifest.splits.values())


def _decoded_bytes(manifest: Manifest) -> int:
    return _rows(manifest) * sum(decoded_size(spec) for spec in manifest.inputs.values())


def _stored_bytes(storage: Storage, manifest: Manifest) -> int:
    """Memory that the set takes as it is stored; images count with the size of their files, which hold little else."""
    raw = {name: spec for name, spec in manifest.inputs.items() if spec.encoding == "raw"}
    numbers = _rows(manifest) * sum(decoded_size(spec) for spec in raw.values())
    if not _is_encoded(manifest):
        return numbers
    files = [file for split in manifest.splits for file in split_files(storage, manifest, split)]
    return numbers + sum(info.size or 0 for info in storage.filesystem.get_file_info(files))


def _decoded_once(table: pa.Table, inputs: dict[str, InputSpec]) -> pa.Table:
    pixels = decoded(table, inputs)
    return pixels.append_column(DECODES, pa.array(np.ones(table.num_rows, np.int8)))


def fetch(
    manifest: Manifest, blocks: Blocks, device: torch.device, residency: MemoryBudget | None = None
) -> ResidentData:
    """The data set on this worker: on its device as far as its budget allows (none: measured here), else streamed.

    Raises:
        InputError: a shard or a stored image cannot be read.
    """
    tables = None if blocks.references is None else _arrived(blocks.references)
    stored = _on_disk(blocks.storage, manifest) if tables is None else _in_memory(manifest, tables)
    return _placed(manifest, stored, device, residency or measure_memory_budget(device))


def _arrived(references: Sequence[Any]) -> list[pa.Table] | None:
    """The blocks, once all are in this node's memory; none if they do not come.

    What lay on a node that is lost Ray reads again, by tasks that need a CPU; and the workers who wait for it hold them all.
    """
    waiting = list(references)
    while waiting:
        arrived, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=ARRIVAL_SECONDS)
        if not arrived:
            return None
    tables: list[pa.Table] = ray.get(list(references))
    return tables


def read_directly(
    storage: Storage, manifest: Manifest, device: torch.device, residency: MemoryBudget | None = None
) -> ResidentData:
    """The same without Ray, for a single run in this process.

    Raises:
        InputError: a shard or a stored image cannot be read.
    """
    budget, stored = residency or measure_memory_budget(device), _on_disk(storage, manifest)
    if _stored_bytes(storage, manifest) <= budget.host_bytes:
        stored = {name: replace(rows, chunks=rows.chunks.all()) for name, rows in stored.items()}
    return _placed(manifest, stored, device, budget)


@dataclass(frozen=True)
class _Stored:
    """The rows of a split in the order of storage."""

    chunks: InMemory | OnDisk
    ids: NDArray[np.object_]
    labels: NDArray[np.float64]
    places: NDArray[np.int64]
    """Of each row: its chunk and its position there."""


def _in_memory(manifest: Manifest, tables: Sequence[pa.Table]) -> dict[str, _Stored]:
    """Blocks by split; a block may hold rows of several."""
    batches = [batch for table in tables for batch in table.to_batches()]
    chunks = InMemory({at: as_chunk(batch, manifest.inputs) for at, batch in enumerate(batches)})
    split_of = {_short(file): name for name, split in manifest.splits.items() for file in split.files}
    paths = [path for batch in batches for path in batch.column("path").to_pylist()]
    splits = np.array([split_of[_short(path)] for path in paths])
    ids = np.concatenate([batch.column("sample_id").to_numpy(zero_copy_only=False) for batch in batches])
    labels = np.concatenate([plain_values(batch.column("label")) for batch in batches])
    places = np.concatenate([_places(at, batch.num_rows) for at, batch in enumerate(batches)])
    return {
        name: _Stored(chunks, ids[splits == name], labels[splits == name], places[splits == name])
        for name in manifest.splits
    }


def _short(path: str) -> str:
    """The folder and the name of a shard: a file system may write the way to them differently."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _places(chunk: int, rows: int) -> NDArray[np.int64]:
    return np.stack([np.full(rows, chunk), np.arange(rows)], axis=1)


def _on_disk(storage: Storage, manifest: Manifest) -> dict[str, _Stored]:
    """Row groups by split; only ids and labels are read."""
    return {name: _split_on_disk(storage, manifest, name) for name in manifest.splits}


def _split_on_disk(storage: Storage, manifest: Manifest, split: str) -> _Stored:
    groups: list[RowGroup] = []
    ids, labels, places = [], [], []
    for file in split_files(storage, manifest, split):
        with opened(storage, file) as parquet:
            known, metadata = parquet.read(["sample_id", "label"]), parquet.metadata
        ids.append(known["sample_id"].to_numpy())
        labels.append(plain_values(known["label"]))
        for number in range(metadata.num_row_groups):
            places.append(_places(len(groups), metadata.row_group(number).num_rows))
            groups.append(RowGroup(file, number, metadata))
    if (found := sum(map(len, ids))) != manifest.splits[split].rows:
        rule = f"{manifest.splits[split].rows} samples expected; ingest the data set again"
        raise InputError(Fault(where=manifest.name, key=split, rule=rule, got=found))
    chunks = OnDisk(storage, tuple(groups), manifest.inputs)
    return _Stored(chunks, np.concatenate(ids), np.concatenate(labels), np.concatenate(places))


def _placed(manifest: Manifest, stored: dict[str, _Stored], device: torch.device, budget: MemoryBudget) -> ResidentData:
    """Take splits onto the device as long as the budget lasts, the smallest first; leave the others where they lie."""
    count, left = DecodeCount(), budget.device_bytes
    found = {
        name: streamed(
            manifest,
            rows.chunks,
            rows.ids,
            rows.labels,
            rows.places,
            device=device,
            threads=budget.threads,
            decoded=count,
        )
        for name, rows in stored.items()
    }
    splits: dict[str, Split] = dict(found)
    for name, split in sorted(found.items(), key=lambda item: item[1].decoded_bytes):
        if split.decoded_bytes <= (min(left, _SMALL) if split.is_shared else left):
            splits[name] = taken_in(split)
            left -= split.decoded_bytes
    return ResidentData(manifest=manifest, device=device, splits=splits, decoded=count)
