"""Images and depths at the stored size, encoded with Ray Data: each file is opened once, a fault of one stops no other.

Trade-off: as with `dirtune.pipelines.image_files`, the encoded files are kept in Ray's object store, which spills to disk, until the
data set is written, because the balanced pixels depend on all of them.
"""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from PIL import Image

from dirtune.data.images import decode_images, encode_counts, encode_image
from dirtune.errors import Fault
from dirtune.manifest import InputSpec, LabelSpec
from dirtune.pipelines.balanced_pixels import PixelSelection, compute_pixel_bins, make_mask
from dirtune.pipelines.depth_files import Pair, read_photograph
from dirtune.reweighting.density import label_density

_PAIRS_PER_TASK = 256


@dataclass(frozen=True, kw_only=True)
class DepthImages:
    """Encoded pairs of the lists."""

    dataset: ray.data.Dataset
    """Columns `sample_id`, `group`, `label`, `image`, `depth`."""
    pixels: dict[str, np.typing.NDArray[np.int64]]
    """Number of labeled pixels per bin, by sample id."""
    faults: list[Fault]
    """Sorted by file."""


def encode_pairs(pairs: Sequence[Pair], folder: Path, inputs: Mapping[str, InputSpec], label: LabelSpec) -> DepthImages:
    """Open, resize and encode every image and its depth, and count its pixels; all workers must be able to read the folder."""
    table = pa.table({name: [getattr(pair, name) for pair in pairs] for name in Pair._fields})
    blocks = max(1, math.ceil(table.num_rows / _PAIRS_PER_TASK))
    settings = {"folder": folder, "inputs": dict(inputs), "label": label}
    dataset = ray.data.from_arrow(table, override_num_blocks=blocks)
    dataset = dataset.map_batches(_encode_batch, fn_kwargs=settings, batch_format="pyarrow").materialize()
    pixels, faults = {}, []
    # Without the image columns, which stay in the object store
    found = dataset.select_columns(["sample_id", "pixels", "file", "rule"])
    for batch in found.iter_batches(batch_format="pyarrow", batch_size=None):
        for row in batch.to_pylist():
            pixels[row["sample_id"]] = np.asarray(row["pixels"], dtype=np.int64)
            if row["rule"]:
                faults.append(Fault(where=str(folder / row["file"]), rule=row["rule"]))
    kept = dataset.drop_columns(["pixels", "file", "rule"])
    return DepthImages(dataset=kept, pixels=pixels, faults=sorted(faults, key=str))


def _encode_batch(batch: pa.Table, folder: Path, inputs: dict[str, InputSpec], label: LabelSpec) -> pa.Table:
    rows = [_encode_pair(Pair(**row), folder, inputs, label) for row in batch.to_pylist()]
    types = {
        "sample_id": pa.string(),
        "group": pa.string(),
        "label": pa.float64(),
        "image": pa.large_binary(),
        "depth": pa.large_binary(),
        "pixels": pa.list_(pa.int64()),
        "file": pa.string(),
        "rule": pa.string(),
    }
    return pa.Table.from_pylist(rows, schema=pa.schema(types))


def _encode_pair(pair: Pair, folder: Path, inputs: dict[str, InputSpec], label: LabelSpec) -> dict[str, Any]:
    assert label.dense is not None
    row = {
        "sample_id": pair.image,
        "group": pair.scene,
        "label": 0.0,
        "image": b"",
        "depth": b"",
        "pixels": [],
        "file": "",
        "rule": "",
    }
    _, height, width = inputs["depth"].shape
    read = read_photograph(folder, pair, height=height, width=width)
    if read.image is None or read.depth is None:
        return {**row, "file": read.file, "rule": read.rule}
    bins = compute_pixel_bins(read.depth, label)
    has_label = bins < label.num_bins
    if not has_label.any():
        return {**row, "file": pair.depth, "rule": "no pixel in the middle has a depth"}
    # A sample has one label, too: the mean of its pixels, for terms and statistics that need one number per image.
    cropped = label.dense.crop(read.depth)
    return {
        **row,
        "label": float(cropped[cropped > 0].mean() * label.dense.unit_per_count),
        "image": encode_image(read.image, inputs["image"]),
        "depth": encode_counts(read.depth),
        "pixels": label_density(bins[has_label], label.num_bins).tolist(),
    }


def add_masks(
    dataset: ray.data.Dataset,
    members: pa.Array,
    chosen: Mapping[str, PixelSelection],
    inputs: Mapping[str, InputSpec],
    label: LabelSpec,
) -> ray.data.Dataset:
    """Return the members of a split with the masks of their selected pixels; all pixels for samples without a selection."""
    # Only the selections of the split are sent to the workers.
    ids = set(members.to_pylist())
    selected = {sample_id: pixels for sample_id, pixels in chosen.items() if sample_id in ids}
    spec = inputs["depth"]

    def add_column(batch: pa.Table) -> pa.Table:
        batch = batch.filter(pc.is_in(batch.column("sample_id"), members))
        rows = zip(batch.column("sample_id").to_pylist(), batch.column("depth").to_pylist(), strict=True)
        masks = [_encode_mask(depth, selected.get(sample_id), spec, label) for sample_id, depth in rows]
        return batch.append_column("mask", pa.array(masks, pa.large_binary()))

    return dataset.map_batches(add_column, batch_format="pyarrow", batch_size=None)


def _encode_mask(depth: bytes, chosen: PixelSelection | None, spec: InputSpec, label: LabelSpec) -> bytes:
    if chosen is None:
        mask = np.ones(spec.shape[1:], np.bool_)
    else:
        mask = make_mask(decode_images([depth], spec, name="depth")[0, 0], chosen, label)
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG")
    return stream.getvalue()
