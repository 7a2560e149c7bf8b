"""Run with `pytest tests/data/test_streaming.py`: sets on disk and in memory, without Ray; with it: `test_blocks.py`."""

from __future__ import annotations

import gc
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dirtune.batch import Batch
from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import DecodeCount, ResidentData, ResidentSplit, Split, make_epoch_order, make_train_batches
from dirtune.data.columns import to_arrow
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.splits import compute_split_fingerprint
from dirtune.data.streaming import (
    Chunk,
    DiskChunks,
    MemoryChunks,
    StreamedSplit,
    make_streamed_split,
    map_with_prefetch,
    to_chunk,
)
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, Manifest
from dirtune.recipe import Views
from tests.data.faces import ROWS_PER_GROUP, SHAPE, SIZES, ids, pixels, write_faces

CPU = torch.device("cpu")
PLENTY = 10**9
BUDGETS = {
    "resident": MemoryBudget(device_bytes=PLENTY, host_bytes=PLENTY),
    "encoded in memory": MemoryBudget(device_bytes=0, host_bytes=PLENTY, threads=2),
    "on disk": MemoryBudget(device_bytes=0, host_bytes=0, threads=2),
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Storage, Manifest]:
    return write_faces(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def found(faces: tuple[Storage, Manifest]) -> dict[str, ResidentData]:
    return {name: read_without_ray(*faces, CPU, budget) for name, budget in BUDGETS.items()}


def epoch_of(split: Split, order: torch.Tensor, rank: int = 0, world: int = 1) -> list[Batch]:
    views = Views(count=2, augmentation="strong")
    return list(
        make_train_batches(
            split, torch.ones(len(split)), order, batch_size=16, views=views, seed=3, epoch=1, rank=rank, world=world
        )
    )


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.rows, other.rows)
        and torch.equal(one.labels, other.labels)
        and all(
            torch.equal(view[name], again[name])
            for view, again in zip(one.views, other.views, strict=True)
            for name in ("image", "vector")
        )
    )


# --- The data set of a worker


def test_the_budget_determines_the_location_of_the_inputs(found: dict[str, ResidentData]) -> None:
    assert all(isinstance(split, ResidentSplit) for split in found["resident"].splits.values())
    in_memory, on_disk = found["encoded in memory"].splits, found["on disk"].splits
    assert all(isinstance(split.chunks, MemoryChunks) for split in in_memory.values())
    assert all(isinstance(split.chunks, DiskChunks) for split in on_disk.values())


def test_the_smallest_splits_are_loaded_onto_the_device_first(faces: tuple[Storage, Manifest]) -> None:
    per_row = math.prod(SHAPE) + 8
    enough_for_two = per_row * (SIZES["val"] + SIZES["test"])
    budget = MemoryBudget(device_bytes=enough_for_two, host_bytes=PLENTY)
    data = read_without_ray(*faces, CPU, budget)
    resident = {name for name, split in data.splits.items() if isinstance(split, ResidentSplit)}
    assert resident == {"val", "test"}
    assert list(data.splits) == list(SIZES)


