"""Run with `pytest tests/test_frozen.py`."""

from __future__ import annotations

import hashlib
import math
from datetime import date
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, model_validator

from dirtune.errors import InputError
from dirtune.frozen import Added, Frozen, hash_json, read, to_canonical_json, to_identity


class Circle(Frozen):
    name: Literal["circle"] = "circle"
    radius: float = Field(default=1.0, gt=0)


class Box(Frozen):
    name: Literal["box"] = "box"
    width: float = 1.0
    height: float = 1.0


class Slider(Frozen):
    kind: Literal["slider"]
    """A tag without a default."""
    low: float = 0.0


class Dial(Frozen):
    kind: Literal["dial"]
    high: float = 1.0


class Size(Frozen):
    rows: int = 1
    ratio: float = 0.5

    @model_validator(mode="after")
    def _ratio_fits(self) -> Size:
        if self.ratio > self.rows:
            raise ValueError("ratio <= rows must hold")
        return self


class Drawing(Frozen):
    title: str
    shape: Annotated[Circle | Box, Field(discriminator="name")] = Circle()
    size: Size | None = None
    sizes: dict[str, Size] | None = None
    inputs: dict[str, Annotated[Slider | Dial, Field(discriminator="kind")]] | None = None
    pages: tuple[Size, ...] = ()
    form: Literal["a3", "a4"] = "a4"
    dark: bool = False


def drawing(**settings: Any) -> Drawing:
    return read(Drawing, {"title": "t", **settings}, where="d.yaml")


def faults_of(raw: Any, prefix: str = "") -> list[str]:
    with pytest.raises(InputError) as caught:
        read(Drawing, raw, where="d.yaml", prefix=prefix)
    return [str(fault) for fault in caught.value.faults]


def fault_of(**settings: Any) -> str:
    (fault,) = faults_of({"title": "t", **settings})
    return fault


# --- Values


def test_a_value_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Circle().radius = 2.0  # type: ignore[misc]


def test_values_of_equal_content_are_equal_and_usable_as_keys() -> None:
    assert {Box(width=2.0), Box(width=2.0, height=1.0)} == {Box(width=2.0)}


# --- Identity


def test_canonical_json_depends_on_content_alone() -> None:
    text = to_canonical_json({"b": [1, 2.5, None, True], "a": {"ü": "x"}})
    assert text == r'{"a":{"\u00fc":"x"},"b":[1,2.5,null,true]}'
    assert text == to_canonical_json({"a": {"ü": "x"}, "b": [1, 2.5, None, True]})
    assert to_canonical_json([1, 2]) != to_canonical_json([2, 1])


def test_canonical_json_does_not_depend_on_the_order_of_keys() -> None:
    assert to_canonical_json({"b": 1, "a": [1, 2]}) == to_canonical_json({"a": [1, 2], "b": 1}) == '{"a":[1,2],"b":1}'


def test_a_digest_is_the_beginning_of_the_sha_256_of_the_canonical_text() -> None:
    expected = hashlib.sha256(b'{"a":1,"b":2}').hexdigest()
    assert hash_json({"b": 2, "a": 1}) == expected[:16]
    assert hash_json({"b": 2, "a": 1}, length=64) == expected
    assert hash_json({"b": 2, "a": 1}) != hash_json({"b": 2, "a": 2})


# --- Reading


class _Inner(Frozen):
    old: int = 1
    late: Annotated[int, Added()] = 2


class _Outer(Frozen):
    inner: _Inner | None = _Inner()
    share: Annotated[float, Added()] = Field(default=1.0, gt=0)


def test_an_added_field_is_part_of_the_identity_unless_it_has_its_default() -> None:
    assert to_identity(_Outer()) == {"inner": {"old": 1}}
    assert to_identity(_Outer(inner=None)) == {"inner": None}
    changed = _Outer(inner=_Inner(old=3, late=4), share=0.5)
    assert to_identity(changed) == {"inner": {"old": 3, "late": 4}, "share": 0.5}
    assert _Outer().model_dump(mode="json") == {"inner": {"old": 1, "late": 2}, "share": 1.0}


