"""Run with `pytest tests/data/splits/test_partition.py`: splits of all rows, against loops and the published lists."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dirtune.data.splits import Rows, SplitRecipe, Splitting
from dirtune.data.splits.partition import (
    compute_imbalance,
    compute_quotas,
    compute_total_variation,
    make_partition,
    split_at_random,
    split_by_group,
    split_by_recipe,
)
from dirtune.data.splits.rows import rank_by_seed
from dirtune.errors import InputError
from dirtune.manifest import SPLITS, LabelSpec

RECIPE = SplitRecipe(per_bin=5)
IDS = np.array([f"row-{row:03d}" for row in range(400)], dtype=object)
BINS = np.minimum(np.random.default_rng(2).geometric(0.1, size=400), 30)


def test_the_published_split_is_unchanged(ages):
    splits, note = make_partition(ages, Splitting(), None)
    assert splits.tolist() == ages.published.tolist()
    assert note == "split: as published"


def test_random_splits_have_the_published_sizes(ages):
    splits, note = make_partition(ages, Splitting(split="natural", split_seed=2), RECIPE)
    assert Counter(splits.tolist()) == {"train": 700, "val": 100, "test": 100}
    assert note == "split: random, 100 val and 100 test rows, seed 2"


def test_the_recipe_may_draw_from_wider_bins_than_the_labels(ages):
    splits, note = make_partition(ages, Splitting(split="made"), SplitRecipe(per_bin=7, one_in=2, bin_width=10))
    decades = (ages.labels // 10).astype(int)
    expected = [min(count // 2, 7) for count in np.bincount(decades)]
    for split in ("val", "test"):
        found = np.bincount(decades[splits == split], minlength=len(expected))
        assert found.tolist() == expected
    assert note == "split: made, min(n // 2, 7) rows for val and for test per 10 years, seed 0"


def test_natural_splits_without_a_published_one_have_the_recipes_sizes(ages):
    rows = replace(ages, published=None)
    made, natural = (make_partition(rows, Splitting(split=each), RECIPE)[0] for each in ("made", "natural"))
    assert Counter(made.tolist()) == Counter(natural.tolist())


def test_errors_name_the_missing_splits_groups_or_recipe(ages):
    bare = replace(ages, published=None, groups=None)
    with pytest.raises(InputError, match=r"raw files name no splits.*known: grouped, made, natural"):
        make_partition(bare, Splitting(), RECIPE)
    with pytest.raises(InputError, match="raw files name no groups"):
        make_partition(bare, Splitting(split="grouped"), RECIPE)
    with pytest.raises(InputError, match="no recipe for balanced splits"):
        make_partition(ages, Splitting(split="made"), None)
    strange = replace(ages, published=np.array(["train", "dev"] * 450, dtype=object))
    with pytest.raises(InputError, match="unknown split in the raw files, got 'dev'"):
        make_partition(strange, Splitting(), None)


def test_the_cells_of_a_grid_are_bins_of_the_recipe() -> None:
    axis = LabelSpec(name="angle", unit="degrees", low=0, high=4, bin_width=2, num_bins=2)
    rows = Rows(
        name="gaze",
        label=LabelSpec.grid("gaze", "degrees", (axis, axis)),
        ids=np.arange(40).astype(str),
        labels=np.random.default_rng(0).uniform(0, 4, (40, 2)),
    )
    _, note = make_partition(rows, Splitting(split="made"), SplitRecipe(per_bin=2, one_in=2))
    assert note == "split: made, min(n // 2, 2) rows for val and for test per label bin, seed 0"
    with pytest.raises(InputError, match="bin_width: the cells of a label of several dimensions"):
        make_partition(rows, Splitting(split="made"), SplitRecipe(per_bin=2, bin_width=1.0))


# --- Balanced and random splits


def _split_by_loops(bins, recipe: SplitRecipe, seed: int) -> list[str]:
    ranks = rank_by_seed(IDS, seed, "made")
    splits = ["train"] * len(IDS)
    for each in set(bins.tolist()):
        members = sorted((row for row in range(len(IDS)) if bins[row] == each), key=ranks.__getitem__)
        size = min(len(members) // recipe.one_in, recipe.per_bin)
        for place, row in enumerate(members[: 2 * size]):
            splits[row] = "val" if place < size else "test"
    return splits


@pytest.mark.parametrize("recipe", [SplitRecipe(per_bin=5), SplitRecipe(per_bin=8, one_in=2)])
def test_the_recipe_draws_its_quota_from_every_bin(recipe):
    assert split_by_recipe(IDS, BINS, recipe, seed=4).tolist() == _split_by_loops(BINS, recipe, 4)


def test_val_and_test_have_equal_counts_in_every_bin():
    splits = split_by_recipe(IDS, BINS, SplitRecipe(per_bin=5), seed=0)
    counts = {split: Counter(BINS[splits == split].tolist()) for split in ("val", "test")}
    assert counts["val"] == counts["test"]
    assert max(counts["val"].values()) == 5


def test_another_seed_draws_other_rows_of_the_same_number():
    first, other = (split_by_recipe(IDS, BINS, SplitRecipe(per_bin=5), seed=seed) for seed in (0, 1))
    assert Counter(first.tolist()) == Counter(other.tolist())
    assert (first != other).any()


def test_random_splits_have_the_requested_sizes():
    splits = split_at_random(IDS, val=30, test=50, seed=0)
    assert Counter(splits.tolist()) == {"train": 320, "val": 30, "test": 50}
    with pytest.raises(InputError, match="leave nothing to train on; rows, got 400"):
        split_at_random(IDS, val=300, test=100, seed=0)


def test_agedb_has_the_published_number_of_rows_in_every_bin(agedb):
    """The published list is one draw of the recipe, so its counts per year are those of every draw."""
    quota = compute_quotas(np.bincount(agedb.bins, minlength=121), SplitRecipe(per_bin=30))
    for split in ("val", "test"):
        published = np.bincount(agedb.bins[agedb.published == split], minlength=121)
        assert quota.tolist() == published.tolist()
    assert quota.sum() == 2140


# --- Splits without shared groups


def _targets(bins, num_bins: int, per_bin: int):
    density = np.bincount(bins, minlength=num_bins)
    quota = compute_quotas(density, SplitRecipe(per_bin=per_bin))
    return np.stack([density - 2 * quota, quota, quota]).astype(float)


def _cost(splits, bins, targets) -> float:
    total = 0.0
    for split, target in zip(SPLITS, targets, strict=True):
        for index, wanted in enumerate(target):
            have = sum((splits == split) & (bins == index))
            total += (have - wanted) ** 2 / (wanted + 1)
    return total


def test_no_group_is_in_two_splits(ages):
    splits = split_by_group(ages.ids, ages.bins, ages.groups, _targets(ages.bins, 121, 4), seed=0)
    for group in set(ages.groups.tolist()):
        assert len(set(splits[ages.groups == group].tolist())) == 1
    assert set(splits.tolist()) == set(SPLITS)


def test_no_single_move_of_a_group_lowers_the_cost():
    drawn = np.random.default_rng(7)
    bins, groups = drawn.integers(5, size=80), drawn.integers(12, size=80)
    ids, targets = np.array([f"{row:02d}" for row in range(80)]), _targets(bins, 5, 4)
    splits = split_by_group(ids, bins, groups, targets, seed=1)
    reached = _cost(splits, bins, targets)
    for group in range(12):
        for split in SPLITS:
            moved = np.where(groups == group, split, splits)
            assert _cost(moved, bins, targets) >= reached - 1e-9


def test_groups_of_one_row_meet_the_targets_exactly():
    bins = np.repeat(np.arange(6), 20)
    ids, targets = np.array([f"{row:03d}" for row in range(120)]), _targets(bins, 6, 4)
    splits = split_by_group(ids, bins, np.arange(120), targets, seed=0)
    assert compute_imbalance(splits, bins, targets) == {"train": 0, "val": 0, "test": 0}


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does(ages):
    targets = _targets(ages.bins, 121, 4)
    splits = split_by_group(ages.ids, ages.bins, ages.groups, targets, seed=0)
    turned = np.random.default_rng(0).permutation(900)
    again = split_by_group(ages.ids[turned], ages.bins[turned], ages.groups[turned], targets, seed=0)
    assert again.tolist() == splits[turned].tolist()
    other = split_by_group(ages.ids, ages.bins, ages.groups, targets, seed=1)
    assert (other != splits).any()


def test_total_variation_is_half_the_summed_difference():
    assert compute_total_variation(np.array([1, 1, 0]), np.array([0, 0, 5.0])) == 1
    assert compute_total_variation(np.array([2, 2]), np.array([3.0, 1.0])) == pytest.approx(0.25)
    splits, bins = np.array(["train", "train", "val"]), np.array([0, 1, 1])
    found = compute_imbalance(splits, bins, np.array([[1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]))
    assert found == {"train": 0, "val": 0.5, "test": 1}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agedb_can_be_split_by_person_and_stay_balanced(agedb, seed):
    targets = _targets(agedb.bins, 121, 30)
    splits = split_by_group(agedb.ids, agedb.bins, agedb.groups, targets, seed=seed)
    people = {split: set(agedb.groups[splits == split].tolist()) for split in SPLITS}
    assert len(people["train"] | people["val"] | people["test"]) == 567
    assert sum(len(each) for each in people.values()) == 567
    found = compute_imbalance(splits, agedb.bins, targets)
    assert found["train"] < 0.015
    assert max(found["val"], found["test"]) < 0.045
    for split in ("val", "test"):
        assert abs(np.count_nonzero(splits == split) - 2140) < 60


def _subjects(number: int, rows: int, seed: int = 0) -> Rows:
    """Subjects with as many rows each, whose labels are near the subject's own."""
    drawn = np.random.default_rng(seed)
    labels = np.clip(np.repeat(drawn.uniform(0, 100, number), rows) + drawn.normal(0, 3, number * rows), 0, 99.9)
    label = LabelSpec(name="score", unit="points", low=0, high=100, bin_width=1, num_bins=100)
    ids = np.array([f"row-{row:05d}" for row in range(len(labels))], dtype=object)
    groups = np.repeat([f"s{subject:02d}" for subject in range(number)], rows)
    return Rows(name="subjects", label=label, ids=ids, labels=labels, groups=groups)


