"""Run with `pytest tests/data/test_shards.py`: shards of this process are those of Ray Data."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dirtune.data.columns import Columns
from dirtune.data.shards import ShardWriter, write_batches
from dirtune.data.verify import SplitRows
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec

INPUTS = {"features": InputSpec(kind="vector", shape=(3,))}
LABEL = LabelSpec(name="age", unit="years", low=-9, high=9, bin_width=1, num_bins=18)


def _batch(rows: int) -> Columns:
    drawn = np.random.default_rng(rows)
    return {
        "sample_id": np.array([f"row-{row}" for row in range(rows)], dtype=object),
        "label": drawn.normal(size=rows),
        "group": np.array([str(row % 3) for row in range(rows)], dtype=object),
        "features": drawn.normal(size=(rows, 3)).astype(np.float32),
    }


def _make_writer(root: Path, folder: str, *, has_groups: bool = False) -> ShardWriter:
    home = Storage.open(root)
    return ShardWriter(home=home, folder=folder, split="train", inputs=INPUTS, label=LABEL, has_groups=has_groups)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_bytes_are_those_of_ray_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.data

    from dirtune.data.shard_sink import write_dataset_shards

    # Two full row groups and a part of one
    monkeypatch.setattr("dirtune.data.shards.ROW_GROUP_BYTES", 20 * 12)
    home, batch = Storage.open(tmp_path), _batch(50)
    dataset = ray.data.from_numpy(np.zeros(1)).map_batches(lambda _: batch, batch_size=None)
    by_ray = write_dataset_shards(_make_writer(tmp_path, "ray", has_groups=True), dataset)
    own = write_batches(_make_writer(tmp_path, "own", has_groups=True), iter([batch]))
    (file,) = own.files
    assert home.read(file) == home.read(*by_ray.files)
    assert pq.ParquetFile(tmp_path / file).metadata.num_row_groups == 3
    assert own.content_digests == by_ray.content_digests


class _WriterElsewhere(ShardWriter):
    """Writes to a disk that the driver does not reach."""

    def write(self, number: int, table: pa.Table) -> SplitRows:
        found = super().write(number, table)
        self.home.remove(self.folder)
        return found


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_a_shard_on_the_disk_of_a_worker_alone_is_reported(tmp_path: Path) -> None:
    import ray.data

    from dirtune.data.shard_sink import write_dataset_shards

    writer, batch = _make_writer(tmp_path, "train"), _batch(5)
    dataset = ray.data.from_numpy(np.zeros(1)).map_batches(lambda _: batch, batch_size=None)
    elsewhere = _WriterElsewhere(**{field.name: getattr(writer, field.name) for field in fields(writer)})
    with pytest.raises(InputError, match=r"/train: a worker has written a file that is not found here"):
        write_dataset_shards(elsewhere, dataset)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [(InputSpec(kind="image", shape=(1, 8, 8)), "UNCOMPRESSED"), (InputSpec(kind="vector", shape=(3,)), "ZSTD")],
)
def test_images_are_not_compressed(spec: InputSpec, expected: str, tmp_path: Path) -> None:
    writer = ShardWriter(
        home=Storage.open(tmp_path), folder="train", split="train", inputs={"x": spec}, label=LABEL, has_groups=False
    )
    values = np.zeros((40, *spec.shape), np.uint8 if spec.kind == "image" else np.float32)
    found = writer.write(0, writer.convert({**_batch(40), "x": values}))
    columns = pq.ParquetFile(tmp_path / found.files[0]).metadata.row_group(0).to_dict()["columns"]
    assert {each["compression"] for each in columns} == {expected}


def test_batches_are_joined_until_a_shard_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [_batch(rows) for rows in (40, 41, 42, 43, 44)]
    # More than one batch has, and less than two
    monkeypatch.setattr("dirtune.data.shards.SHARD_BYTES", 1900)
    found = write_batches(_make_writer(tmp_path, "train"), iter(batches))
    files = found.files
    assert len(found) == 210
    assert [pq.ParquetFile(tmp_path / file).metadata.num_rows for file in files] == [81, 85, 44]
    labels = np.concatenate([pq.read_table(tmp_path / file)["label"].to_numpy() for file in files])
    np.testing.assert_array_equal(labels, np.concatenate([batch["label"] for batch in batches]))
