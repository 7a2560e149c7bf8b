"""`pytest tests/data/splits/test_deal.py`: the balanced recipe against a loop, and random splits."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dirtune.data.splits import Recipe
from dirtune.data.splits.deal import made, natural, quotas
from dirtune.data.splits.rows import seeded_ranks
from dirtune.errors import InputError

IDS = np.array([f"row-{row:03d}" for row in range(400)], dtype=object)
BINS = np.minimum(np.random.default_rng(2).geometric(0.1, size=400), 30)


def _made_by_loops(bins, recipe: Recipe, seed: int) -> list[str]:
    ranks = seeded_ranks(IDS, seed, "made")
    splits = ["train"] * len(IDS)
    for each in set(bins.tolist()):
        members = sorted((row for row in range(len(IDS)) if bins[row] == each), key=ranks.__getitem__)
        size = min(len(members) // recipe.one_in, recipe.per_bin)
        for place, row in enumerate(members[: 2 * size]):
            splits[row] = "val" if place < size else "test"
    return splits


@pytest.mark.parametrize("recipe", [Recipe(per_bin=5), Recipe(per_bin=8, one_in=2)])
def test_the_recipe_takes_its_quota_of_every_bin(recipe):
    assert made(IDS, BINS, recipe, seed=4).tolist() == _made_by_loops(BINS, recipe, 4)


def test_val_and_test_have_equal_counts_in_every_bin():
    splits = made(IDS, BINS, Recipe(per_bin=5), seed=0)
    counts = {split: Counter(BINS[splits == split].tolist()) for split in ("val", "test")}
    assert counts["val"] == counts["test"]
    assert max(counts["val"].values()) == 5


def test_another_seed_draws_other_rows_of_the_same_number():
    first, other = (made(IDS, BINS, Recipe(per_bin=5), seed=seed) for seed in (0, 1))
    assert Counter(first.tolist()) == Counter(other.tolist())
    assert (first != other).any()


def test_random_splits_have_the_sizes_asked_for():
    splits = natural(IDS, val=30, test=50, seed=0)
    assert Counter(splits.tolist()) == {"train": 320, "val": 30, "test": 50}
    with pytest.raises(InputError, match="leave nothing to train on; rows, got 400"):
        natural(IDS, val=300, test=100, seed=0)


def test_agedb_has_the_published_number_of_rows_in_every_bin(agedb):
    """The published list is one draw of the recipe, so its counts per year are those of every draw."""
    quota = quotas(np.bincount(agedb.bins, minlength=121), Recipe(per_bin=30))
    for split in ("val", "test"):
        published = np.bincount(agedb.bins[agedb.published == split], minlength=121)
        assert quota.tolist() == published.tolist()
    assert quota.sum() == 2140
