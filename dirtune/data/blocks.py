"""Blocks of a data set in Ray's object store, and a worker's data set from these blocks or from disk.

Once per sweep `materialize` reads the whole set with Ray Data, before the first trial starts, because a Ray Data task
would wait for a CPU that the trials occupy. Encoded images are decoded on the way, by all CPUs, once for all workers. Small
sets without images to decode are read by the driver, which takes less time than the processes of Ray Data to start. The form
depends on half of the object store of the smallest node, for each node with a worker receives all blocks:

    pixels fit             decoded blocks   workers share them, or copy them to their GPU
    encoded bytes fit      encoded blocks   each worker decodes: once if its device has room for the pixels, else per batch
    neither fits           no blocks        each worker reads its section of the Parquet files in every epoch

The choice is made once, so that the arms of a sweep see one order of samples on any worker.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from dirtune.data import memory_budget, store, streaming
from dirtune.data.cache import DecodeCount, ResidentData, Split
from dirtune.data.columns import decode_table, get_decoded_size, to_values
from dirtune.data.verify import check_labels
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest

STORE_SHARE = 0.5
"""A data set may occupy this share of a node's object store."""
DECODES = "decodes"
"""Column of blocks of encoded sets: number of times that the images of a row were decoded."""

ARRIVAL_TIMEOUT = 60.0
"""Seconds without a block from the object store after which a worker reads from disk."""

DIRECT_BYTES = 64 * 2**20
"""A set without encoded images of up to this size is read by the driver, in less than a second from a disk."""

# As pixels, 224 x 224 in color: 38 MB.
_IMAGES_PER_BATCH = 256
# Every worker copies a shared split up to this size, because one tensor is sliced faster than many chunks.
_COPY_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Blocks:
    """Data set of a sweep, as sent to all workers; picklable."""

    storage: Storage
    references: tuple[Any, ...] | None
    """To Arrow tables in the object store; None if the set is read from disk."""


def materialize(
    storage: Storage, manifest: Manifest, *, budget_bytes: int | None = None, worker: Mapping[str, float] | None = None
) -> Blocks:
    """Read a whole data set into the object store, decoded, encoded, or not at all, as it fits.

    Args:
        storage: the data root.
        manifest: of the data set.
        budget_bytes: memory on each node; None for half of the smallest object store of the nodes that hold a worker.
        worker: resources of a worker, as Ray names them; None for one CPU.

    Raises:
        InputError: a shard of a small set cannot be read.
    """
    # Importing Ray takes a second, which a process that reads from disk need not wait for.
    import ray

    if budget_bytes is None:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        # Nodes that hold no worker, such as a small head, need no blocks.
        needs = worker or {"CPU": 1.0}
        with_workers = [
            resources for resources in nodes if all(resources.get(unit, 0) >= need for unit, need in needs.items())
        ] or nodes
        budget = STORE_SHARE * min(float(resources.get("object_store_memory", 0)) for resources in with_workers)
    else:
        budget = budget_bytes
    stored_bytes = _measure_stored_bytes(storage, manifest)
    if stored_bytes > budget:
        return Blocks(storage, None)
    if stored_bytes <= DIRECT_BYTES and not _is_encoded(manifest):
        return Blocks(storage, tuple(map(ray.put, _read_shards(storage, manifest))))
    import ray.data

    # All splits are read as one set: starting a Ray Data execution costs seconds, for any amount of data.
    files = [file for split in manifest.splits for file in store.list_shards(storage, manifest, split)]
    dataset = ray.data.read_parquet(files, filesystem=storage.filesystem, include_paths=True)
    dataset = dataset.select_columns(["path", *_list_key_columns(manifest), *manifest.inputs])
    pixel_bytes = _count_rows(manifest) * sum(get_decoded_size(spec) for spec in manifest.inputs.values())
    if _is_encoded(manifest) and pixel_bytes <= budget:
        # A plain dictionary is pickled to the tasks.
        specs = dict(manifest.inputs)

        def decode_batch(batch: pa.Table) -> pa.Table:
            pixels = decode_table(batch, specs)
            return pixels.append_column(DECODES, pa.array(np.ones(batch.num_rows, np.int8)))

        dataset = dataset.map_batches(decode_batch, batch_format="pyarrow", batch_size=_IMAGES_PER_BATCH)
    return Blocks(storage, tuple(dataset.materialize().to_arrow_refs()))


