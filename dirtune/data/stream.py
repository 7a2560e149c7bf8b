"""Decoded data in Ray's object store: read and decoded once per cluster, shared by all trials of a sweep.

The blocks are materialised before the first trial starts, because a Ray Data task would wait for a CPU that the trials
hold. All splits are read as one data set: starting a Ray Data execution costs seconds, whatever it reads. Encoded images
are decoded on the way, by all CPUs, as long as their pixels take no more than half of the object store; beyond it they stay
encoded, and each worker decodes for itself. A worker fetches the blocks once and keeps tensors (`dirtune.data.cache`).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from dirtune.data.cache import ResidentData, resident
from dirtune.data.columns import decoded, decoded_size
from dirtune.data.store import decode, read_split, split_files
from dirtune.manifest import Manifest
from dirtune.storage import Storage

DECODED_SHARE = 0.5
"""Decoded images may take this share of the cluster's object store."""
_IMAGES_PER_BATCH = 256  # as pixels, 224 x 224 in colour: 38 MB

Blocks = list[Any]
"""References to Arrow tables in the object store; a row's shard is in the column `path`."""


def materialise(storage: Storage, manifest: Manifest) -> Blocks:
    """Read a whole data set with Ray Data into the object store and return references to its blocks."""
    files = [file for split in manifest.splits for file in split_files(storage, manifest, split)]
    dataset = ray.data.read_parquet(files, filesystem=storage.filesystem, include_paths=True)
    dataset = dataset.select_columns(["path", *_columns(manifest)])
    if _is_encoded(manifest) and _fits_decoded(manifest):
        inputs = dict(manifest.inputs)
        dataset = dataset.map_batches(
            decoded,
            fn_kwargs={"inputs": inputs},
            batch_format="pyarrow",
            batch_size=_IMAGES_PER_BATCH,
        )
    return list(dataset.materialize().to_arrow_refs())


def _columns(manifest: Manifest) -> list[str]:
    return ["sample_id", "label", *manifest.inputs]


def _is_encoded(manifest: Manifest) -> bool:
    return any(spec.encoding != "raw" for spec in manifest.inputs.values())


def _fits_decoded(manifest: Manifest) -> bool:
    rows = sum(split.rows for split in manifest.splits.values())
    size = rows * sum(decoded_size(spec) for spec in manifest.inputs.values())
    return bool(size <= DECODED_SHARE * ray.cluster_resources().get("object_store_memory", 0))


def fetch(manifest: Manifest, blocks: Blocks, device: torch.device) -> ResidentData:
    """The blocks as tensors on this worker's device."""
    table = pa.concat_tables(ray.get(blocks))
    shards = [PurePosixPath(path).name for path in table["path"].to_pylist()]
    split_of = {
        PurePosixPath(file).name: name
        for name, split in manifest.splits.items()
        for file in split.files
    }
    splits = pa.array([split_of[shard] for shard in shards])
    table = table.select(_columns(manifest))
    # One split after the other: the pixels of a split stand in memory twice only while it is joined.
    arrays = {
        name: decode(table.filter(pc.equal(splits, name)), manifest) for name in manifest.splits
    }
    return resident(manifest, arrays, device)


def read_directly(storage: Storage, manifest: Manifest, device: torch.device) -> ResidentData:
    """The same tensors without Ray, for a single run in this process."""
    columns = _columns(manifest)
    arrays = {
        split: decode(read_split(storage, manifest, split).select(columns), manifest)
        for split in manifest.splits
    }
    return resident(manifest, arrays, device)
