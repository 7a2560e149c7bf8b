"""Run with `pytest tests/io/test_yamlfile.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.yamlfile import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-4", 1e-4), ("1E5", 1e5), ("-2e+3", -2000.0), ("1.5e-3", 1.5e-3), ("3", 3), ("e5", "e5"), ("1e", "1e")],
)
def test_exponents_are_read_as_numbers_and_words_as_text(text: str, value: object) -> None:
    read = parse_yaml(f"x: {text}", where="t")["x"]
    assert read == value
    assert type(read) is type(value)


def test_a_duplicate_key_is_refused_with_its_line() -> None:
    with pytest.raises(InputError, match=r"s\.yaml:2: .*duplicate key 'a'"):
        parse_yaml("a: 1\na: 2\n", where="s.yaml")


def test_broken_yaml_names_file_and_line() -> None:
    with pytest.raises(InputError, match=r"s\.yaml:2: not readable as YAML"):
        parse_yaml("a: 1\n  b: [2\n", where="s.yaml")


def test_yaml_cannot_construct_python_objects() -> None:
    with pytest.raises(InputError, match="not readable as YAML"):
        parse_yaml("x: !!python/object/apply:os.getcwd []", where="s.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")


def test_a_binary_file_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "b.yaml")
