"""`pytest tests/data/splits/test_assign.py`: whole requests, and properties of all of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from dirtune.data.splits import Rows, SplitRecipe, Splitting, compute_split_fingerprint, describe_split, split_rows
from dirtune.errors import InputError

RECIPE = SplitRecipe(per_bin=5)
REQUESTS = [
    Splitting(),
    Splitting(split="made"),
    Splitting(split="natural"),
    Splitting(split="grouped"),
    Splitting(split="grouped", balance="natural"),
    Splitting(hold_out="extrapolation"),
    Splitting(hold_out="interpolation", validation="seen", split="made"),
    Splitting(hold_out="blind_spots", split="grouped", control=True),
    Splitting(profile="exponential", fraction=0.5),
    Splitting(profile="bimodal", split="natural", split_seed=3),
    Splitting(profile="inverse", profile_rows=200, control=True),
    Splitting(fraction=0.1),
    Splitting(fraction=0.1, stratified=False),
    Splitting(drop_leaks=True),
]


def _reorder(rows: Rows, order) -> Rows:
    columns = {name: getattr(rows, name)[order] for name in ("ids", "labels", "groups", "published")}
    return replace(rows, **columns)


def _contents(rows: Rows) -> list[str]:
    """Return equal contents for rows with the same last two digits and age."""
    return [f"{text[-2:]} {age}" for text, age in zip(rows.ids, rows.labels, strict=True)]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.model_dump_json(exclude_defaults=True))
def test_every_row_has_one_split_in_any_order_of_the_rows(ages, request_):
    found = split_rows(ages, request_, RECIPE, contents=_contents(ages))
    assert set(found.splits.tolist()) <= {"train", "val", "test", "left_out"}
    assert sum(len(found.find_rows(name)) for name in ("train", "val", "test", "left_out")) == 900
    turned = _reorder(ages, np.random.default_rng(0).permutation(900))
    again = split_rows(turned, request_, RECIPE, contents=_contents(turned))
    assert dict(zip(turned.ids, again.splits, strict=True)) == dict(zip(ages.ids, found.splits, strict=True))
    assert (again.notes, again.held_out) == (found.notes, found.held_out)


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: each.model_dump_json(exclude_defaults=True))
def test_no_step_changes_the_test_rows_of_the_partition(ages, request_):
    base = Splitting(split=request_.split, balance=request_.balance, split_seed=request_.split_seed)
    first = split_rows(ages, base, RECIPE).splits
    last = split_rows(ages, request_, RECIPE, contents=_contents(ages)).splits
    assert (last == "test").tolist() == (first == "test").tolist()
    kept = last != "left_out"
    # Rows are left out, none changes its split.
    assert last[kept].tolist() == first[kept].tolist()


def test_smaller_fractions_are_contained_in_larger_ones(ages):
    for stratified in (True, False):
        before: set[int] = set()
        for fraction in (0.1, 0.25, 0.5, 1.0):
            request = Splitting(fraction=fraction, stratified=stratified)
            train = set(split_rows(ages, request).find_rows("train").tolist())
            assert len(train) == round(700 * fraction)
            assert before <= train
            before = train


def test_the_control_has_as_many_rows_of_every_label(ages):
    request = Splitting(hold_out="interpolation", validation="seen", fraction=0.5)
    real, control = (split_rows(ages, request.model_copy(update={"control": each})) for each in (False, True))
    assert Counter(real.splits.tolist()) == Counter(control.splits.tolist())
    assert (real.splits == "val").tolist() == (control.splits == "val").tolist()
    held = np.isin(ages.bins, real.held_out)
    assert real.held_out == control.held_out
    assert not (held & (real.splits == "train")).any()
    assert (held & (control.splits == "train")).any()
    assert not (held & (real.splits == "val")).any()


def test_notes_name_the_steps_and_the_leaks_of_the_result(ages):
    found = split_rows(ages, Splitting(hold_out="blind_spots", bands=((40.0, 42.0), (50.0, 51.0))))
    assert found.held_out == (40, 41, 50)
    held = np.isin(ages.bins, found.held_out)
    train, test = (np.count_nonzero(held & (ages.published == split)) for split in ("train", "test"))
    assert found.notes[:2] == (
        "split: as published",
        f"held out of training: age in [40, 42), [50, 51); {train} train and 0 val rows left out, "
        f"{test} test rows have such labels",
    )
    assert any("groups in both train and test" in note for note in found.notes)
    grouped = split_rows(ages, Splitting(split="grouped"), RECIPE)
    assert grouped.notes[0].startswith(
        "split: 60 groups, none in two splits (14 in val, 13 in test), seed 0; total variation"
    )
    assert len(grouped.notes) == 1


def test_leaks_are_removed_from_training_first(ages):
    contents = _contents(ages)
    kept = split_rows(ages, Splitting(), contents=contents)
    assert any("contents in both train and test" in note for note in kept.notes)
    cleaned = split_rows(ages, Splitting(drop_leaks=True), contents=contents)
    lost = np.count_nonzero(cleaned.splits == "left_out")
    assert lost > 0
    assert f"copies left out: {lost} rows" in cleaned.notes
    assert not any("contents in both" in note for note in cleaned.notes)


def test_a_new_draw_of_agedb_differs_from_the_published_list(agedb):
    found = split_rows(agedb, Splitting(split="made"), SplitRecipe(per_bin=30))
    sizes = {split: len(found.find_rows(split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 12208, "val": 2140, "test": 2140}
    text = describe_split("agedb", compute_split_fingerprint(found.splits, agedb.ids, agedb.labels), sizes)
    assert text is not None
    assert "not comparable" in text
    kept = split_rows(agedb, Splitting())
    text = describe_split("agedb", compute_split_fingerprint(kept.splits, agedb.ids, agedb.labels), sizes)
    assert text == "the split is the list of YyzHarry/imbalanced-regression"


def test_an_empty_split_is_an_error(ages):
    alone = replace(ages, published=np.array(["train"] * 900, dtype=object))
    with pytest.raises(InputError, match="val: the split would have no rows"):
        split_rows(alone, Splitting())


def test_few_remaining_training_rows_are_noted_and_a_single_one_is_refused(ages):
    train = int((split_rows(ages, Splitting(), RECIPE).splits == "train").sum())
    found = split_rows(ages, Splitting(fraction=8 / train), RECIPE)
    assert f"training rows: 8 of {train} are left; too few to compare methods by" in found.notes
    assert not any("are left" in note for note in split_rows(ages, Splitting(fraction=0.5), RECIPE).notes)
    with pytest.raises(InputError, match=f"train: one of {train} training rows would be left"):
        split_rows(ages, Splitting(fraction=1 / train), RECIPE)
