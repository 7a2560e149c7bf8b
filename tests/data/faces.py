"""Small data set of PNG images in several row groups, written like an ingest, but without Ray."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from dirtune.data.columns import to_arrow
from dirtune.data.verify import hash_digests, read_shards
from dirtune.io.storage import Storage
from dirtune.manifest import MANIFEST, InputSpec, LabelSpec, Manifest, ShotRule

LABEL = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)
SIZES = {"train": 61, "val": 7, "test": 12}
SHAPE = (3, 48, 40)
ROWS_PER_GROUP = 4


def pixels(split: str) -> np.ndarray:
    """Return the images of a split by sample id, `(rows, *SHAPE)`: large patches, so that files are smaller than pixels."""
    drawn = np.random.default_rng(list(SIZES).index(split))
    patches = drawn.integers(0, 256, (SIZES[split], 3, 2, 2)).astype(np.uint8)
    return patches.repeat(SHAPE[1] // 2, axis=2).repeat(SHAPE[2] // 2, axis=3)


def ids(split: str) -> list[str]:
    return [f"{split}-{row:03d}" for row in range(SIZES[split])]


def write_faces(root: Path) -> tuple[Storage, Manifest]:
    """Write images and a vector, in two files per split and row groups of four; no file is sorted by sample id."""
    specs = {
        "image": InputSpec(kind="image", shape=SHAPE, encoding="png"),
        "vector": InputSpec(kind="vector", shape=(2,)),
    }
    storage = Storage.open(root)
    home, rows = storage.get_folder("faces"), {}
    for split, size in SIZES.items():
        mixed = np.random.default_rng(9).permutation(size)
        files = []
        for number, part in enumerate(np.array_split(mixed, 2)):
            files.append(f"version-1/{split}/part_{number}.parquet")
            Path(home.path(files[-1])).parent.mkdir(parents=True, exist_ok=True)
            table = to_arrow(_columns(split, part), specs)
            pq.write_table(table, home.path(files[-1]), row_group_size=ROWS_PER_GROUP)
        rows[split] = read_shards(home, split, files, specs)
    manifest = Manifest(
        name="faces",
        inputs=specs,
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={split: found.make_split_info(LABEL) for split, found in rows.items()},
        content_hash=hash_digests(found.content_digests for found in rows.values()),
        split_fingerprint=hash_digests(found.split_digests for found in rows.values()),
    )
    home.write(MANIFEST, manifest.model_dump_json().encode())
    return storage, manifest


def _columns(split: str, rows: np.ndarray) -> dict[str, np.ndarray]:
    names, images = ids(split), pixels(split)
    return {
        "sample_id": np.array([names[row] for row in rows], dtype=object),
        "label": rows / 10,
        "image": np.array([_png(images[row]) for row in rows], dtype=object),
        "vector": np.stack([rows, rows + 0.5], axis=1).astype(np.float32),
    }


def _png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
    return stream.getvalue()
