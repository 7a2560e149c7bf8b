"""Run with `pytest tests/data/test_subset.py`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dirtune.data.cache import ResidentData, ResidentSplit, Split
from dirtune.data.subset import select_training_subset
from tests.data.test_cache import manifest, split_of


def data_of(train: Split) -> ResidentData:
    splits = {"train": train, "val": split_of(3)}
    return ResidentData(manifest=manifest(), device=torch.device("cpu"), splits=splits)


def rows_of(train: Split) -> list[int]:
    return [int(sample_id) for sample_id in train.sample_ids]


def test_a_fraction_of_one_returns_the_same_data() -> None:
    data = data_of(split_of(30))
    assert select_training_subset(data, 1.0) is data


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.35, 0.9])
def test_a_subset_has_its_share_of_the_rows_and_other_splits_stay(fraction: float) -> None:
    data = data_of(split_of(30))
    part = select_training_subset(data, fraction)
    assert len(part.splits["train"]) == max(1, round(30 * fraction))
    assert part.splits["val"] is data.splits["val"]
    assert part.manifest is data.manifest
    assert part.decoded is data.decoded


def test_smaller_subsets_are_contained_in_larger_ones_and_reproducible() -> None:
    data = data_of(split_of(200))
    parts = [set(rows_of(select_training_subset(data, share).splits["train"])) for share in (0.05, 0.2, 0.5)]
    assert parts[0] < parts[1] < parts[2]
    again = select_training_subset(data, 0.5).splits["train"]
    assert set(rows_of(again)) == parts[2]


def test_every_label_bin_keeps_its_share() -> None:
    bins = select_training_subset(data_of(split_of(300)), 0.2).splits["train"].label_bins
    assert np.abs(torch.bincount(bins).numpy() - 20).max() <= 1


def test_the_rows_of_a_subset_equal_those_of_the_whole_split() -> None:
    whole = split_of(40)
    part = select_training_subset(data_of(whole), 0.3).splits["train"]
    kept = torch.tensor(rows_of(part))
    assert torch.equal(part.labels, whole.labels[kept])
    assert torch.equal(part.label_bins, whole.label_bins[kept])
    assert part.exact_labels.tolist() == whole.exact_labels[kept.numpy()].tolist()
    batches = [torch.tensor([3, 0]), torch.tensor([5, 5, 1])]
    for rows, inputs in zip(batches, part.read(batches), strict=True):
        assert torch.equal(inputs["x"], whole.inputs["x"][kept[rows]])


def test_the_row_groups_of_a_subset_are_within_those_of_the_whole_split() -> None:
    groups = (torch.arange(0, 40, 2), torch.tensor([1]), torch.arange(3, 40, 2))
    whole: ResidentSplit = replace(split_of(40), groups=groups)
    part = select_training_subset(data_of(whole), 0.25).splits["train"]
    assert part.groups is not None
    assert sorted(torch.cat(part.groups).tolist()) == list(range(10))
    for group in part.groups:
        members = {rows_of(part)[row] for row in group.tolist()}
        assert any(members <= set(of_whole.tolist()) for of_whole in groups)
    assert sorted(part.make_order(1, 1, batch_size=4, world=2).tolist()) == list(range(10))
