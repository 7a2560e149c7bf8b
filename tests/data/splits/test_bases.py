"""`pytest tests/data/splits/test_bases.py`: the first step of a request, and what a data set may lack for it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dirtune.data.splits import Recipe, Rows, Splitting
from dirtune.data.splits.bases import dealt
from dirtune.errors import InputError
from dirtune.manifest import LabelSpec

RECIPE = Recipe(per_bin=5)


def test_the_published_split_is_taken_as_it_is(ages):
    splits, note = dealt(ages, Splitting(), None)
    assert splits.tolist() == ages.published.tolist()
    assert note == "split: as published"


def test_random_splits_have_the_published_sizes(ages):
    splits, note = dealt(ages, Splitting(split="natural", split_seed=2), RECIPE)
    assert Counter(splits.tolist()) == {"train": 700, "val": 100, "test": 100}
    assert note == "split: random, 100 val and 100 test rows, seed 2"


def test_the_recipe_may_draw_from_wider_bins_than_the_labels(ages):
    splits, note = dealt(ages, Splitting(split="made"), Recipe(per_bin=7, one_in=2, bin_width=10))
    decades = (ages.labels // 10).astype(int)
    expected = [min(count // 2, 7) for count in np.bincount(decades)]
    for split in ("val", "test"):
        found = np.bincount(decades[splits == split], minlength=len(expected))
        assert found.tolist() == expected
    assert note == "split: made, min(n // 2, 7) rows for val and for test per 10 years, seed 0"


def test_natural_splits_without_a_published_one_take_the_recipes_sizes(ages):
    rows = replace(ages, published=None)
    made, natural = (dealt(rows, Splitting(split=each), RECIPE)[0] for each in ("made", "natural"))
    assert Counter(made.tolist()) == Counter(natural.tolist())


def test_what_the_data_set_lacks_is_named(ages):
    bare = replace(ages, published=None, groups=None)
    with pytest.raises(InputError, match=r"raw files name no splits.*known: grouped, made, natural"):
        dealt(bare, Splitting(), RECIPE)
    with pytest.raises(InputError, match="raw files name no groups"):
        dealt(bare, Splitting(split="grouped"), RECIPE)
    with pytest.raises(InputError, match="no recipe for balanced splits"):
        dealt(ages, Splitting(split="made"), None)
    strange = replace(ages, published=np.array(["train", "dev"] * 450, dtype=object))
    with pytest.raises(InputError, match="unknown split in the raw files, got 'dev'"):
        dealt(strange, Splitting(), None)


def test_cells_of_a_grid_are_drawn_from_as_they_are() -> None:
    axis = LabelSpec(name="angle", unit="degrees", low=0, high=4, bin_width=2, num_bins=2)
    rows = Rows(
        name="gaze",
        label=LabelSpec.grid("gaze", "degrees", (axis, axis)),
        ids=np.arange(40).astype(str),
        labels=np.random.default_rng(0).uniform(0, 4, (40, 2)),
    )
    _, note = dealt(rows, Splitting(split="made"), Recipe(per_bin=2, one_in=2))
    assert note == "split: made, min(n // 2, 2) rows for val and for test per label bin, seed 0"
    with pytest.raises(InputError, match="bin_width: the cells of a label of several dimensions"):
        dealt(rows, Splitting(split="made"), Recipe(per_bin=2, bin_width=1.0))
