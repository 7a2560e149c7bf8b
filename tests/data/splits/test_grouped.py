"""`pytest tests/data/splits/test_grouped.py`: no group crosses, and the balance that is reached."""

from __future__ import annotations

import numpy as np
import pytest

from dirtune.data.splits import Recipe
from dirtune.data.splits.deal import quotas
from dirtune.data.splits.grouped import grouped, imbalance, total_variation

SPLITS = ("train", "val", "test")


def _targets(bins, num_bins: int, per_bin: int):
    density = np.bincount(bins, minlength=num_bins)
    quota = quotas(density, Recipe(per_bin=per_bin))
    return np.stack([density - 2 * quota, quota, quota]).astype(float)


def _cost(splits, bins, targets) -> float:
    total = 0.0
    for split, target in zip(SPLITS, targets, strict=True):
        for index, wanted in enumerate(target):
            have = sum((splits == split) & (bins == index))
            total += (have - wanted) ** 2 / (wanted + 1)
    return total


def test_no_group_stands_in_two_splits(ages):
    splits = grouped(ages.ids, ages.bins, ages.groups, _targets(ages.bins, 121, 4), seed=0)
    for group in set(ages.groups.tolist()):
        assert len(set(splits[ages.groups == group].tolist())) == 1
    assert set(splits.tolist()) == set(SPLITS)


def test_no_single_move_of_a_group_lowers_the_cost():
    drawn = np.random.default_rng(7)
    bins, groups = drawn.integers(5, size=80), drawn.integers(12, size=80)
    ids, targets = np.array([f"{row:02d}" for row in range(80)]), _targets(bins, 5, 4)
    splits = grouped(ids, bins, groups, targets, seed=1)
    reached = _cost(splits, bins, targets)
    for group in range(12):
        for split in SPLITS:
            moved = np.where(groups == group, split, splits)
            assert _cost(moved, bins, targets) >= reached - 1e-9


def test_groups_of_one_row_meet_the_targets_exactly():
    bins = np.repeat(np.arange(6), 20)
    ids, targets = np.array([f"{row:03d}" for row in range(120)]), _targets(bins, 6, 4)
    splits = grouped(ids, bins, np.arange(120), targets, seed=0)
    assert imbalance(splits, bins, targets) == {"train": 0, "val": 0, "test": 0}


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(ages):
    targets = _targets(ages.bins, 121, 4)
    splits = grouped(ages.ids, ages.bins, ages.groups, targets, seed=0)
    turned = np.random.default_rng(0).permutation(900)
    again = grouped(ages.ids[turned], ages.bins[turned], ages.groups[turned], targets, seed=0)
    assert again.tolist() == splits[turned].tolist()
    other = grouped(ages.ids, ages.bins, ages.groups, targets, seed=1)
    assert (other != splits).any()


def test_total_variation_is_half_the_summed_difference():
    assert total_variation(np.array([1, 1, 0]), np.array([0, 0, 5.0])) == 1
    assert total_variation(np.array([2, 2]), np.array([3.0, 1.0])) == pytest.approx(0.25)
    splits, bins = np.array(["train", "train", "val"]), np.array([0, 1, 1])
    found = imbalance(splits, bins, np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert found == {"train": 0, "val": 0.5, "test": 1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agedb_can_be_split_by_person_and_stay_balanced(agedb, seed):
    targets = _targets(agedb.bins, 121, 30)
    splits = grouped(agedb.ids, agedb.bins, agedb.groups, targets, seed=seed)
    people = {split: set(agedb.groups[splits == split].tolist()) for split in SPLITS}
    assert len(people["train"] | people["val"] | people["test"]) == 567
    assert sum(len(each) for each in people.values()) == 567
    found = imbalance(splits, agedb.bins, targets)
    assert found["train"] < 0.015
    assert max(found["val"], found["test"]) < 0.045
    for split in ("val", "test"):
        assert abs(np.count_nonzero(splits == split) - 2140) < 60
