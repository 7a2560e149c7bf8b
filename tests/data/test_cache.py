"""Run with `pytest tests/data/test_cache.py`."""

from __future__ import annotations

import numpy as np
import torch

from dirtune.config import Views
from dirtune.data.cache import (
    ResidentSplit,
    epoch_order,
    extend_digest,
    resident,
    share,
    train_batches,
)
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo


def manifest() -> Manifest:
    split = SplitInfo(files=("a",), rows=3, bin_counts=(150, 50, 2))
    return Manifest(
        name="toy", inputs={"x": InputSpec(kind="vector", shape=(2,))},
        label=LabelSpec(name="y", unit="m", low=0, high=3, bin_width=1, num_bins=3),
        shot_rules={"counts": ShotRule()}, default_shot_rule="counts",
        splits={"train": split, "val": split}, content_hash="c" * 64, split_fingerprint="s" * 64,
    )  # fmt: skip


def columns() -> dict[str, np.ndarray]:
    return {
        "sample_id": np.array(["c", "a", "b"], dtype=object),
        "label": np.array([2.5, 0.1, 1.25]),
        "x": np.array([[3, 3], [1, 1], [2, 2]], dtype=np.float32),
    }


def resident_split(rows: int) -> ResidentSplit:
    data = {"sample_id": np.array([f"{i:03d}" for i in range(rows)], dtype=object),
            "label": np.arange(rows) / rows, "x": np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)}  # fmt: skip
    return resident(manifest(), {"train": data}, torch.device("cpu")).splits["train"]


def batches(split: ResidentSplit, rank: int = 0, world: int = 1, epoch: int = 1):
    order = epoch_order(7, epoch, len(split))
    return list(
        train_batches(split, torch.ones(len(split)), order, batch_size=8, views=Views(count=2),
                      seed=7, epoch=epoch, rank=rank, world=world)
    )  # fmt: skip


def test_rows_are_sorted_by_sample_id_whatever_the_order_of_the_blocks() -> None:
    split = resident(manifest(), {"train": columns()}, torch.device("cpu")).splits["train"]
    assert split.sample_ids == ("a", "b", "c")
    assert split.inputs["x"].tolist() == [[1, 1], [2, 2], [3, 3]]
    assert split.exact_labels.tolist() == [0.1, 1.25, 2.5]
    assert split.label_bins.tolist() == [0, 1, 2]


def test_regions_follow_the_training_counts() -> None:
    data = resident(manifest(), {"train": columns(), "val": columns()}, torch.device("cpu"))
    assert data.regions("val", "counts").tolist() == ["many", "medium", "few"]


def test_an_epoch_holds_every_row_once_and_epochs_differ() -> None:
    split = resident_split(21)
    rows = [row for batch in batches(split) for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(21))
    assert [len(batch.rows) for batch in batches(split)] == [8, 8, 5]
    assert rows != [row for batch in batches(split, epoch=2) for row in batch.rows.tolist()]


def test_a_batch_holds_what_belongs_to_its_rows() -> None:
    split = resident_split(21)
    for batch in batches(split):
        assert torch.equal(batch.labels, split.labels[batch.rows])
        assert torch.equal(batch.views[0]["x"], split.inputs["x"][batch.rows])
        assert len(batch.views) == 2


def test_ranks_share_the_same_global_batches() -> None:
    split = resident_split(21)
    for world in (2, 3, 4):
        parts = [batches(split, rank, world) for rank in range(world)]
        for step, batch in enumerate(batches(split)):
            together = torch.cat([parts[rank][step].rows for rank in range(world)])
            assert torch.equal(together, batch.rows)


def test_shares_are_disjoint_complete_and_nearly_equal() -> None:
    for total in (0, 1, 7, 64):
        for world in (1, 2, 5):
            shares = [share(total, rank, world) for rank in range(world)]
            assert [at for start, stop in shares for at in range(start, stop)] == list(range(total))
            sizes = [stop - start for start, stop in shares]
            assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_seed_and_epoch_alone_and_its_digest_on_all_epochs() -> None:
    assert torch.equal(epoch_order(1, 2, 50), epoch_order(1, 2, 50))
    assert not torch.equal(epoch_order(1, 2, 50), epoch_order(2, 2, 50))
    one = extend_digest("", epoch_order(1, 1, 50))
    assert extend_digest(one, epoch_order(1, 2, 50)) != extend_digest(one, epoch_order(1, 3, 50))
    assert len(one) == 16