def _read_shards(storage: Storage, manifest: Manifest) -> Iterator[pa.Table]:
    """Yield each shard with its path as a column, as Ray Data reads them."""
    names = [*_list_key_columns(manifest), *manifest.inputs]
    for file in (file for split in manifest.splits for file in store.list_shards(storage, manifest, split)):
        with store.open_shard(storage, file) as parquet:
            table = store.select_columns(parquet.read(names), names, where=file)
        yield table.append_column("path", pa.array([file] * table.num_rows))


def _is_encoded(manifest: Manifest) -> bool:
    return any(spec.encoding != "raw" for spec in manifest.inputs.values())


def _count_rows(manifest: Manifest) -> int:
    return sum(split.rows for split in manifest.splits.values())


def _measure_stored_bytes(storage: Storage, manifest: Manifest) -> int:
    """Return the memory of the set as stored; encoded images count by the size of their files, which hold little else."""
    raw = {name: spec for name, spec in manifest.inputs.items() if spec.encoding == "raw"}
    numbers = _count_rows(manifest) * sum(get_decoded_size(spec) for spec in raw.values())
    if not _is_encoded(manifest):
        return numbers
    files = [file for split in manifest.splits for file in store.list_shards(storage, manifest, split)]
    return numbers + sum(info.size or 0 for info in storage.filesystem.get_file_info(files))


def fetch(
    manifest: Manifest, blocks: Blocks, device: torch.device, budget: memory_budget.MemoryBudget | None = None
) -> ResidentData:
    """Return the data set on this worker: splits that fit its budget on its device, the others streamed.

    Args:
        manifest: of the data set.
        blocks: of `materialize`.
        device: of this worker.
        budget: of this worker; None if it is measured here.

    Raises:
        InputError: a shard or a stored image cannot be read.
    """
    tables = None if blocks.references is None else _get_tables(blocks.references)
    stored = _read_row_groups(blocks.storage, manifest) if tables is None else _group_by_split(manifest, tables)
    return _load_splits(manifest, stored, device, budget or memory_budget.measure_memory_budget(device))


def _get_tables(references: Sequence[Any]) -> list[pa.Table] | None:
    """Return the blocks as soon as all are in this node's memory, or None if they do not arrive.

    Ray reads the blocks of a lost node again by tasks that need a CPU, and the workers that wait for them occupy all CPUs.
    """
    import ray

    waiting = list(references)
    while waiting:
        arrived, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=ARRIVAL_TIMEOUT)
        if not arrived:
            return None
    tables: list[pa.Table] = ray.get(list(references))
    return tables


def read_without_ray(
    storage: Storage, manifest: Manifest, device: torch.device, budget: memory_budget.MemoryBudget | None = None
) -> ResidentData:
    """Return the data set like `fetch`, but read from disk, for a single run in this process.

    Raises:
        InputError: a shard or a stored image cannot be read.
    """
    budget, stored = budget or memory_budget.measure_memory_budget(device), _read_row_groups(storage, manifest)
    if _measure_stored_bytes(storage, manifest) <= budget.host_bytes:
        stored = {name: replace(rows, chunks=rows.chunks.read_all()) for name, rows in stored.items()}
    return _load_splits(manifest, stored, device, budget)


@dataclass(frozen=True)
class _StoredRows:
    """Rows of a split in the order of storage."""

    chunks: streaming.MemoryChunks | streaming.DiskChunks
    ids: np.typing.NDArray[np.object_]
    labels: np.typing.NDArray[np.float64]
    positions: np.typing.NDArray[np.int64]
    """Chunk of each row, and its row in the chunk; shape (rows, 2)."""
    groups: np.typing.NDArray[np.object_] | None
    """None if the data set has no groups."""


def _list_key_columns(manifest: Manifest) -> list[str]:
    """Return the columns of a shard that are no inputs."""
    return ["sample_id", "label", *([] if manifest.group is None else ["group"])]


