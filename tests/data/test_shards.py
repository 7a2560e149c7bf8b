"""Run with `pytest tests/data/test_shards.py`: shards of this process are those of Ray Data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dirtune.data.columns import Columns
from dirtune.data.shards import write_shards
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec

INPUTS = {"features": InputSpec(kind="vector", shape=(3,))}


def _batch(rows: int) -> Columns:
    drawn = np.random.default_rng(rows)
    return {
        "sample_id": np.array([f"row-{row}" for row in range(rows)], dtype=object),
        "label": drawn.normal(size=rows),
        "group": np.array([str(row % 3) for row in range(rows)], dtype=object),
        "features": drawn.normal(size=(rows, 3)).astype(np.float32),
    }


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_the_bytes_are_those_of_ray_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.data

    # Two full row groups and a part of one
    monkeypatch.setattr("dirtune.data.shards.ROW_GROUP_BYTES", 20 * 12)
    home, batch = Storage.open(tmp_path), _batch(50)
    dataset = ray.data.from_numpy(np.zeros(1)).map_batches(lambda _: batch, batch_size=None)
    (by_ray,) = write_shards(home, "ray", dataset, INPUTS, has_groups=True)
    (own,) = write_shards(home, "own", iter([batch]), INPUTS, has_groups=True)
    assert home.read(own) == home.read(by_ray)
    assert pq.ParquetFile(tmp_path / own).metadata.num_row_groups == 3


def test_batches_are_joined_until_a_shard_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = [_batch(rows) for rows in (40, 41, 42, 43, 44)]
    # More than one batch has, and less than two
    monkeypatch.setattr("dirtune.data.shards.SHARD_BYTES", 1900)
    files = write_shards(Storage.open(tmp_path), "train", iter(batches), INPUTS)
    assert [pq.ParquetFile(tmp_path / file).metadata.num_rows for file in files] == [81, 85, 44]
    labels = np.concatenate([pq.read_table(tmp_path / file)["label"].to_numpy() for file in files])
    np.testing.assert_array_equal(labels, np.concatenate([batch["label"] for batch in batches]))
