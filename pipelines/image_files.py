"""Image files, resized and encoded with Ray Data: each is opened once, and what is wrong with one stops no other.

Trade-off: the encoded images are kept in Ray's object store, which spills to disk, until the data set is written, because
only when all are read is known which of them cannot be used, and which are the same.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray.data
from PIL import Image

from dirtune.data.images import encode, resized
from dirtune.errors import Fault
from dirtune.manifest import InputSpec

_IMAGES_PER_TASK = 512
_IMAGE, _CONTENT, _FAULT = "image", "content", "fault"


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """The rows of a table with their images."""

    dataset: ray.data.Dataset
    """The table with `image`, empty where there is a fault."""
    contents: dict[str, bytes]
    """Digest of the encoded image by sample id; rows with a fault are missing."""
    faults: list[Fault]
    """Sorted by file."""


def encoded_images(table: pa.Table, folder: Path, spec: InputSpec) -> EncodedImages:
    """Open, resize and encode the image of every row.

    Args:
        table: its column `sample_id` is the path of the image below `folder`, which all workers must reach.
        spec: size, colors and encoding.
    """
    blocks = max(1, math.ceil(table.num_rows / _IMAGES_PER_TASK))
    dataset = ray.data.from_arrow(table, override_num_blocks=blocks)
    settings = {"folder": folder, "spec": spec}
    dataset = dataset.map_batches(_encode, fn_kwargs=settings, batch_format="pyarrow").materialize()
    contents, rules = {}, {}
    found = dataset.select_columns(["sample_id", _CONTENT, _FAULT])
    for batch in found.iter_batches(batch_format="pyarrow", batch_size=None):
        rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
        for sample_id, content, rule in rows:
            if rule is None:
                contents[sample_id] = content
            else:
                rules[sample_id] = rule
    faults = [Fault(where=str(folder / path), rule=rules[path]) for path in sorted(rules)]
    return EncodedImages(dataset=dataset, contents=contents, faults=faults)


def _encode(batch: pa.Table, folder: Path, spec: InputSpec) -> pa.Table:
    results = [_encode_one(folder / path, spec) for path in batch.column("sample_id").to_pylist()]
    images = [image for image, _ in results]
    columns = {
        _IMAGE: pa.array(images, pa.large_binary()),
        _CONTENT: pa.array([hashlib.sha256(image).digest() for image in images], pa.binary(32)),
        _FAULT: pa.array([rule for _, rule in results], pa.string()),
    }
    for name, column in columns.items():
        batch = batch.append_column(name, column)
    return batch


def _encode_one(path: Path, spec: InputSpec) -> tuple[bytes, str | None]:
    """The encoded image, and the rule that the file breaks."""
    try:
        with Image.open(path) as image:
            return encode(resized(image, spec), spec), None
    except FileNotFoundError:
        return b"", "no such image"
    # What Pillow's readers raise on damaged files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return b"", f"the image cannot be read ({error})"