def test_lists_are_valid_tuples_and_integers_are_valid_floats() -> None:
    found = drawing(pages=[{"rows": 2}, {"ratio": 1}], shape={"name": "box", "width": 3})
    assert found.pages == (Size(rows=2), Size(ratio=1.0))
    assert found.shape == Box(width=3.0)
    assert type(found.pages[1].ratio) is float


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"title": 3}, "title: should be a valid string (write it in quotes), got 3"),
        ({"dark": 1}, "dark: must be true or false, got 1"),
        ({"dark": "yes"}, "dark: must be true or false, got 'yes'"),
        ({"size": {"rows": 1.0}}, "size.rows: should be a valid integer, got 1.0"),
        ({"size": {"rows": True}}, "size.rows: should be a valid integer, got True"),
        (
            {"size": {"ratio": "0.5"}},
            "size.ratio: should be a valid number (write it without quotes and underscores), got '0.5'",
        ),
        (
            {"size": {"rows": "1_000"}},
            "size.rows: should be a valid integer (write it without quotes and underscores), got '1_000'",
        ),
        ({"size": {"ratio": "nan"}}, "size.ratio: should be a valid number, got 'nan'"),
        ({"shape": "box"}, "shape: must be a mapping such as {name: box}, got 'box'"),
        ({"size": {"ratio": True}}, "size.ratio: should be a valid number, got True"),
        ({"size": {"ratio": math.nan}}, "size.ratio: should be a finite number, got nan"),
        ({"size": {"ratio": math.inf}}, "size.ratio: should be a finite number, got inf"),
        ({"form": "a5"}, "form: should be 'a3' or 'a4', got 'a5'"),
        ({"shape": {"name": "circle", "radius": 0}}, "shape.radius: should be greater than 0, got 0"),
        ({"size": {"ratio": 2.0}}, "size: ratio <= rows must hold, got {'ratio': 2.0}"),
        ({"pages": [{}, {"rows": "x"}]}, "pages.1.rows: should be a valid integer, got 'x'"),
        ({"sizes": {"big": {"rows": "x"}}}, "sizes.big.rows: should be a valid integer, got 'x'"),
    ],
)
def test_a_value_of_another_type_is_rejected_with_key_rule_and_value(settings: dict[str, Any], message: str) -> None:
    assert fault_of(**settings) == f"d.yaml: {message}"


@pytest.mark.parametrize(
    ("settings", "key", "known"),
    [
        ({"titel": 1}, "titel", "dark, form, inputs, pages, shape, size, sizes, title"),
        ({"size": {"row": 1}}, "size.row", "ratio, rows"),
        ({"shape": {"name": "box", "wdth": 1}}, "shape.wdth", "height, name, width"),
        ({"sizes": {"big": {"row": 1}}}, "sizes.big.row", "ratio, rows"),
        ({"pages": [{}, {"row": 1}]}, "pages.1.row", "ratio, rows"),
        ({"inputs": {"a.b": {"kind": "dial", "hihg": 1}}}, "inputs.a.b.hihg", "high, kind"),
    ],
)
def test_an_unknown_key_is_rejected_with_the_known_keys(settings: dict[str, Any], key: str, known: str) -> None:
    got = key.rpartition(".")[2]
    assert f"d.yaml: {key}: unknown key, got {got!r}; known: {known} (did you mean" in fault_of(**settings)


def test_a_union_selects_its_member_by_the_tag_alone() -> None:
    assert fault_of(shape={"name": "blox"}) == (
        "d.yaml: shape.name: unknown name, got 'blox'; known: box, circle (did you mean 'box'?)"
    )
    assert fault_of(shape={"radius": 1.0}) == "d.yaml: shape.name: is missing"
    assert fault_of(inputs={"a": {"kind": "x"}}).startswith(
        "d.yaml: inputs.a.kind: unknown kind, got 'x'; known: dial, slider"
    )
    assert "radius" in fault_of(shape={"name": "box", "radius": 1.0})


def test_all_faults_are_reported_at_once_below_the_prefix() -> None:
    faults = faults_of({"sise": 1, "shape": {"name": "box", "width": "w"}}, prefix="base.drawing")
    assert [fault.partition(": ")[2].partition(":")[0] for fault in sorted(faults)] == [
        "base.drawing.shape.width",
        "base.drawing.sise",
        "base.drawing.title",
    ]
    assert "d.yaml: base.drawing.title: is missing" in faults


@pytest.mark.parametrize("raw", [None, 3, "title", [1, 2]])
def test_a_configuration_must_be_a_mapping(raw: object) -> None:
    (fault,) = faults_of(raw)
    assert "must be a mapping of settings" in fault


def test_values_that_are_not_plain_data_are_rejected() -> None:
    itself: list[object] = []
    itself.append(itself)
    for value in (date(2026, 1, 1), {1, 2}, itself):
        (fault,) = faults_of({"title": value})
        assert fault.startswith("d.yaml: title")
        assert "must be plain data" in fault


def test_keys_that_are_not_texts_are_rejected_and_not_renamed() -> None:
    assert faults_of({"title": "t", "sizes": {True: {}, None: {}}}) == [
        "d.yaml: sizes: keys must be texts (write them in quotes), got True",
        "d.yaml: sizes: keys must be texts (write them in quotes)",
    ]


class Range(Frozen):
    values: tuple[bool | int | float | str | None, ...] = Field(min_length=1)
    counts: tuple[int, ...] = Field(default=(1,), min_length=1)


def test_a_value_that_is_none_of_several_scalars_is_one_fault() -> None:
    with pytest.raises(InputError) as caught:
        read(Range, {"values": [[1, 2], 3], "counts": ["a"]}, where="r")
    assert [str(fault) for fault in caught.value.faults] == [
        "r: values.0: must be a number, a text, true, false or null, got [1, 2]",
        "r: counts.0: should be a valid integer, got 'a'",
    ]
    with pytest.raises(InputError, match=r"values: .*must not be empty"):
        read(Range, {"values": []}, where="r")