@pytest.mark.parametrize("balance", ["made", "natural"])
@pytest.mark.parametrize(("number", "rows"), [(40, 25), (40, 5), (20, 50), (12, 200), (100, 10)])
def test_val_and_test_have_about_a_tenth_of_the_groups_each(balance, number, rows):
    subjects = _subjects(number, rows)
    recipe = SplitRecipe(per_bin=1, bin_width=1)
    splits, note = make_partition(subjects, Splitting(split="grouped", balance=balance), recipe)
    groups = {split: set(subjects.groups[splits == split]) for split in SPLITS}
    assert not groups["val"] & groups["test"] | groups["train"] & groups["val"] | groups["train"] & groups["test"]
    share = compute_quotas(np.bincount(subjects.bins), recipe).sum() / len(subjects.ids)
    for split in ("val", "test"):
        assert 0.5 * share * number < len(groups[split]) <= max(1, 2 * share * number + 1)
    assert f"({len(groups['val'])} in val, {len(groups['test'])} in test)" in note
    assert len(groups["train"]) > number / 2


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_a_share_of_the_groups_is_met_where_the_rows_of_the_recipe_take_fewer(share):
    subjects = _subjects(40, 25)
    recipe = SplitRecipe(per_bin=1, bin_width=4, group_share=share)
    splits, _ = make_partition(subjects, Splitting(split="grouped"), recipe)
    counts = [len(set(subjects.groups[splits == split])) for split in ("val", "test")]
    assert counts == [40 * share] * 2


def test_splits_without_three_groups_are_refused():
    with pytest.raises(InputError, match="grouped splits need at least 3 groups; split=made ignores groups, got 2"):
        make_partition(_subjects(2, 100), Splitting(split="grouped"), SplitRecipe(per_bin=1))
    splits, _ = make_partition(_subjects(3, 100), Splitting(split="grouped"), SplitRecipe(per_bin=1))
    assert set(splits.tolist()) == set(SPLITS)
