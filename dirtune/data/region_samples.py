"""Images of every shot region, selected by seed and read without reading the whole set.

Ids and labels of a split are read first, a small part of its shards; then the row groups that hold the selected rows. The
selection depends on the seed and the ids, not on shards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dirtune import metrics, randomness
from dirtune.data.inspection import Inspection
from dirtune.data.store import decode, list_shards, open_shard, select_columns
from dirtune.io.storage import Storage
from dirtune.reweighting.density import label_bins


@dataclass(frozen=True, kw_only=True)
class RegionSamples:
    """Images of one shot region, sorted by label (with several dimensions: by the first)."""

    region: str
    sample_ids: tuple[str, ...]
    labels: np.typing.NDArray[np.float64]
    """Shape (samples,), or (samples, L)."""
    images: np.typing.NDArray[np.uint8]
    """Shape (samples, channels, height, width)."""


def read_region_samples(
    storage: Storage, inspection: Inspection, *, split: str = "train", count: int = 10, seed: int = 0
) -> tuple[RegionSamples, ...]:
    """Return up to `count` images of each shot region of a split; empty if no input is an image.

    Args:
        storage: the data root.
        inspection: the data set and its regions. Of several images per sample, the first input is read.
        split: name of the split.
        count: maximum number of images of a region.
        seed: of the selection.

    Raises:
        InputError: unknown split, or a shard is missing or damaged.
    """
    if inspection.image_input is None:
        return ()
    manifest, files = inspection.manifest, list_shards(storage, inspection.manifest, split)
    keys = decode(_read_rows(storage, files, ["sample_id", "label"]), manifest)
    regions = inspection.regions[label_bins(keys["label"], manifest.label)]
    found = []
    for region in metrics.SHOT_REGIONS:
        rows = np.flatnonzero(regions == region)
        # Sorted by id, so that the selection does not depend on shards.
        rows = rows[np.argsort(keys["sample_id"][rows])]
        generator = np.random.default_rng(randomness.derive_seed(seed, "samples", split, region))
        selected = np.sort(generator.permutation(rows)[:count])
        if not len(selected):
            continue
        table = _read_rows(storage, files, ["sample_id", "label", inspection.image_input], selected)
        columns = decode(table, manifest)
        labels, sample_ids = columns["label"], columns["sample_id"].astype(str)
        # Samples of equal labels are sorted by id.
        order = np.lexsort((sample_ids, labels.reshape(len(labels), -1)[:, 0]))
        samples = RegionSamples(
            region=region,
            sample_ids=tuple(sample_ids[order].tolist()),
            labels=labels[order],
            images=columns[inspection.image_input][order],
        )
        found.append(samples)
    return tuple(found)


def _read_rows(
    storage: Storage, files: Sequence[str], columns: list[str], rows: np.typing.NDArray[np.int64] | None = None
) -> pa.Table:
    """Return columns of the rows at these positions, in order, counted over all files; of all rows if None."""
    before, parts = 0, []
    for file in files:
        with open_shard(storage, file) as shard:
            for group in range(shard.num_row_groups):
                inside = np.arange(shard.metadata.row_group(group).num_rows)
                selected = inside if rows is None else np.intersect1d(inside, rows - before)
                if len(selected):
                    found = select_columns(shard.read_row_group(group, columns), columns, where=file)
                    parts.append(found.take(selected))
                before += len(inside)
    return pa.concat_tables(parts)
