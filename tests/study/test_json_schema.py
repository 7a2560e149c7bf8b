"""Run with `pytest tests/study/test_json_schema.py`."""

from __future__ import annotations

import json

import jsonschema
import pytest

from dirtune.io.yamlfile import parse_yaml, read_yaml
from dirtune.study.files import list_shipped_studies
from dirtune.study.json_schema import make_json_schema

SCHEMA = make_json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FILES = sorted({file.path for file in list_shipped_studies().values()})


def find_paths(text: str) -> set[str]:
    """Return the dotted paths of what an editor would underline."""
    errors = VALIDATOR.iter_errors(parse_yaml(text, where="study"))
    return {".".join(map(str, error.absolute_path)) for error in errors}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_study_fits(path: object) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read_yaml(path))] == []


def test_editors_find_the_schema_beside_the_shipped_studies() -> None:
    folder = FILES[0].parent
    stored = json.loads((folder / "study.schema.json").read_text(encoding="utf-8"))
    assert stored == SCHEMA, "`dirtune schema > search_spaces/study.schema.json` writes it again"
    for path in FILES:
        assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=study.schema.json\n")


def test_the_faults_of_a_file_are_found_where_they_are() -> None:
    text = """
        name: My Study
        question: [no, text]
        seeds: []
        reference: vanilla
        sedes: [0]
        base: {data: {name: digits}, model: {encoder: {name: resnet34}}, recipe: dirr}
        arms:
          vanilla:
          conr: {terms: {conr: {omga: 1, tau: -1}}}
        space: {terms.conr.tau: {distribution: uniform, low: zero, high: 1}}
    """
    assert find_paths(text) >= {
        "",
        "name",
        "question",
        "seeds",
        "base",
        "arms.conr",
        "space.terms.conr.tau",
    }


def test_an_overlay_may_change_one_setting_of_an_encoder() -> None:
    text = """
        name: small
        question: Is it?
        seeds: [0]
        reference: a
        base: {data: {name: digits}, model: {encoder: {name: cnn}}}
        arms: {a: {}, b: {model: {encoder: {channels: 8}}}, c: null}
    """
    assert find_paths(text) == set()
    assert find_paths(text.replace("a: {}", "a: {seed: 1}")) == {"arms.a"}


def test_settings_carry_their_documentation() -> None:
    assert "Temperature" in SCHEMA["$defs"]["ConR"]["properties"]["tau"]["description"]
    assert SCHEMA["properties"]["arms"]["additionalProperties"]["anyOf"][0] == {"$ref": "#/$defs/Overlay"}
