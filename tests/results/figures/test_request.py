from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.figures._request import PlotRequest, source_of
from tests.results.figures.stores import compared, request


def test_each_is_one_of_the_known_and_the_first_by_default(tmp_path: Path) -> None:
    assert request(tmp_path).one_of(("arm", "trial")) == "arm"
    assert request(tmp_path, each="trial").one_of(("arm", "trial")) == "trial"
    with pytest.raises(InputError, match=r"unknown each, got 'tiral'.*did you mean 'trial'"):
        request(tmp_path, each="tiral").one_of(("arm", "trial"))


def test_one_arm_is_none_one_or_a_fault(tmp_path: Path) -> None:
    assert request(tmp_path).one_arm() is None
    assert request(tmp_path, arms=("a",)).one_arm() == "a"
    with pytest.raises(InputError, match="arms: this figure shows one arm"):
        request(tmp_path, arms=("a", "b")).one_arm()


def test_the_table_has_the_options_and_a_caption_begins_with_them(tmp_path: Path) -> None:
    options = {"metric": "pearson", "split": "val", "selection": "last", "reference": "conr"}

    table = PlotRequest(root=compared(tmp_path), study="study", **options).table()

    assert {name: getattr(table, name) for name in options} == options
    assert source_of(table).startswith("study, val split, last epoch; configuration by")
