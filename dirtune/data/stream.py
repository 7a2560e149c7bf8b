"""Decoded data in Ray's object store: read and decoded once per cluster, shared by all trials of a sweep.

The blocks are materialised before the first trial starts, because a Ray Data task would wait for a CPU that the trials
hold. All splits are read as one data set: starting a Ray Data execution costs seconds, whatever it reads. A worker
fetches the blocks once and keeps tensors (`dirtune.data.cache`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
import torch

from dirtune.data.cache import ResidentData, resident
from dirtune.data.store import decode, read_split, split_files
from dirtune.manifest import Manifest
from dirtune.storage import Storage

Blocks = list[Any]
"""References to Arrow tables in the object store; a row's shard is in the column `path`."""


def materialise(storage: Storage, manifest: Manifest) -> Blocks:
    """Read a whole data set with Ray Data into the object store and return references to its blocks."""
    files = [file for split in manifest.splits for file in split_files(storage, manifest, split)]
    dataset = ray.data.read_parquet(files, filesystem=storage.filesystem, include_paths=True)
    columns = ["path", "sample_id", "label", *manifest.inputs]
    return list(dataset.select_columns(columns).materialize().to_arrow_refs())


def fetch(manifest: Manifest, blocks: Blocks, device: torch.device) -> ResidentData:
    """The blocks as tensors on this worker's device."""
    table = pa.concat_tables(ray.get(blocks))
    split_of = {
        PurePosixPath(file).name: name
        for name, split in manifest.splits.items()
        for file in split.files
    }
    splits = pa.array([split_of[PurePosixPath(path).name] for path in table["path"].to_pylist()])
    tables = {name: table.filter(pc.equal(splits, name)) for name in manifest.splits}
    return _resident_tables(manifest, tables, device)


def read_directly(storage: Storage, manifest: Manifest, device: torch.device) -> ResidentData:
    """The same tensors without Ray, for a single run in this process."""
    tables = {split: read_split(storage, manifest, split) for split in manifest.splits}
    return _resident_tables(manifest, tables, device)


def _resident_tables(
    manifest: Manifest, tables: Mapping[str, pa.Table], device: torch.device
) -> ResidentData:
    columns = ["sample_id", "label", *manifest.inputs]
    arrays = {split: decode(table.select(columns), manifest) for split, table in tables.items()}
    return resident(manifest, arrays, device)
