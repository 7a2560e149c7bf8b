"""Types of the arguments of public calls. Run with `pytest tests/test_signatures.py`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

import dirtune
from dirtune.errors import InputError
from dirtune.signatures import check_arguments, describe, is_instance

CALLS = [name for name in dirtune.__all__ if name not in {"InputError", "Study"}]


class Unexpected:
    """Value that no call takes."""


@pytest.mark.parametrize(
    ("annotation", "accepted", "refused"),
    [
        (str, ["", "a"], [b"a", 1, None, Path("a")]),
        (int, [0, np.int64(1)], [1.0, True, "1", None]),
        (float, [0.5, 1, np.float32(1), float("nan")], [True, "1", None]),
        (bool, [True, np.bool_(False)], [0, "yes", None]),
        (Path, [Path("a")], ["a", 1]),
        (str | None, ["a", None], [1]),
        (Literal["a", "b"], ["a"], ["c", 1, np.array(["a"])]),
        (Sequence[str], [["a"], ("a",), []], ["a", {"a": 1}, [1], np.array(["a"]), None]),
        (str | Sequence[str], ["a", ["a"]], [1, [None]]),
        (Mapping[str, Any], [{}, {"a": 1}], ["a", []]),
        (Callable[[str], None], [print], [1]),
        (np.ndarray, [np.zeros(2)], [[0.0]]),
        (Any, [None, 1, Unexpected()], []),
    ],
)
def test_a_value_has_the_type_of_an_annotation(annotation: Any, accepted: list[Any], refused: list[Any]) -> None:
    assert [value for value in accepted if not is_instance(value, annotation)] == []
    assert [value for value in refused if is_instance(value, annotation)] == []


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (str | Path | None, "a text or a path or None"),
        (str | Sequence[str], "a text or a list of texts"),
        (Sequence[str | Path], "a list of texts or paths"),
        (Literal["a", "b"] | None, "'a' or 'b' or None"),
        (Callable[[str], None], "a function"),
        (Mapping[str, Any], "a mapping"),
        (np.ndarray, "a ndarray"),
    ],
)
def test_an_annotation_in_words(annotation: Any, words: str) -> None:
    assert describe(annotation) == words


def test_all_wrong_arguments_are_reported_at_once_and_unknown_ones_with_the_nearest() -> None:
    def draw(study: str, *, width: int = 1, names: Sequence[str] = ()) -> str:
        return study

    checked = check_arguments(draw, "draw")
    assert checked("a", width=2, names=["b"]) == "a"
    assert inspect.signature(checked) == inspect.signature(draw)
    with pytest.raises(InputError) as caught:
        checked(None, width="2", names="b")
    assert str(caught.value).splitlines() == [
        "draw: study: must be a text, got None",
        "draw: width: must be a whole number, got '2'",
        "draw: names: must be a list of texts, got 'b'",
    ]
    with pytest.raises(TypeError, match=r"draw\(\): .*'wdth'; known: study, width, names \(did you mean 'width'\?\)"):
        checked("a", wdth=2)
    with pytest.raises(TypeError, match=r"draw\(\): missing a required argument: 'study'"):
        checked()


@pytest.mark.parametrize("name", CALLS)
def test_no_public_call_lets_a_wrong_type_or_an_unknown_name_in(name: str) -> None:
    """Every argument whose annotation can be checked refuses a value of no use, before anything is read."""
    call = getattr(dirtune, name)
    assert getattr(dirtune, name) is call
    # A study is checked when it is looked up, and data and labels when they are read
    free = {"study", "source", "data", "raw", "labels", "config", "view", "options", "report"}
    required = {
        each.name: "x"
        for each in inspect.signature(call).parameters.values()
        if each.default is inspect.Parameter.empty and each.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if not any(each.kind is inspect.Parameter.VAR_KEYWORD for each in inspect.signature(call).parameters.values()):
        with pytest.raises(TypeError, match=f"dirtune.{name}.*unknown_argument"):
            call(**required, unknown_argument=1)
    for argument in inspect.signature(call).parameters.keys() - free:
        with pytest.raises(InputError, match=f"dirtune.{name}: {argument}: must be "):
            call(**{**required, argument: Unexpected()})
