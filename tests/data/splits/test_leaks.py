"""`pytest tests/data/splits/test_leaks.py`: leaks, counted by hand and on the published lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.data.splits import find_leaks, remove_leaks

STS_B = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "sts_b"

NAMES = np.array(["train", "train", "train", "train", "val", "val", "test", "test", "left_out"])
IDS = np.array(list("dcbaefghi"), dtype=object)
CONTENTS = ["x", "x", "y", "z", "y", "w", "x", "y", "w"]
GROUPS = ["1", "2", "3", "3", "3", "4", "5", "2", "4"]


def test_contents_are_found_between_and_inside_splits():
    found = find_leaks(NAMES, ids=IDS, contents=CONTENTS)
    assert [(each.splits, each.values, each.earlier.tolist(), each.later.tolist()) for each in found] == [
        (("train", "val"), 1, [2], [4]),
        (("train", "test"), 2, [0, 1, 2], [6, 7]),
        (("val", "test"), 1, [4], [7]),
        # "c" comes before "d", wherever the rows stand
        (("train", "train"), 1, [0], [1]),
    ]
    assert [each.format() for each in found] == [
        "1 content in both train and val: 1 of 2 val rows, 1 train rows",
        "2 contents in both train and test: 2 of 2 test rows, 3 train rows",
        "1 content in both val and test: 1 of 2 test rows, 1 val rows",
        "1 content more than once in train: 1 row repeats another",
    ]


def test_groups_may_repeat_inside_a_split_but_not_cross():
    found = find_leaks(NAMES, ids=IDS, groups=GROUPS)
    assert [(each.kind, each.splits, each.earlier.tolist(), each.later.tolist()) for each in found] == [
        ("group", ("train", "val"), [2, 3], [4]),
        ("group", ("train", "test"), [1], [7]),
    ]


def test_equal_ids_are_found_too():
    found = find_leaks(np.array(["train", "test"]), ids=np.array(["a", "a"], dtype=object))
    assert [each.format() for each in found] == ["1 id in both train and test: 1 of 1 test rows, 1 train rows"]


def test_splits_without_leaks_have_no_findings():
    clean = np.array(["train", "val", "test"])
    ids = np.array(["a", "b", "c"], dtype=object)
    assert find_leaks(clean, ids=ids, contents=["x", "y", "z"], groups=["1", "2", "3"]) == []
    assert remove_leaks(clean, []).tolist() == clean.tolist()


def test_earlier_copies_are_removed_and_test_stays_complete():
    cleaned = remove_leaks(NAMES, find_leaks(NAMES, ids=IDS, contents=CONTENTS, groups=GROUPS))
    assert cleaned.tolist() == [
        "left_out",
        "left_out",
        "left_out",
        "train",
        "left_out",
        "val",
        "test",
        "test",
        "left_out",
    ]
    assert find_leaks(cleaned, ids=IDS, contents=CONTENTS) == []
    assert NAMES[0] == "train"


def test_copies_inside_test_are_reported_and_kept():
    splits, ids = np.array(["test", "test"]), np.array(["a", "b"], dtype=object)
    found = find_leaks(splits, ids=ids, contents=["x", "x"])
    assert found[0].format() == "1 content more than once in test: 1 row repeats another"
    assert remove_leaks(splits, found).tolist() == ["test", "test"]


def test_every_agedb_test_image_shows_a_person_of_training(agedb):
    found = find_leaks(agedb.published.astype(np.str_), ids=agedb.ids, groups=agedb.groups.tolist())
    assert [each.format() for each in found] == [
        "541 groups in both train and val: 2,140 of 2,140 val rows, 11,842 train rows",
        "544 groups in both train and test: 2,140 of 2,140 test rows, 11,805 train rows",
        "526 groups in both val and test: 2,079 of 2,140 test rows, 2,096 val rows",
    ]


@pytest.mark.skipif(not STS_B.is_dir(), reason="the STS-B-DIR files are not available")
def test_the_known_duplicates_of_sts_b_are_found_and_can_be_removed():
    splits, contents = [], []
    for split, name in (("train", "train_new"), ("val", "dev_new"), ("test", "test_new")):
        for line in (STS_B / f"{name}.tsv").read_bytes().decode().removesuffix("\n").split("\n")[1:]:
            *_, first, second, score = line.split("\t")
            splits.append(split)
            contents.append((first, second, float(score)))
    ids = np.array([f"{row:05d}" for row in range(len(splits))], dtype=object)
    names = np.array(splits)
    found = find_leaks(names, ids=ids, contents=contents)
    assert {each.splits: each.values for each in found if each.splits[0] != each.splits[1]} == {
        ("train", "val"): 7,
        ("train", "test"): 15,
        ("val", "test"): 2,
    }
    assert [len(each.earlier) for each in found if each.splits == ("train", "train")] == [21]
    cleaned = remove_leaks(names, found)
    assert np.count_nonzero(cleaned == "test") == 1000
    assert [each.splits for each in find_leaks(cleaned, ids=ids, contents=contents)] in ([], [("test", "test")])
