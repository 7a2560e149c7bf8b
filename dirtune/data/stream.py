"""Decoded data in Ray's object store: read and decoded once per cluster, shared by all trials of a sweep.

The blocks are materialised before the first trial starts, because a Ray Data task would wait for a CPU that the trials
hold. A worker fetches them once and keeps tensors (`dirtune.data.cache`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import ray.data
import torch
from numpy.typing import NDArray

from dirtune.data.cache import ResidentData, resident
from dirtune.data.store import decode, read_split, split_files
from dirtune.manifest import Manifest
from dirtune.storage import Storage

Blocks = dict[str, list[Any]]
"""References to Arrow tables in the object store, by split."""


def materialise(storage: Storage, manifest: Manifest) -> Blocks:
    """Read every split with Ray Data into the object store and return references to its blocks."""
    return {split: _split_blocks(storage, manifest, split) for split in manifest.splits}


def _split_blocks(storage: Storage, manifest: Manifest, split: str) -> list[Any]:
    columns = ["sample_id", "label", *manifest.inputs]
    dataset = ray.data.read_parquet(
        split_files(storage, manifest, split), filesystem=storage.filesystem, columns=columns
    )
    return list(dataset.materialize().to_arrow_refs())


def fetch(manifest: Manifest, blocks: Blocks, device: torch.device) -> ResidentData:
    """The blocks as tensors on this worker's device."""
    tables = {split: pa.concat_tables(ray.get(refs)) for split, refs in blocks.items()}
    return _resident_tables(manifest, tables, device)


def read_directly(storage: Storage, manifest: Manifest, device: torch.device) -> ResidentData:
    """The same tensors without Ray, for a single run in this process."""
    tables = {split: read_split(storage, manifest, split) for split in manifest.splits}
    return _resident_tables(manifest, tables, device)


def _resident_tables(
    manifest: Manifest, tables: Mapping[str, pa.Table], device: torch.device
) -> ResidentData:
    arrays: dict[str, dict[str, NDArray[np.generic]]] = {
        split: decode(table, manifest) for split, table in tables.items()
    }
    return resident(manifest, arrays, device)
