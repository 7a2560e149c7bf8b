"""Image files, resized and encoded with Ray Data: each is opened once, and a fault of one does not stop the others.

Trade-off: the encoded images are kept in Ray's object store, which spills to disk, until the data set is written, because
faults and duplicates are known only after all images have been read.
"""

import hashlib
import math
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import ray.data
from PIL import Image

from dirtune.data.images import convert_image, encode_image
from dirtune.errors import Fault
from dirtune.manifest import InputSpec

_IMAGES_PER_TASK = 512
_IMAGE, _CONTENT, _FAULT = "image", "content", "fault"


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """Rows of a table with their images."""

    dataset: ray.data.Dataset
    """The table with `image`, empty for a row with a fault."""
    contents: dict[str, bytes]
    """SHA-256 of the encoded image by sample id, without the rows with a fault."""
    faults: list[Fault]
    """Sorted by file."""


def encode_images(table: pa.Table, folder: Path, spec: InputSpec) -> EncodedImages:
    """Open, resize and encode the image of every row.

    Args:
        table: its column `sample_id` is the path of the image below `folder`.
        folder: must be accessible to all workers.
        spec: size, colors and encoding.
    """
    blocks = max(1, math.ceil(table.num_rows / _IMAGES_PER_TASK))
    dataset = ray.data.from_arrow(table, override_num_blocks=blocks)
    settings = {"folder": folder, "spec": spec}
    dataset = dataset.map_batches(_encode_batch, fn_kwargs=settings, batch_format="pyarrow").materialize()
    contents, rules = {}, {}
    # Without the image column, which stays in the object store
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


def _encode_batch(batch: pa.Table, folder: Path, spec: InputSpec) -> pa.Table:
    results = [_encode_file(folder / path, spec) for path in batch.column("sample_id").to_pylist()]
    images = [image for image, _ in results]
    columns = {
        _IMAGE: pa.array(images, pa.large_binary()),
        _CONTENT: pa.array([hashlib.sha256(image).digest() for image in images], pa.binary(32)),
        _FAULT: pa.array([rule for _, rule in results], pa.string()),
    }
    for name, column in columns.items():
        batch = batch.append_column(name, column)
    return batch


def _encode_file(path: Path, spec: InputSpec) -> tuple[bytes, str | None]:
    """Return the encoded image, and the rule that the file breaks."""
    try:
        with Image.open(path) as image:
            return encode_image(convert_image(image, spec), spec), None
    except FileNotFoundError:
        return b"", "no such image"
    # Pillow's readers raise SyntaxError and ValueError, too, for damaged files.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return b"", f"the image cannot be read ({error})"


def get_file_size(path: Path) -> int:
    """Return the size of a file in bytes; -1 if it does not exist or is not accessible."""
    try:
        return path.stat().st_size if path.is_file() else -1
    except OSError:
        return -1
