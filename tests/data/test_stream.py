"""Run with `pytest tests/data/test_stream.py`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from dirtune.data.cache import ResidentData
from dirtune.data.store import read_manifest, write_dataset
from dirtune.data.stream import fetch, materialise, read_directly
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.storage import Storage

CPU = torch.device("cpu")
LABEL = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)
SPLITS = {"train": 5, "val": 2, "test": 3}

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_session"),
    # Ray sets its own deprecated settings when it makes its first DataContext.
    pytest.mark.filterwarnings(
        r"ignore:.use_\w+. is deprecated:DeprecationWarning:ray.data.context"
    ),
]


def _same(one: ResidentData, other: ResidentData) -> None:
    assert list(one.splits) == list(other.splits)
    for name, split in one.splits.items():
        assert split.sample_ids == other.splits[name].sample_ids
        assert torch.equal(split.inputs["image"], other.splits[name].inputs["image"])
        assert torch.equal(split.labels, other.splits[name].labels)
        assert torch.equal(split.label_bins, other.splits[name].label_bins)


def test_blocks_from_the_object_store_are_what_is_on_disk(digits: Path) -> None:
    storage = Storage.at(digits)
    manifest = read_manifest(storage, "digits")
    streamed = fetch(manifest, materialise(storage, manifest), CPU)
    assert {name: len(split) for name, split in streamed.splits.items()} == {
        "train": 4809,
        "val": 600,
        "test": 1200,
    }
    _same(streamed, read_directly(storage, manifest, CPU))


def _pixels() -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    return {
        split: drawn.integers(0, 256, (rows, 6, 4, 3)).astype(np.uint8)
        for split, rows in SPLITS.items()
    }


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    """A set of PNG images in three splits."""
    import ray.data

    storage = Storage.at(tmp_path_factory.mktemp("data"))
    datasets = {}
    for split, images in _pixels().items():
        rows = []
        for at, image in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            rows.append({"sample_id": f"{split}{at}", "label": at, "image": stream.getvalue()})
        datasets[split] = ray.data.from_items(rows, override_num_blocks=2)
    manifest = write_dataset(
        storage, "faces", datasets, label=LABEL,
        inputs={"image": InputSpec(kind="image", shape=(3, 6, 4), encoding="png")},
        shot_rules={"counts": ShotRule()}, default_shot_rule="counts", source={},
    )  # fmt: skip
    return storage, manifest


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_encoded_images_are_decoded_once_for_all_if_their_pixels_fit(
    faces: tuple[Storage, Manifest], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr("dirtune.data.stream.DECODED_SHARE", share)
    storage, manifest = faces
    blocks = materialise(storage, manifest)
    types = {block.schema.field("image").type for block in ray.get(blocks)}
    assert types == {pa.binary(72) if share else pa.large_binary()}
    streamed = fetch(manifest, blocks, CPU)
    for split, images in _pixels().items():
        np.testing.assert_array_equal(
            streamed.splits[split].inputs["image"].numpy(), images.transpose(0, 3, 1, 2)
        )
    _same(streamed, read_directly(storage, manifest, CPU))
