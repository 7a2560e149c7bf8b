"""Run with `pytest tests/data/test_cache.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dirtune.batch import Batch
from dirtune.data.cache import (
    WINDOW_GROUPS,
    ResidentData,
    ResidentSplit,
    get_rank_share,
    make_epoch_order,
    make_train_batches,
    make_windowed_order,
    update_digest,
)
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo
from dirtune.recipe import Views


def manifest() -> Manifest:
    split = SplitInfo(files=("a",), rows=3, bin_counts=(150, 50, 2))
    return Manifest(
        name="toy",
        inputs={"x": InputSpec(kind="vector", shape=(2,))},
        label=LabelSpec(name="y", unit="m", low=0, high=3, bin_width=1, num_bins=3),
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        splits={"train": split, "val": split},
        content_hash="c" * 64,
        split_fingerprint="s" * 64,
    )


def split_of(rows: int) -> ResidentSplit:
    labels = np.arange(rows, dtype=np.float64)
    return ResidentSplit(
        sample_ids=tuple(f"{row:03d}" for row in range(rows)),
        exact_labels=labels,
        labels=torch.from_numpy(labels).float(),
        label_bins=torch.arange(rows) % 3,
        inputs={"x": torch.arange(2.0 * rows).reshape(rows, 2)},
    )


def batches(
    split: ResidentSplit,
    rank: int = 0,
    world: int = 1,
    epoch: int = 1,
    accumulation: int = 1,
    augmentation: str = "none",
    steps: range | None = None,
) -> list[Batch]:
    order = split.make_order(7, epoch, batch_size=8, world=world)
    return list(
        make_train_batches(
            split,
            torch.ones(len(split)),
            order,
            batch_size=8,
            views=Views(count=2, augmentation=augmentation),
            seed=7,
            epoch=epoch,
            rank=rank,
            world=world,
            accumulation=accumulation,
            steps=steps,
        )
    )


def test_regions_follow_the_training_counts() -> None:
    split = split_of(3)
    data = ResidentData(manifest=manifest(), device=torch.device("cpu"), splits={"val": split})
    assert data.get_regions("val", "counts").tolist() == ["many", "medium", "few"]


def test_an_epoch_contains_every_row_once_and_epochs_differ() -> None:
    split = split_of(21)
    rows = [row for batch in batches(split) for row in batch.rows.tolist()]
    assert sorted(rows) == list(range(21))
    assert [len(batch.rows) for batch in batches(split)] == [8, 8, 5]
    assert rows != [row for batch in batches(split, epoch=2) for row in batch.rows.tolist()]


def test_a_batch_holds_the_labels_bins_and_inputs_of_its_rows() -> None:
    split = split_of(21)
    for batch in batches(split):
        assert torch.equal(batch.labels, split.labels[batch.rows])
        assert torch.equal(batch.label_bins, split.label_bins[batch.rows])
        assert torch.equal(batch.views[0]["x"], split.inputs["x"][batch.rows])
        assert len(batch.views) == 2


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("steps", [range(1), range(1, 3), range(2, 3), range(3)])
def test_some_steps_are_those_of_the_whole_pass(steps: range, accumulation: int) -> None:
    images = torch.randint(0, 256, (21, 1, 12, 12), dtype=torch.uint8)
    split = replace(split_of(21), inputs={"image": images})
    whole = batches(split, accumulation=accumulation, augmentation="shift")
    ends = [0, *(at + 1 for at, batch in enumerate(whole) if batch.ends_step)]
    found = batches(split, accumulation=accumulation, augmentation="shift", steps=steps)
    expected = whole[ends[steps.start] : ends[steps.stop]]
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.rows, other.rows)
        assert (one.share, one.ends_step) == (other.share, other.ends_step)
        for view, same_view in zip(one.views, other.views, strict=True):
            assert torch.equal(view["image"], same_view["image"])


def test_ranks_share_the_same_global_batches() -> None:
    split = split_of(21)
    for world in (2, 3, 4):
        parts = [batches(split, rank, world) for rank in range(world)]
        for step, batch in enumerate(batches(split)):
            together = torch.cat([parts[rank][step].rows for rank in range(world)])
            assert torch.equal(together, batch.rows)


def joined(parts: list[Batch]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The rows and the views of several batches as those of one."""
    views = zip(*(batch.views for batch in parts), strict=True)
    images = [torch.cat([view["image"] for view in of_batches]) for of_batches in views]
    return torch.cat([batch.rows for batch in parts]), images


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize(("accumulation", "sizes"), [(2, [4, 4, 4, 4, 4, 1]), (8, [1] * 21)], ids=["two", "one by one"])
def test_concatenated_micro_batches_equal_the_batch_with_the_same_views(
    accumulation: int, sizes: list[int], world: int
) -> None:
    split = split_of(21)
    images = torch.randint(0, 256, (21, 1, 12, 12), dtype=torch.uint8)
    split = replace(split, inputs={"image": images})
    whole = batches(split, augmentation="shift")
    ranks = [batches(split, rank, world, accumulation=accumulation, augmentation="shift") for rank in range(world)]
    # By micro-batch, the parts of all ranks
    micro = list(zip(*ranks, strict=True))
    assert [sum(len(part.rows) for part in parts) for parts in micro] == sizes
    ends = [at for at, parts in enumerate(micro, start=1) if all(part.ends_step for part in parts)]
    assert sum(part.ends_step for parts in micro for part in parts) == world * len(whole)
    for start, end, batch in zip([0, *ends[:-1]], ends, whole, strict=True):
        of_step = micro[start:end]
        rows, views = joined([part for parts in of_step for part in parts])
        assert torch.equal(rows, batch.rows)
        torch.testing.assert_close(views, [view["image"] for view in batch.views], rtol=0, atol=0)
        shares = [parts[0].share for parts in of_step]
        assert shares == [sum(len(part.rows) for part in parts) / len(rows) for parts in of_step]
        assert sum(shares) == pytest.approx(1.0, abs=1e-12)


