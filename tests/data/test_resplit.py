"""Run with `pytest tests/data/test_resplit.py`."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData, ResidentSplit, Split
from dirtune.data.resplit import PooledSplit, draw_split, find_resplit_fault, redraw_splits
from dirtune.data.subset import SubsetSplit
from dirtune.manifest import SPLITS
from tests.training.conftest import data_root, toy

__all__ = ["data_root", "toy"]

MADE = "split: made, min(n // 3, 3) rows for val and for test per label bin, seed 0"


def make_rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ids, bins and ingested splits of rows with a long tail."""
    random = np.random.default_rng(seed)
    bins = np.repeat(np.arange(6), (60, 30, 12, 6, 3, 1))
    ingested = np.concatenate([np.repeat([0, 1, 2], (n - 2 * (n // 3), n // 3, n // 3)) for n in np.bincount(bins)])
    order = random.permutation(len(bins))
    return np.array([f"row-{at:03d}" for at in range(len(bins))], dtype=object)[order], bins[order], ingested[order]


def select_all(split: Split) -> SubsetSplit:
    shared = {each.name: getattr(split, each.name) for each in fields(Split)}
    return SubsetSplit(whole=split, selected=torch.arange(len(split)), **shared)


def test_a_split_has_the_ingested_histograms_and_other_rows() -> None:
    ids, bins, ingested = make_rows()
    found = [draw_split(ids, bins, ingested, number) for number in (1, 2)]
    for splits in found:
        for at, name in enumerate(SPLITS):
            assert np.array_equal(
                np.bincount(bins[splits == name], minlength=6), np.bincount(bins[ingested == at], minlength=6)
            )
    common = np.count_nonzero((found[0] == "test") & (found[1] == "test"))
    assert 0 < common < np.count_nonzero(found[0] == "test")


def test_a_split_depends_on_the_ids_and_not_on_the_order_of_the_rows() -> None:
    ids, bins, ingested = make_rows()
    order = np.argsort(ids)
    assert np.array_equal(
        draw_split(ids, bins, ingested, 3)[order], draw_split(ids[order], bins[order], ingested[order], 3)
    )


def test_no_group_is_in_two_splits() -> None:
    ids, bins, ingested = make_rows()
    groups = np.array([f"person-{at % 25}" for at in np.argsort(np.argsort(ids))], dtype=object)
    drawn = [draw_split(ids, bins, ingested, number, groups) for number in (1, 2)]
    for splits in drawn:
        assert set(splits) == set(SPLITS)
        assert all(len(set(splits[groups == group])) == 1 for group in np.unique(groups))
    assert not np.array_equal(*drawn)


def test_rows_keep_their_inputs_and_labels(toy: ResidentData) -> None:
    other = redraw_splits(toy, 1)
    before, after = (
        {
            sample: (each.exact_labels[row], each.inputs["vector"][row].tolist(), int(each.label_bins[row]))
            for each in data.splits.values()
            for row, sample in enumerate(each.sample_ids)
        }
        for data in (toy, other)
    )
    assert before == after
    assert all(list(each.sample_ids) == sorted(each.sample_ids) for each in other.splits.values())
    assert other.splits["test"].sample_ids != toy.splits["test"].sample_ids
    assert redraw_splits(toy, 0) is toy


def test_regions_have_the_bins_of_the_ingested_split(toy: ResidentData) -> None:
    random = np.random.default_rng(0)
    groups = {
        name: np.array([f"g{at}" for at in random.integers(0, 40, len(each))], dtype=object)
        for name, each in toy.splits.items()
    }
    grouped = replace(
        toy,
        manifest=toy.manifest.model_copy(update={"group": "person"}),
        splits={name: replace(each, sample_groups=groups[name]) for name, each in toy.splits.items()},
    )
    other = redraw_splits(grouped, 2)
    # Groups cannot have the histogram exactly, and the bins of a region must not follow it
    assert other.manifest.train_counts != toy.manifest.train_counts
    assert sum(other.manifest.train_counts) == len(other.splits["train"])

    def get_regions_by_bin(data: ResidentData) -> dict[int, str]:
        return {
            int(bin_): str(region)
            for name, each in data.splits.items()
            for bin_, region in zip(each.label_bins, data.get_regions(name, "toy"), strict=True)
        }

    assert get_regions_by_bin(other) == get_regions_by_bin(toy)


def test_streamed_splits_give_the_same_batches_as_resident_ones(toy: ResidentData) -> None:
    resident = redraw_splits(toy, 1).splits["train"]
    # A split that is no tensor on the device, as those that are read from disk
    streamed = {name: select_all(each) for name, each in toy.splits.items()}
    pooled = redraw_splits(replace(toy, splits=streamed), 1).splits["train"]
    assert isinstance(resident, ResidentSplit)
    assert isinstance(pooled, PooledSplit)
    assert pooled.placement == "device"
    # The last has no row, as the share of a rank in a batch with fewer rows than ranks.
    batches = [torch.tensor([5, 0, 100]), torch.tensor([7]), torch.tensor([], dtype=torch.int64)]
    for ours, theirs in zip(pooled.read(batches), resident.read(batches), strict=True):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ("image", "vector"))


@pytest.mark.parametrize(("notes", "is_refused"), [((MADE,), False), (("split: as published",), True), ((), True)])
def test_published_splits_are_refused(toy: ResidentData, notes: tuple[str, ...], is_refused: bool) -> None:
    fault = find_resplit_fault(toy.manifest.model_copy(update={"notes": notes}))
    assert (fault is not None) == is_refused
    if fault is not None:
        assert "published" in str(fault)