@pytest.mark.parametrize("name", BUDGETS)
def test_rows_are_sorted_by_sample_id_and_inputs_follow_them(found: dict[str, ResidentData], name: str) -> None:
    for split, rows in found[name].splits.items():
        assert list(rows.sample_ids) == ids(split)
        assert rows.exact_labels.tolist() == [row / 10 for row in range(SIZES[split])]
        assert rows.label_bins.tolist() == [row // 10 for row in range(SIZES[split])]
        wanted = [torch.tensor([5, 0]), torch.tensor([], dtype=torch.long), torch.tensor([6])]
        for batch, inputs in zip(wanted, rows.read(wanted), strict=True):
            expected = torch.from_numpy(pixels(split)[batch.numpy()])
            assert torch.equal(inputs["image"], expected)
            assert torch.equal(inputs["vector"], torch.stack([batch, batch + 0.5], dim=1))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_batches_do_not_depend_on_the_location_of_the_inputs(found: dict[str, ResidentData], world: int) -> None:
    order = found["resident"].splits["train"].make_order(3, 1, batch_size=16, world=world)
    assert torch.equal(order, make_epoch_order(3, 1, SIZES["train"]))
    for rank in range(world):
        expected, *others = (epoch_of(data.splits["train"], order, rank, world) for data in found.values())
        assert len(expected) == 4
        for other in others:
            assert all(same(*pair) for pair in zip(expected, other, strict=True))


def test_the_orders_of_sets_in_memory_are_equal_and_differ_from_disk(
    found: dict[str, ResidentData],
) -> None:
    resident, in_memory, on_disk = (
        data.splits["train"].make_order(3, 1, batch_size=16, world=2) for data in found.values()
    )
    assert torch.equal(resident, in_memory)
    assert not torch.equal(resident, on_disk)
    assert sorted(on_disk.tolist()) == list(range(SIZES["train"]))


def test_a_set_loaded_from_disk_onto_a_device_keeps_the_order_of_streamed_ones(
    faces: tuple[Storage, Manifest], found: dict[str, ResidentData]
) -> None:
    large_device = read_without_ray(*faces, CPU, MemoryBudget(device_bytes=PLENTY, host_bytes=0))
    train, streamed_train = large_device.splits["train"], found["on disk"].splits["train"]
    assert isinstance(train, ResidentSplit)
    order = streamed_train.make_order(3, 1, batch_size=16, world=2)
    assert torch.equal(order, train.make_order(3, 1, batch_size=16, world=2))
    batches = zip(epoch_of(train, order), epoch_of(streamed_train, order), strict=True)
    assert all(same(*pair) for pair in batches)


@pytest.mark.parametrize("name", BUDGETS)
def test_the_reading_order_covers_every_row_once_and_can_be_inverted(found: dict[str, ResidentData], name: str) -> None:
    split = found[name].splits["test"]
    order = split.reading_order
    parts = [inputs["image"] for inputs in split.read(order.split(5))]
    back = torch.cat(parts)[order.argsort()]
    assert torch.equal(back, torch.from_numpy(pixels("test")))


# --- Decoding


def test_a_resident_set_is_decoded_once_and_a_streamed_one_in_every_epoch(faces: tuple[Storage, Manifest]) -> None:
    total = sum(SIZES.values())
    for name, decoded in (("resident", [total] * 3), ("encoded in memory", [0, 61, 122])):
        data = read_without_ray(*faces, CPU, BUDGETS[name])
        counts = [data.decoded.images]
        for epoch in (1, 2):
            epoch_of(data.splits["train"], make_epoch_order(0, epoch, SIZES["train"]))
            counts.append(data.decoded.images)
        assert counts == decoded


def test_decoded_chunks_are_used_without_a_copy(faces: tuple[Storage, Manifest]) -> None:
    _, manifest = faces
    values = pa.array(np.arange(20, dtype=np.float32))
    batch = pa.record_batch({"vector": pa.FixedSizeListArray.from_arrays(values, 2)})
    specs = {"vector": manifest.inputs["vector"]}
    chunk = to_chunk(batch, specs)
    assert chunk["vector"].__array_interface__["data"][0] == values.buffers()[1].address

    places = np.stack([np.zeros(10, np.int64), np.arange(10)], axis=1)
    split = make_streamed_split(
        manifest.model_copy(update={"inputs": specs}),
        MemoryChunks({0: chunk}),
        np.array([f"{9 - row}" for row in range(10)], dtype=object),
        np.arange(10.0) / 2,
        places,
        device=CPU,
        threads=1,
        decoded=DecodeCount(),
    )
    assert split.is_shared
    (inputs,) = split.read([torch.tensor([0, 9])])
    assert inputs["vector"].tolist() == [[18, 19], [0, 1]]
    # A batch is a copy
    inputs["vector"].zero_()
    assert chunk["vector"][0].tolist() == [0, 1]


# --- On disk


@dataclass(frozen=True)
class RecordedChunks(DiskChunks):
    """Row groups that record when they are read."""

    reads: list[int] = field(default_factory=list)

    def _load(self, chunk: int) -> Chunk:
        self.reads.append(chunk)
        return super()._load(chunk)


def record_reads(split: StreamedSplit) -> tuple[StreamedSplit, RecordedChunks]:
    assert isinstance(split.chunks, DiskChunks)
    chunks = RecordedChunks(split.chunks.storage, split.chunks.groups, split.chunks.specs)
    return replace(split, chunks=chunks), chunks


def test_every_row_group_is_read_once_in_an_epoch(found: dict[str, ResidentData]) -> None:
    split, chunks = record_reads(found["on disk"].splits["train"])
    assert len(chunks.groups) == 2 * -(-31 // ROWS_PER_GROUP)
    for epoch in (1, 2):
        epoch_of(split, split.make_order(0, epoch, batch_size=16, world=1))
        assert sorted(chunks.reads) == sorted(list(range(len(chunks.groups))) * epoch)


def test_two_ranks_together_read_a_set_from_disk_about_once(found: dict[str, ResidentData]) -> None:
    split, chunks = record_reads(found["on disk"].splits["train"])
    order = split.make_order(0, 1, batch_size=16, world=2)
    rows = [batch.rows for rank in (0, 1) for batch in epoch_of(split, order, rank, 2)]
    assert sorted(torch.cat(rows).tolist()) == list(range(SIZES["train"]))
    assert len(chunks.reads) <= len(chunks.groups) + 1


def test_memory_stays_flat_over_the_epochs_of_a_set_on_disk(tmp_path: Path) -> None:
    """Vectors of 64 kB in 48 row groups: a window is a sixth of them."""
    storage, manifest = write_faces(tmp_path)
    spec, rows = {"vector": InputSpec(kind="vector", shape=(16_384,))}, 96
    columns = {
        "sample_id": np.array([f"{row:03d}" for row in range(rows)], dtype=object),
        "label": np.arange(rows) / 10,
        "vector": np.ones((rows, 16_384), np.float32),
    }
    file = manifest.splits["train"].files[0]
    pq.write_table(to_arrow(columns, spec), storage.path(f"faces/{file}"), row_group_size=2)
    info = manifest.splits["train"].model_copy(update={"files": (file,), "rows": rows})
    fingerprint = compute_split_fingerprint(np.array(["train"] * rows), columns["sample_id"], columns["label"])
    changes = {"inputs": spec, "splits": {"train": info}, "split_fingerprint": fingerprint}
    large = manifest.model_copy(update=changes)
    split = read_without_ray(storage, large, CPU, BUDGETS["on disk"]).splits["train"]

    before, peaks = pa.total_allocated_bytes(), []
    for epoch in range(1, 5):
        held = 0
        for _ in split.read(split.make_order(0, epoch, batch_size=8, world=1).split(8)):
            held = max(held, pa.total_allocated_bytes() - before)
        peaks.append(held)
        # What holds the last batch may wait to be collected
        gc.collect()
        assert pa.total_allocated_bytes() - before < 8 * 65_536
    # A window, and the one that is prefetched
    assert max(peaks) < 0.6 * rows * 65_536


def test_labels_that_were_changed_inside_a_shard_are_found(tmp_path: Path) -> None:
    storage, manifest = write_faces(tmp_path)
    file = storage.path(f"faces/{manifest.splits['val'].files[0]}")
    table = pq.read_table(file)
    labels = table["label"].to_numpy().copy()
    for changed in (np.nextafter(labels, 100), labels[::-1]):
        at = table.column_names.index("label")
        pq.write_table(table.set_column(at, "label", pa.array(changed)), file, write_page_checksum=True)
        for name in BUDGETS:
            with pytest.raises(
                InputError, match="faces: its shards have other ids or labels than those that were ingested"
            ):
                read_without_ray(storage, manifest, CPU, BUDGETS[name])
    # Rows may be in any order, and in other row groups
    pq.write_table(table.take(list(range(len(labels)))[::-1]), file, row_group_size=3)
    assert len(read_without_ray(storage, manifest, CPU).splits["val"]) == SIZES["val"]


def test_a_damaged_shard_or_a_missing_row_is_an_input_error(tmp_path: Path) -> None:
    storage, manifest = write_faces(tmp_path)
    data = read_without_ray(storage, manifest, CPU, BUDGETS["on disk"])
    path = Path(storage.path(f"faces/{manifest.splits['train'].files[0]}"))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 8])
    with pytest.raises(InputError, match=r"shard cannot be read .*; ingest the data set again"):
        list(data.splits["train"].read([torch.arange(61)]))
    with pytest.raises(InputError, match="shard cannot be read"):
        read_without_ray(storage, manifest, CPU)
    path.unlink()
    with pytest.raises(InputError, match="shard cannot be read"):
        read_without_ray(storage, manifest, CPU)
    path.write_bytes(content)
    short = manifest.splits["train"].model_copy(update={"rows": 62})
    changed = manifest.model_copy(update={"splits": {**manifest.splits, "train": short}})
    with pytest.raises(InputError, match="faces: train: 62 samples expected"):
        read_without_ray(storage, changed, CPU)


# --- Prefetching


def test_prefetched_results_are_in_order_and_at_most_depth_ahead() -> None:
    started: list[int] = []
    release = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item == 0:
            # The first one ends last
            release.wait(10)
        return item * item

    results = map_with_prefetch(work, range(9), threads=2, depth=3)
    threading.Timer(0.1, release.set).start()
    assert next(results) == 0
    assert max(started) <= 3
    assert list(results) == [item * item for item in range(1, 9)]


def test_an_error_is_raised_in_place_of_its_result() -> None:
    def work(item: int) -> float:
        return 1 / (2 - item)

    results = map_with_prefetch(work, range(4), threads=2, depth=2)
    assert [next(results), next(results)] == [0.5, 1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_an_abandoned_pass_ends_its_threads(found: dict[str, ResidentData]) -> None:
    split = found["on disk"].splits["train"]
    batches: Iterator[Mapping[str, torch.Tensor]] = split.read(torch.arange(61).split(4))
    next(batches)
    assert any(thread.name.startswith("prefetch") for thread in threading.enumerate())
    batches.close()  # type: ignore[attr-defined]
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())
