"""Run with `pytest tests/data/test_blocks.py`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from dirtune.data.blocks import DECODES, Blocks, fetch, materialize, read_without_ray
from dirtune.data.cache import ResidentData, ResidentSplit, make_epoch_order, make_train_batches
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.data.streaming import StreamedSplit
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.recipe import Views
from tests.data.faces import SHAPE, SIZES, pixels, write_faces

CPU = torch.device("cpu")
NOTHING = MemoryBudget(device_bytes=0, host_bytes=0, threads=2)
TOTAL = sum(SIZES.values())
PIXELS = math.prod(SHAPE)
BUDGETS = {"decoded": 10**7, "encoded": TOTAL * PIXELS // 2, "on disk": 0}

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def _same(one: ResidentData, other: ResidentData) -> None:
    assert list(one.splits) == list(other.splits)
    for name, split in one.splits.items():
        assert split.sample_ids == other.splits[name].sample_ids
        assert torch.equal(split.labels, other.splits[name].labels)
        assert torch.equal(split.label_bins, other.splits[name].label_bins)
        rows = torch.arange(len(split)).split(100)
        pairs = zip(split.read(rows), other.splits[name].read(rows), strict=True)
        assert all(torch.equal(first["image"], second["image"]) for first, second in pairs)


@pytest.mark.parametrize("reader", ["the driver", "Ray Data"])
def test_blocks_from_the_object_store_equal_the_data_on_disk(
    digits: Path, reader: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reader == "Ray Data":
        monkeypatch.setattr("dirtune.data.blocks.DIRECT_BYTES", 0)
    else:
        monkeypatch.setattr("ray.data.read_parquet", None)
    storage = Storage.open(digits)
    manifest = read_manifest(storage, "digits")
    fetched = fetch(manifest, materialize(storage, manifest), CPU)
    assert {name: len(split) for name, split in fetched.splits.items()} == {"train": 4809, "val": 600, "test": 1200}
    assert all(isinstance(split, ResidentSplit) for split in fetched.splits.values())
    _same(fetched, read_without_ray(storage, manifest, CPU))


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Manifest]:
    return write_faces(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("name", BUDGETS)
def test_decoded_encoded_and_streamed_sets_are_equal(faces: tuple[Storage, Manifest], name: str) -> None:
    import ray

    storage, manifest = faces
    blocks = materialize(storage, manifest, budget_bytes=BUDGETS[name])
    if name == "on disk":
        assert blocks.references is None
    else:
        types = {block.schema.field("image").type for block in ray.get(list(blocks.references))}
        assert types == {pa.binary(PIXELS) if name == "decoded" else pa.large_binary()}
    for budget, kind in ((NOTHING, StreamedSplit), (None, ResidentSplit)):
        data = fetch(manifest, blocks, CPU, budget)
        assert all(isinstance(split, kind) for split in data.splits.values())
        for split in SIZES:
            (inputs,) = data.splits[split].read([torch.arange(SIZES[split])])
            assert torch.equal(inputs["image"], torch.from_numpy(pixels(split)))
        _same(data, read_without_ray(storage, manifest, CPU))


def test_a_worker_reads_from_disk_if_blocks_do_not_arrive(
    faces: tuple[Storage, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after the loss of a node, when no CPU is free for the tasks that would read its blocks again."""
    import ray

    storage, manifest = faces
    there = materialize(storage, manifest).references
    assert there is not None
    lost = ray.remote(num_cpus=99)(lambda: None).remote()
    monkeypatch.setattr("dirtune.data.blocks.ARRIVAL_TIMEOUT", 0.5)
    _same(fetch(manifest, Blocks(storage, (*there, lost)), CPU), read_without_ray(storage, manifest, CPU))
    ray.cancel(lost, force=True)


def test_two_workers_of_a_node_share_images_decoded_once(faces: tuple[Storage, Manifest]) -> None:
    import ray

    storage, manifest = faces
    blocks = materialize(storage, manifest)

    class Worker:
        """The data set of a trial worker, in its own process."""

        def __init__(self, budget: MemoryBudget) -> None:
            self.data = fetch(manifest, blocks, CPU, budget)

        def train_epochs(self) -> dict[str, Any]:
            split, digests = self.data.splits["train"], []
            for epoch in (1, 2):
                batches = make_train_batches(
                    split,
                    torch.ones(len(split)),
                    make_epoch_order(0, epoch, len(split)),
                    batch_size=16,
                    views=Views(augmentation="light"),
                    seed=0,
                    epoch=epoch,
                )
                digests.append(sum(batch.views[0]["image"].double().sum() for batch in batches))
            chunks = split.chunks.chunks.values()
            return {
                "decoded": self.data.decoded.images,
                # Arrays in the object store are read-only (flag W).
                "own memory": any(chunk["image"].flags["W"] for chunk in chunks),
                "sums": [float(digest) for digest in digests],
            }

    workers = [ray.remote(num_cpus=0)(Worker).remote(NOTHING) for _ in range(2)]
    first, second = ray.get([worker.train_epochs.remote() for worker in workers])
    decodes = [row for block in ray.get(list(blocks.references)) for row in block[DECODES].to_pylist()]
    assert decodes == [1] * TOTAL
    assert first == second
    assert (first["decoded"], first["own memory"]) == (0, False)
