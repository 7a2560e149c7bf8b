"""Run with `pytest tests/pipelines/test_own_options.py`."""

from __future__ import annotations

import pytest

from dirtune.errors import InputError
from dirtune.frozen import read
from pipelines.own_options import OwnOptions


def _options(**given: object) -> OwnOptions:
    return read(OwnOptions, {"name": "mine", "label": "y", **given}, where="options")


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


def test_splits_are_published_with_a_column_and_made_without_unless_asked() -> None:
    assert _options().splitting.split == "made"
    assert _options(split_column="part").splitting.split == "published"
    assert _options(split="natural").splitting.split == "natural"
    assert _options(split="grouped", split_column="part").splitting.split == "grouped"
