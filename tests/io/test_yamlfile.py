"""Run with `pytest tests/io/test_yamlfile.py`."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from dirtune.errors import InputError
from dirtune.io.yamlfile import dump_yaml, parse_yaml, read_yaml


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


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("a: does: it work?", "a text with a colon and a blank needs quotes"),
        ("a: @home", "a text that begins with it needs quotes"),
        ("a: *home", "a text that begins with * needs quotes"),
        ("a:\n\tb: 1", "indent with blanks, not with tabs"),
        ("a: 1\n---\na: 2", "a file has one, without --- between"),
    ],
)
def test_faults_that_are_often_made_have_a_remedy(text: str, remedy: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, where="t")
    assert str(caught.value).endswith(f"; {remedy})")


def test_zero_has_no_sign() -> None:
    assert str(parse_yaml("[-0.0, 0.0, -0e0]", where="t")) == "[0.0, 0.0, 0.0]"


def test_yaml_cannot_construct_python_objects() -> None:
    with pytest.raises(InputError, match="not readable as YAML"):
        parse_yaml("x: !!python/object/apply:os.getcwd []", where="s.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: no such file"):
        read_yaml(tmp_path / "none.yaml")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_editors_and_shells_on_windows_are_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "w.yaml").write_bytes("name: größer\r\nseeds: [1]\r\n".encode(encoding))
    assert read_yaml(tmp_path / "w.yaml") == {"name": "größer", "seeds": [1]}


def test_a_binary_file_is_refused_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_yaml(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-007", -7),
        ("08", 8),
        ("+010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("1:00", "1:00"),
        ("12:30:45", "12:30:45"),
        ("1:30.5", "1:30.5"),
        (".5", 0.5),
        ("5.", 5.0),
        ("1.e3", 1000.0),
        (".inf", float("inf")),
        ("-.INF", float("-inf")),
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("nil", "nil"),
        ("2024-01-05", "2024-01-05"),
        ("2024-01-05 10:00:00", "2024-01-05 10:00:00"),
        ("=", "="),
        ("<<", "<<"),
        ("'010'", "010"),
        ("!!int 010", 10),
        ("!!float 3", 3.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"no"', "no"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: object) -> None:
    found = parse_yaml(f"x: {text}", where="t")["x"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["!!int 1_0", "!!float 1_0.5", "!!int x", '"\\ud83d"', '{"\\ude00": 1}'])
def test_what_only_python_reads_as_a_value_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^t:1: not readable as YAML"):
        parse_yaml(f"x: {text}", where="t")


def test_keys_are_texts_as_written() -> None:
    text = "no: 1\non: 2\nnull: 3\ny: 4\n010: 5\n1: 6\n1.0: 7\n2024-01-05: 8\ntrue: 9\n~: 10\n"
    assert list(parse_yaml(text, where="t")) == ["no", "on", "null", "y", "010", "1", "1.0", "2024-01-05", "true", "~"]


@pytest.mark.parametrize("pair", [("1", "'1'"), ("true", '"true"'), ("a", "a"), ("null", "'null'")])
def test_keys_of_one_text_are_duplicates_however_they_are_written(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"t:3: .*duplicate key"):
        parse_yaml(f"x:\n  {pair[0]}: 1\n  {pair[1]}: 2\n", where="t")


def test_keys_that_are_lists_are_refused() -> None:
    with pytest.raises(InputError, match=r"t:1: .*a key must be a text"):
        parse_yaml("? [a]\n: 1\n", where="t")


def test_merge_keys_are_merged_and_own_keys_win() -> None:
    text = (
        "a: &a {p: 1, q: {r: 1}}\nb: &b {p: 2, s: 3}\nc: {<<: *a, p: 9}\nd: {p: 9, <<: [*a, *b]}\ne: {<<: *a, <<: *b}\n"
    )
    found = parse_yaml(text, where="t")
    assert found["c"] == {"p": 9, "q": {"r": 1}}
    assert found["d"] == {"p": 9, "q": {"r": 1}, "s": 3}
    assert found["e"] == {"p": 1, "q": {"r": 1}, "s": 3}
    with pytest.raises(InputError, match=r"t:1: .*a merge key"):
        parse_yaml("{<<: 3}", where="t")


@pytest.mark.parametrize(
    "text", ["!!binary aGk=", "!!set {a, b}", "!!timestamp 2024-01-05", "!!omap [a: 1]", "!custom 1", "!!int many"]
)
def test_values_that_are_no_plain_data_are_refused_with_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(f"x: {text}\n", where="t")
    assert "\n" not in str(caught.value)
    assert "not readable as YAML" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("[" * 300 + "]" * 300, "more than 50 lists and mappings inside one another"),
        ("[" * 100_000, "more than 50 lists and mappings inside one another"),
        ("{a: " * 300 + "1" + "}" * 300, "more than 50 lists and mappings inside one another"),
        ("".join(f"{' ' * level}a:\n" for level in range(300)), "more than 50 lists and mappings inside one another"),
        ("- " * 300 + "1", "more than 50 lists and mappings inside one another"),
        ("&a [*a]", "an alias of a value inside the value"),
        ("a: &a {b: *a}", "an alias of a value inside the value"),
        ("a: &a {<<: *a}", "an alias of a value inside the value"),
        ("x: 1e999", "the number is too large"),
        ("x: 1" + "0" * 5000, "the number has too many digits"),
        ("x: 1\0", "special characters are not allowed"),
        (" " * 1_000_001, "is larger than 1,000,000 characters"),
    ],
)
def test_hostile_text_is_one_line_at_once(text: str, rule: str) -> None:
    begin = time.process_time()
    with pytest.raises(InputError) as caught:
        parse_yaml(text, where="t")
    assert time.process_time() - begin < 2
    assert rule in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "shape", ["[{0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}, {0}]", "{{a: {0}, b: {0}, c: {0}, d: {0}}}"]
)
def test_aliases_that_repeat_aliases_are_refused_before_they_are_written_out(shape: str) -> None:
    lines = ["x0: &x0 [1, 2]"] + [f"x{level}: &x{level} {shape.format(f'*x{level - 1}')}" for level in range(1, 40)]
    begin = time.perf_counter()
    with pytest.raises(InputError, match=r"more than (100,000 values|50 lists)"):
        parse_yaml("\n".join(lines), where="t")
    assert time.perf_counter() - begin < 2


def test_aliases_that_make_a_chain_deeper_than_the_text_are_refused() -> None:
    lines = ["x0: &x0 [1]"] + [f"x{level}: &x{level} [*x{level - 1}]" for level in range(1, 300)]
    with pytest.raises(InputError, match="more than 50 lists and mappings inside one another"):
        parse_yaml("\n".join(lines), where="t")


def test_written_texts_are_read_as_they_were() -> None:
    texts = [
        "1e5",
        "010",
        "0o17",
        "no",
        "1:00",
        "1_000",
        "2024-01-05",
        "null",
        "~",
        "",
        "<<",
        "=",
        "é",
        "a: b",
        "- a",
        "#",
    ]
    plain = {"texts": texts, **dict.fromkeys(texts, 1), "numbers": [1, 1.5, 1e-5, 1e22, True, None, float("inf")]}
    shared = {"again": plain, "first": plain}
    assert parse_yaml(dump_yaml(shared), where="t") == shared
    assert "&" not in dump_yaml(shared)
