"""Run with `pytest tests/cli/test_arguments.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dirtune.cli import app
from dirtune.cli.arguments import parse_assignments, parse_changes, parse_names
from dirtune.config import TrialConfig
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.pipelines import images, table

UCI = "Concrete compressive strength(MPa, megapascals) "


def _options(*texts: str) -> table.Options:
    given = parse_assignments(["name=c", "label=y", *texts], "--option", table.Options)
    return read(table.Options, given, where="options")


@pytest.mark.parametrize(
    "name",
    [
        "2020",
        "no",
        "1e3",
        "010",
        "# rings",
        "null",
        "t: mean",
        "@y",
        "*y",
        "% fat",
        "[kg]",
        "{a}",
        "'a'",
        "a=b",
        "1:30",
        "é",
    ],
)
def test_names_are_taken_as_they_are_typed(name: str) -> None:
    given = parse_assignments([f"label={name}", f"unit={name}"], "--option", table.Options)
    assert given == {"label": name, "unit": name}
    if not name.startswith("["):
        assert _options(f"ignore={name}").ignore == (name,)


def test_column_names_are_trimmed_as_headers_are() -> None:
    given = parse_assignments([f"label={UCI}", "name=c"], "--option", table.Options)
    assert read(table.Options, given, where="options").label == UCI.strip()


@pytest.mark.parametrize(
    ("text", "delimiter"), [("|", "|"), (":", ":"), ("\t", "\t"), ("\\t", "\t"), ("tab", "\t"), (" ", " "), (";", ";")]
)
def test_every_delimiter_can_be_typed(text: str, delimiter: str) -> None:
    assert _options(f"delimiter={text}").delimiter == delimiter


def test_lists_of_names_are_texts_whatever_they_look_like() -> None:
    assert _options("ignore=[2020, no, 010, 'a, b', null]").ignore == ("2020", "no", "010", "a, b", "null")
    assert _options("features=[a]").features == ("a",)
    with pytest.raises(InputError, match="--option ignore:1: not readable as YAML"):
        _options("ignore=[a")


def test_numbers_and_switches_are_read_as_in_a_study() -> None:
    options = _options("skip_bad=010", "standardize=false", "held_back=2e-1", "decimal=,", "thousands=.", "symbols=%")
    assert (options.skip_bad, options.standardize, options.held_back) == (10, False, 0.2)
    assert (options.decimal, options.thousands, options.symbols) == (",", ".", "%")
    assert parse_assignments(["white=4095"], "--option", images.Options) == {"white": 4095}
    with pytest.raises(InputError, match="standardize: must be true or false, got 'yes'"):
        _options("standardize=yes")


def test_settings_of_a_trial_are_texts_where_they_name_something() -> None:
    texts = ["data.name=2024", "seed=010", "recipe.epochs=1e1", "model.encoder={name: cnn}", "loss.name=no"]
    given: dict[str, Any] = parse_assignments(texts, "--set", TrialConfig)
    assert given["data.name"] == "2024"
    assert given["loss.name"] == "no"
    assert given["seed"] == 10
    assert given["model.encoder"] == {"name": "cnn"}


def test_a_setting_that_is_given_twice_is_refused() -> None:
    with pytest.raises(InputError, match="--option: unit: is given more than once"):
        _options("unit=°C", "unit=K")


@pytest.mark.parametrize("text", ["unit", "=3", "="])
def test_assignments_without_a_name_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="--option: must be name=value, got "):
        _options(text)


def test_names_of_arms_may_have_equals_signs() -> None:
    assert parse_names(["conr/beta=0.1=ConR", "010=no"], "--published-as") == {"conr/beta=0.1": "ConR", "010": "no"}
    with pytest.raises(InputError, match="must be name=value, got 'ConR'"):
        parse_names(["ConR"], "--published-as")


def test_a_study_of_the_results_may_be_given_by_its_file(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("name: mine\n")
    (tmp_path / "other/results/trials").mkdir(parents=True)
    with pytest.raises(InputError, match="mine"):
        app(["check", str(tmp_path / "own.yaml"), "--results", str(tmp_path)], standalone_mode=False)


def test_arms_with_an_equals_sign_are_changed_by_their_name() -> None:
    texts = ["arms.beta=0.5.recipe.epochs=9", "arms.b.alpha=2", "arms.c={data: {name: a.b}}", "question=a.b=c"]
    assert parse_changes(texts) == {
        "arms.beta=0.5.recipe.epochs": 9,
        "arms.b.alpha": 2,
        "arms.c": {"data": {"name": "a.b"}},
        "question": "a.b=c",
    }