def _group_by_split(manifest: Manifest, tables: Sequence[pa.Table]) -> dict[str, _StoredRows]:
    """Return the rows of blocks by split; a block may hold rows of several splits."""
    batches = [batch for table in tables for batch in table.to_batches()]
    chunks = streaming.MemoryChunks(
        {number: streaming.to_chunk(batch, manifest.inputs) for number, batch in enumerate(batches)}
    )
    # The path of a row's shard is the only trace of its split in a block.
    split_of = {_get_shard_key(file): name for name, split in manifest.splits.items() for file in split.files}
    paths = [path for batch in batches for path in batch.column("path").to_pylist()]
    splits = np.array([split_of[_get_shard_key(path)] for path in paths])
    ids = np.concatenate([batch.column("sample_id").to_numpy(zero_copy_only=False) for batch in batches])
    labels = np.concatenate([to_values(batch.column("label")) for batch in batches])
    positions = np.concatenate([_make_positions(number, batch.num_rows) for number, batch in enumerate(batches)])
    groups = None
    if manifest.group is not None:
        groups = np.concatenate([batch.column("group").to_numpy(zero_copy_only=False) for batch in batches])
    return {
        name: _StoredRows(
            chunks,
            ids[splits == name],
            labels[splits == name],
            positions[splits == name],
            None if groups is None else groups[splits == name],
        )
        for name in manifest.splits
    }


def _get_shard_key(path: str) -> str:
    """Return the folder and the name of a shard, because file systems write the start of a path differently."""
    return "/".join(PurePosixPath(path).parts[-2:])


def _make_positions(chunk: int, rows: int) -> np.typing.NDArray[np.int64]:
    return np.stack([np.full(rows, chunk), np.arange(rows)], axis=1)


def _read_row_groups(storage: Storage, manifest: Manifest) -> dict[str, _StoredRows]:
    """Return the row groups by split; only ids and labels are read."""
    found = {}
    for split, info in manifest.splits.items():
        groups: list[streaming.RowGroup] = []
        ids, labels, positions, sample_groups = [], [], [], []
        for file in store.list_shards(storage, manifest, split):
            with store.open_shard(storage, file) as parquet:
                needed, metadata = _list_key_columns(manifest), parquet.metadata
                columns = store.select_columns(parquet.read(needed), needed, where=file)
            ids.append(columns["sample_id"].to_numpy())
            labels.append(to_values(columns["label"]))
            if manifest.group is not None:
                sample_groups.append(columns["group"].to_numpy())
            for number in range(metadata.num_row_groups):
                positions.append(_make_positions(len(groups), metadata.row_group(number).num_rows))
                groups.append(streaming.RowGroup(file, number, metadata))
        if (rows := sum(map(len, ids))) != info.rows:
            rule = f"{info.rows} samples expected; ingest the data set again"
            raise InputError(Fault(where=manifest.name, key=split, rule=rule, got=rows))
        chunks = streaming.DiskChunks(storage, tuple(groups), manifest.inputs)
        found[split] = _StoredRows(
            chunks,
            np.concatenate(ids),
            np.concatenate(labels),
            np.concatenate(positions),
            np.concatenate(sample_groups) if sample_groups else None,
        )
    return found


def _load_splits(
    manifest: Manifest, stored: dict[str, _StoredRows], device: torch.device, budget: memory_budget.MemoryBudget
) -> ResidentData:
    """Load splits onto the device while the budget lasts, the smallest first, and stream the others."""
    found = {name: (rows.ids, rows.labels) for name, rows in stored.items()}
    check_labels(found, manifest.split_fingerprint, where=manifest.name)
    count, left = DecodeCount(), budget.device_bytes
    streamed = {
        name: streaming.make_streamed_split(
            manifest,
            rows.chunks,
            rows.ids,
            rows.labels,
            rows.positions,
            sample_groups=rows.groups,
            device=device,
            threads=budget.threads,
            decoded=count,
        )
        for name, rows in stored.items()
    }
    splits: dict[str, Split] = dict(streamed)
    # The smallest first, so that as many splits as possible are on the device.
    for name, split in sorted(streamed.items(), key=lambda item: item[1].decoded_bytes):
        if split.decoded_bytes <= (min(left, _COPY_BYTES) if split.is_shared else left):
            splits[name] = streaming.load_onto_device(split)
            left -= split.decoded_bytes
    return ResidentData(manifest=manifest, device=device, splits=splits, decoded=count)
