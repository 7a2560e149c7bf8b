"""Run with `pytest tests/pipelines/test_own.py`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike

from dirtune.data.sources import Source
from dirtune.data.splits import Rows
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.manifest import LabelSpec
from dirtune.pipelines.own import (
    Division,
    OwnOptions,
    choose_label_spec,
    choose_recipe,
    divide,
    make_request,
    read_entries,
    round_to_nice_width,
)
from dirtune.pipelines.sheets import Sheet, read_sheet
from dirtune.reweighting.density import label_bins

HEADER = "who,person,part,y"
ROWS = ["a,ann,train,1", "b,ann,Dev,2", "c,bob,test,3", "d,bob,left_out,4", "e,cid,training,5"]


def _options(**given: object) -> OwnOptions:
    return read(OwnOptions, {"name": "mine", "label": "y", **given}, where="options")


def _sheet(folder: Path, rows: list[str]) -> Sheet:
    (folder / "a.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    return read_sheet(folder / "a.csv")


def _faults(folder: Path, rows: list[str], **given: object) -> list[str]:
    sheet = _sheet(folder, rows)
    read_entries(sheet, _options(**given))
    return [str(fault).removeprefix(str(sheet.path)) for fault in sheet.faults]


def _divided(labels: np.ndarray, folder: Path, names: Sequence[str] | None = None, **given: object) -> Division:
    names = [""] * len(labels) if names is None else names
    rows = enumerate(zip(names, labels.tolist(), strict=True))
    sheet = _sheet(folder, [f"{row},{name},,{label!r}" for row, (name, label) in rows])
    options = _options(**given)
    entries = read_entries(sheet, options)
    used = sheet.select_usable(0)
    return divide(options, entries, used, list(range(len(used))))


def _long_tail(rows: int = 1000) -> np.ndarray:
    return np.round(np.random.default_rng(0).exponential(20.0, rows), 3)


def test_ids_groups_and_splits_are_read_from_their_columns(tmp_path: Path) -> None:
    options = _options(id="who", group="person", split_column="part")
    sheet = _sheet(tmp_path, ROWS)
    entries = read_entries(sheet, options)
    used = sheet.select_usable(0)
    division = divide(options, entries, used, [0, 1, 2, 3, 4])
    assert division.make_table({"more": ["v", "w", "x", "y", "z"]}).to_pydict() == {
        "sample_id": ["a", "b", "c", "d", "e"],
        "split": ["train", "val", "test", "left_out", "train"],
        "label": [1.0, 2.0, 3.0, 4.0, 5.0],
        "group": ["ann", "ann", "bob", "bob", "cid"],
        "more": ["v", "w", "x", "y", "z"],
    }
    assert division.train.tolist() == [0, 4]
    assert "1 group in both train and val: 1 of 1 val rows, 1 train rows" in division.assignment.notes


def test_rows_without_an_id_are_called_by_their_number_in_the_file(tmp_path: Path) -> None:
    assert read_entries(_sheet(tmp_path, ROWS), _options()).ids.tolist()[:2] == ["row-0000002", "row-0000003"]


def test_every_fault_of_these_columns_is_named_by_its_row(tmp_path: Path) -> None:
    rows = ["a,ann,train,1", "a,ann,trian,12", ",,,", "b,,train,-1", "c,cid,test,x", "d,d,val,2"]
    found = _faults(tmp_path, rows, id="who", group="person", split_column="part", low=0, high=10)
    assert found == [
        ":3: who: the sample id is already in row 2, got 'a'",
        ":3: y: must be within 0..10, got 12.0",
        ":3: part: must be one of train, val, test, left_out, got 'trian'",
        ":5: y: must be within 0..10, got -1.0",
        ":5: person: the cell is empty",
        ":6: y: must be a finite number, got 'x'",
    ]


def test_rows_that_cannot_be_used_are_in_no_split(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, [*ROWS, "f,fay,train,?"])
    options = _options(id="who", split_column="part", skip_bad=1)
    entries = read_entries(sheet, options)
    used = sheet.select_usable(options.skip_bad)
    division = divide(options, entries, used, [0] * 5)
    assert division.make_table({})["sample_id"].to_pylist() == ["a", "b", "c", "d", "e"]


def test_grouped_splits_need_a_column_of_groups(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="grouped splits need them"):
        _divided(_long_tail(), tmp_path, split="grouped")


@pytest.mark.parametrize(("number", "rows"), [(12, 240), (40, 1000), (60, 2400), (100, 1000), (200, 1000)])
def test_rows_of_a_group_stay_in_one_split_unless_splits_are_made_without_groups(
    tmp_path: Path, number: int, rows: int
) -> None:
    labels, names = _long_tail(rows), [f"person {row % number}" for row in range(rows)]
    shared = {}
    for split in ("made", None):
        division = _divided(labels, tmp_path, names, group="person", **({"split": split} if split else {}))
        found = [division.assignment.find_rows(each) for each in ("train", "val", "test")]
        groups = [set(np.array(names)[each].tolist()) for each in found]
        shared[split] = len(groups[0] & groups[1] | groups[0] & groups[2] | groups[1] & groups[2])
        assert all(len(each) for each in found)
    assert shared["made"] > 0 == shared[None]
    # A tenth of the groups each
    assert [len(each) for each in groups[1:]] == [round(number / 10)] * 2


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, [row for row in ROWS if "Dev" not in row])
    options = _options(split_column="part")
    entries = read_entries(sheet, options)
    with pytest.raises(InputError, match="mine: val: the split would have no rows"):
        divide(options, entries, sheet.select_usable(0), [0, 1, 2, 3])


@pytest.mark.parametrize("rows", [300, 1000, 5000])
def test_made_splits_hold_about_a_tenth_each_and_balance_the_label(tmp_path: Path, rows: int) -> None:
    division = _divided(_long_tail(rows), tmp_path)
    sizes = {split: len(division.assignment.find_rows(split)) for split in ("train", "val", "test")}
    assert sizes["val"] == sizes["test"]
    assert 0.03 * rows < sizes["val"] <= max(0.1 * rows, min(150, 0.2 * rows))
    assert sum(sizes.values()) == rows
    mean = {split: division.rows.labels[division.assignment.find_rows(split)].mean() for split in sizes}
    # Balanced: the rare, large labels come more often
    assert mean["val"] > mean["train"]
    assert mean["test"] > mean["train"]


def test_natural_splits_have_the_sizes_of_made_ones(tmp_path: Path) -> None:
    made = _divided(_long_tail(), tmp_path)
    natural = _divided(_long_tail(), tmp_path, split="natural")
    for split in ("val", "test"):
        sizes = [len(each.assignment.find_rows(split)) for each in (made, natural)]
        assert sizes[0] == sizes[1]


def _rows(labels: list[float]) -> Rows:
    label = LabelSpec(name="y", unit="m", low=0, high=100, bin_width=1, num_bins=100)
    ids = np.arange(len(labels)).astype(str)
    return Rows(name="mine", label=label, ids=ids, labels=np.array(labels))


def test_the_recipe_takes_as_many_of_a_bin_as_the_share_allows() -> None:
    # 60 rows in one bin, 30 and 9 in others: at most 20, 10 and 3 of each.
    labels = [5.0] * 60 + [7.0] * 30 + [9.0] * 9 + [11.0]
    for share, expected in ((0.05, 1), (0.06, 2), (0.08, 2), (0.09, 3), (0.11, 4), (0.25, 12)):
        recipe = choose_recipe(_rows(labels), share)
        assert (recipe.per_bin, recipe.bin_width, recipe.one_in) == (expected, 1.0, 3)
        assert sum(min(n, recipe.per_bin) for n in (20, 10, 3)) <= share * 100


def test_sparse_bins_are_joined_until_the_share_can_be_drawn() -> None:
    recipe = choose_recipe(_rows([float(value) for value in range(100)]), 0.1)
    # Of five rows one can be drawn, but that makes twenty; of ten rows ten.
    assert (recipe.per_bin, recipe.bin_width) == (1, 10.0)


def test_the_request_depends_on_content_options_and_dependencies(tmp_path: Path) -> None:
    one, other = (Source(where=name, path=tmp_path / name) for name in ("one.csv", "other.csv"))
    one.path.write_text("a")
    other.path.write_text("a")
    options = _options()
    first = make_request("table", 1, one, options)
    assert make_request("table", 1, other, options) == first
    other.path.write_text("b")
    changed = [
        make_request("table", 1, other, options),
        make_request("table", 2, one, options),
        make_request("images", 1, one, options),
        make_request("table", 1, one, options, [3]),
        make_request("table", 1, one, _options(fraction=0.5)),
    ]
    assert len({first, *changed}) == 6


def _spec(labels: ArrayLike, **given: float) -> LabelSpec:
    values = np.asarray(labels, dtype=np.float64)
    return choose_label_spec(values, where="mine", name="y", unit="m", **given)


def _bins(spec: LabelSpec) -> tuple[float, float, float, int]:
    return spec.low, spec.high, spec.bin_width, spec.num_bins


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        # Strengths of concrete
        (np.linspace(2.33, 82.6, 997), (2.0, 83.0, 1.0, 81)),
        (np.linspace(-0.0123, 0.037, 997), (-0.0125, 0.037, 0.0005, 99)),
        (np.linspace(13_500, 499_999, 997), (10_000.0, 500_000.0, 5_000.0, 98)),
        # Whole years: the oldest has a bin of its own
        (range(1, 102), (1.0, 101.0, 1.0, 101)),
        # Ratings: not ten bins between two of them
        (range(11), (0.0, 10.0, 1.0, 11)),
        ([1, 1.25, 1.5, 2.75], (1.0, 2.75, 0.25, 8)),
        ([0.1, 0.2, 0.1 + 0.2], (0.1, 0.1 + 0.2, 0.1, 3)),
    ],
)
def test_bins_are_chosen_from_the_labels(labels: ArrayLike, expected: tuple[float, float, float, int]) -> None:
    assert _bins(_spec(labels)) == pytest.approx(expected, rel=1e-12)


def test_given_ends_and_widths_are_used() -> None:
    scores = np.linspace(0.123, 4.8, 500)
    assert _bins(_spec(scores, low=0, high=5, bin_width=0.1)) == (0.0, 5.0, 0.1, 50)
    assert _bins(_spec(range(1, 102), low=0, high=121)) == (0.0, 121.0, 1.0, 121)
    assert _bins(_spec(range(1, 6), low=1, high=5, bin_width=1)) == (1.0, 5.0, 1.0, 5)
    assert _bins(_spec([3.0, 3.0], low=0, high=10)) == (0.0, 10.0, 0.1, 100)


@pytest.mark.parametrize("seed", range(20))
def test_every_label_is_in_range_and_about_a_hundred_bins_cover_it(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    scale = 10 ** drawn.uniform(-5, 5)
    labels = drawn.normal(scale * drawn.normal() * 3, scale, 500)
    spec = _spec(labels)
    assert spec.low <= labels.min() <= spec.low + spec.bin_width * (1 + 1e-9)
    assert spec.high - spec.bin_width * (1 + 1e-9) <= labels.max() <= spec.high
    assert 60 <= spec.num_bins <= 160
    into_bin = (labels - spec.low) / spec.bin_width - label_bins(labels, spec)
    assert into_bin.min() > -1e-3
    assert into_bin.max() < 1 + 1e-3


@pytest.mark.parametrize(
    ("width", "expected"),
    [(0.9, 1.0), (1.3, 1.0), (1.5, 2.0), (3.0, 2.0), (3.3, 5.0), (7.2, 10.0), (0.04, 0.05), (0.0014, 0.001)],
)
def test_nice_widths_are_near(width: float, expected: float) -> None:
    assert round_to_nice_width(width) == expected


def test_equal_labels_are_refused() -> None:
    with pytest.raises(InputError, match=r"mine: y: the labels must differ.* all are, got 2\.0"):
        _spec([2.0, 2.0, 2.0])


def test_labels_that_float32_cannot_tell_apart_are_refused() -> None:
    seconds = 1.6e9 + np.arange(0.0, 1000.0, 10.0)
    with pytest.raises(InputError, match=r"32 bits cannot represent bins of 10; subtract a constant$"):
        _spec(seconds)
    assert _spec(seconds - 1.6e9).num_bins == 100
    with pytest.raises(InputError, match=r"32 bits cannot represent bins of 1e-42; multiply the labels by a constant$"):
        _spec(np.arange(1, 100) * 1e-42)


@pytest.mark.parametrize("name", ["sts_b", "table", "../up", "", ".hidden", "a b"])
def test_names_of_other_sets_and_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="options: name: "):
        _options(name=name)


def test_name_and_label_must_be_given() -> None:
    with pytest.raises(InputError) as caught:
        read(OwnOptions, {}, where="options")
    assert [str(each) for each in caught.value.faults] == ["options: name: is missing", "options: label: is missing"]


def test_ends_of_the_bins_must_be_apart() -> None:
    with pytest.raises(InputError, match=r"low < high must hold, but got low=2, high=1"):
        _options(low=2, high=1)


def test_limits_of_the_shot_regions_must_not_cross() -> None:
    assert _options(many_above=9, few_below=10).few_below == 10
    with pytest.raises(InputError, match="a bin must not be many and few"):
        _options(many_above=9, few_below=11)


def test_splits_are_published_with_a_column_and_made_or_grouped_without_by_default() -> None:
    assert _options().splitting.split == "made"
    assert _options(group="person").splitting.split == "grouped"
    assert _options(split_column="part").splitting.split == "published"
    assert _options(split="natural").splitting.split == "natural"
    assert _options(split="grouped", split_column="part").splitting.split == "grouped"


@pytest.mark.parametrize("width", [1e-6, 1e-9, 1e-5])
def test_a_width_of_too_many_or_too_narrow_bins_is_refused_with_the_least(width: float) -> None:
    labels = np.linspace(0, 28, 300)
    with pytest.raises(InputError, match=r"mine: bin_width: must be at least 0\.00028 for labels from 0 to 28, got "):
        choose_label_spec(labels, where="mine", name="y", unit="mm", bin_width=width)
    assert choose_label_spec(labels, where="mine", name="y", unit="mm", bin_width=0.001).num_bins == 28_000


@pytest.mark.parametrize("ends", [(0, 43.4), (0, 1 / 3), (1e6, 1e6 + 1 / 3), (-7e-9, 2e-9), (0, 1e30)])
def test_the_least_width_of_a_refusal_is_accepted(ends: tuple[float, float]) -> None:
    labels = np.linspace(*ends, 300)
    with pytest.raises(InputError) as caught:
        choose_label_spec(labels, where="mine", name="y", unit="mm", bin_width=1e-30)
    least = float(str(caught.value).partition("at least ")[2].split()[0])
    choose_label_spec(labels, where="mine", name="y", unit="mm", bin_width=least)
