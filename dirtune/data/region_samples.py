"""A few images of every shot region, drawn by seed and read without reading the whole set.

Ids and labels of a split are read first, a small part of its shards; then the row groups that hold the chosen rows. Which
images are chosen depends on the seed and the ids, not on shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dirtune.data.inspection import Inspection
from dirtune.data.store import decode, list_shards
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.metrics import SHOT_REGIONS
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins


@dataclass(frozen=True, kw_only=True)
class RegionSamples:
    """Images of one shot region, sorted by label (of several dimensions: by the first)."""

    region: str
    sample_ids: tuple[str, ...]
    labels: NDArray[np.float64]
    """(samples,), or (samples, L)."""
    images: NDArray[np.uint8]
    """(samples, channels, height, width)."""


def sample_images(
    storage: Storage, seen: Inspection, *, split: str = "train", count: int = 10, seed: int = 0
) -> tuple[RegionSamples, ...]:
    """Up to `count` images of each shot region of a split; nothing if no input is an image.

    Args:
        storage: the data root.
        seen: the data set and its regions. Of several images per sample, the first input is shown.

    Raises:
        InputError: no such split, or a shard is missing or damaged.
    """
    if seen.image_input is None:
        return ()
    manifest, files = seen.manifest, list_shards(storage, seen.manifest, split)
    keys = decode(_read(storage, files, ["sample_id", "label"]), manifest)
    regions = seen.regions[label_bins(keys["label"], manifest.label)]
    found = []
    for region in SHOT_REGIONS:
        rows = np.flatnonzero(regions == region)
        rows = rows[np.argsort(keys["sample_id"][rows])]
        drawn = np.random.default_rng(derive_seed(seed, "samples", split, region))
        chosen = np.sort(drawn.permutation(rows)[:count])
        if len(chosen):
            columns = ["sample_id", "label", seen.image_input]
            found.append(_of_region(region, _read(storage, files, columns, chosen), seen))
    return tuple(found)


def _of_region(region: str, table: pa.Table, seen: Inspection) -> RegionSamples:
    arrays = decode(table, seen.manifest)
    labels, sample_ids = arrays["label"], arrays["sample_id"].astype(str)
    # By label, then by id
    order = np.lexsort((sample_ids, labels.reshape(len(labels), -1)[:, 0]))
    return RegionSamples(
        region=region,
        sample_ids=tuple(sample_ids[order].tolist()),
        labels=labels[order],
        images=arrays[str(seen.image_input)][order],
    )


def _read(
    storage: Storage, files: Sequence[str], columns: list[str], rows: NDArray[np.int64] | None = None
) -> pa.Table:
    """Columns of some rows, in order; rows are counted over all files, none: all of them."""
    before, parts = 0, []
    for file in files:
        with _named(file), storage.filesystem.open_input_file(file) as stream:
            shard = pq.ParquetFile(stream)
            for group in range(shard.num_row_groups):
                inside = np.arange(shard.metadata.row_group(group).num_rows)
                here = inside if rows is None else np.intersect1d(inside, rows - before)
                if len(here):
                    parts.append(shard.read_row_group(group, columns).take(here))
                before += len(inside)
    return pa.concat_tables(parts)


@contextmanager
def _named(file: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        rule = f"shard cannot be read ({error}); ingest the data set again"
        raise InputError(Fault(where=file, rule=rule)) from None