def test_shares_are_disjoint_complete_and_nearly_equal() -> None:
    for total in (0, 1, 7, 64):
        for world in (1, 2, 5):
            shares = [get_rank_share(total, rank, world) for rank in range(world)]
            assert [at for start, stop in shares for at in range(start, stop)] == list(range(total))
            sizes = [stop - start for start, stop in shares]
            assert max(sizes) - min(sizes) <= 1


def test_the_order_depends_on_seed_and_epoch_and_its_digest_on_all_epochs() -> None:
    assert torch.equal(make_epoch_order(1, 2, 50), make_epoch_order(1, 2, 50))
    assert not torch.equal(make_epoch_order(1, 2, 50), make_epoch_order(2, 2, 50))
    one = update_digest("", make_epoch_order(1, 1, 50))
    assert update_digest(one, make_epoch_order(1, 2, 50)) != update_digest(one, make_epoch_order(1, 3, 50))
    assert len(one) == 16


# --- The order of a set on disk

# 80 row groups, of rows in any order
GROUPS = tuple(make_epoch_order(5, 0, 2000).split(25))


def windowed(seed: int = 0, epoch: int = 1, world: int = 1) -> torch.Tensor:
    return make_windowed_order(GROUPS, seed, epoch, batch_size=64, world=world)


def parts_of(order: torch.Tensor, world: int) -> list[list[torch.Tensor]]:
    """The rows of each rank, by step."""
    return [[rows[slice(*get_rank_share(len(rows), rank, world))] for rows in order.split(64)] for rank in range(world)]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_windowed_order_assigns_every_row_to_one_rank_in_equal_shares(world: int) -> None:
    parts = parts_of(windowed(world=world), world)
    rows = torch.cat([part for of_rank in parts for part in of_rank])
    assert sorted(rows.tolist()) == list(range(2000))
    for step in zip(*parts, strict=True):
        sizes = [len(part) for part in step]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [1, 2, 3])
def test_a_windowed_order_needs_few_row_groups_at_a_time_and_ranks_share_none(world: int) -> None:
    group_of = {row: at for at, rows in enumerate(GROUPS) for row in rows.tolist()}
    read_by: list[set[int]] = []
    for of_rank in parts_of(windowed(world=world), world):
        steps = [{group_of[row] for row in rows.tolist()} for rows in of_rank]
        last = {group: step for step, groups in enumerate(steps) for group in groups}
        first = {group: step for step, groups in reversed(list(enumerate(steps))) for group in groups}
        alive = [sum(first[g] <= step <= last[g] for g in last) for step in range(len(steps))]
        # One window, and at its border the one that follows; stretches may begin inside of a group.
        assert max(alive) <= 2 * WINDOW_GROUPS + 2
        read_by.append(set(last))
    twice = sum(len(read) for read in read_by) - len(set.union(*read_by))
    assert twice <= world - 1


def test_a_windowed_order_shuffles_rows_within_windows_and_the_groups() -> None:
    order = windowed()
    assert torch.equal(order, windowed())
    assert not torch.equal(order, windowed(epoch=2))
    assert not torch.equal(order, windowed(seed=1))
    group_of = torch.empty(2000, dtype=torch.long)
    for at, rows in enumerate(GROUPS):
        group_of[rows] = at
    window = group_of[order[: 25 * WINDOW_GROUPS]]
    assert len(window.unique()) == WINDOW_GROUPS
    assert window.unique().tolist() != list(range(WINDOW_GROUPS))
    # Neighbors are mostly of other groups
    assert (window.diff() != 0).float().mean() > 0.7


def test_the_reading_order_follows_the_row_groups_on_disk_and_the_rows_in_memory() -> None:
    split = split_of(6)
    assert split.reading_order.tolist() == [0, 1, 2, 3, 4, 5]
    rows = {name: getattr(split, name) for name in ("sample_ids", "labels", "label_bins")}
    groups = (torch.tensor([4, 0, 2]), torch.tensor([1, 5, 3]))
    on_disk = ResidentSplit(**rows, inputs=split.inputs, exact_labels=split.exact_labels, groups=groups)
    assert on_disk.reading_order.tolist() == [4, 0, 2, 1, 5, 3]


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("groups", [1, WINDOW_GROUPS, WINDOW_GROUPS + 1])
def test_a_set_on_disk_within_one_window_has_the_order_of_a_set_in_memory(groups: int, world: int) -> None:
    split = split_of(90)
    of_groups = make_epoch_order(7, 0, 90).tensor_split(groups)
    on_disk = replace(split, groups=of_groups)
    order = on_disk.make_order(3, 1, batch_size=4, world=world)
    if groups <= WINDOW_GROUPS:
        assert torch.equal(order, split.make_order(3, 1, batch_size=4, world=1))
    else:
        assert torch.equal(order, make_windowed_order(of_groups, 3, 1, batch_size=4, world=world))
