from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.results.figures._request import PlotRequest, format_source
from tests.results.figures.stores import make_request, write_compared_arms


def test_each_is_a_known_value_and_the_first_by_default(tmp_path: Path) -> None:
    assert make_request(tmp_path).choose_each(("arm", "trial")) == "arm"
    assert make_request(tmp_path, each="trial").choose_each(("arm", "trial")) == "trial"
    with pytest.raises(InputError, match=r"unknown each, got 'tiral'.*did you mean 'trial'"):
        make_request(tmp_path, each="tiral").choose_each(("arm", "trial"))


def test_several_arms_of_a_figure_of_one_arm_are_an_error(tmp_path: Path) -> None:
    assert make_request(tmp_path).get_arm() is None
    assert make_request(tmp_path, arms=("a",)).get_arm() == "a"
    with pytest.raises(InputError, match="arms: this figure shows one arm"):
        make_request(tmp_path, arms=("a", "b")).get_arm()


def test_the_table_has_the_options_and_a_caption_begins_with_them(tmp_path: Path) -> None:
    options = {"metric": "pearson", "split": "val", "selection": "last", "reference": "conr"}

    table = PlotRequest(root=write_compared_arms(tmp_path), study="study", **options).build_table()

    assert {name: getattr(table, name) for name in options} == options
    assert format_source(table).startswith("study, val split, last epoch; configuration by")
