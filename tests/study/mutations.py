"""Random changes of plain data, as hands and programs make them."""

from __future__ import annotations

import copy
import random
from typing import Any

ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.0,
    0.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    float("inf"),
    float("nan"),
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**30,
    "",
    " ",
    "0",
    "010",
    "1e-3",
    "null",
    "no",
    "..",
    "../../up",
    "a\nb",
    "\u03b2",
    "\u202e",
    "a" * 5000,
    "[bold]x[/bold]",
    "terms.conr.omega",
    "a..b",
    ".",
    [],
    [None],
    [1, "a"],
    [[1]],
    ["a", "a"],
    [1, 1.0, True],
    {},
    {"": 1},
    {"name": None},
    {"name": "nothing"},
    {"name": "conr"},
    {"distribution": "choice", "values": [1, 2]},
    {"distribution": "int", "low": 0, "high": 10**18},
    {"distribution": "loguniform", "low": 5e-324, "high": 1e308},
    {"a": {"b": {"c": [{}]}}},
)

PIECES = [*"::-\n\t'\"{}[]#|~%@\0\u2028\ufeff", "", "", "- ", "  ", "&a ", "*a", "<<: ", "!!int ", "010", "e9"]

Path = tuple[Any, ...]


def mutate(plain: Any, drawn: random.Random, changes: int) -> Any:
    """Return a copy of plain data with random changes: deleted, retyped, moved, renamed, repeated and inserted values."""
    changed = copy.deepcopy(plain)
    for _ in range(changes):
        if not isinstance(changed, dict | list):
            return changed
        drawn.choice((_delete, _retype, _retype, _move, _rename, _repeat, _insert, _insert))(changed, drawn)
    return changed


def mutate_text(text: str, drawn: random.Random, changes: int) -> str:
    """Return a text with characters deleted, repeated, moved or inserted."""
    for _ in range(changes):
        at = drawn.randrange(len(text) + 1)
        end = min(len(text), at + drawn.choice((1, 1, 2, 5, 40)))
        piece = drawn.choice([*PIECES, text[at:end], text[at:end] * 3])
        text = text[:at] + piece + text[drawn.choice((at, end)) :]
    return text


def _list_paths(plain: Any, path: Path = ()) -> list[Path]:
    children: Any = ()
    if isinstance(plain, dict):
        children = plain.items()
    elif isinstance(plain, list):
        children = enumerate(plain)
    return [each for key, value in children for each in ((*path, key), *_list_paths(value, (*path, key)))]


def _find(plain: Any, path: Path) -> Any:
    for key in path:
        plain = plain[key]
    return plain


def _choose(plain: Any, drawn: random.Random) -> tuple[Any, Any]:
    """Return a random container and one of its keys."""
    paths = _list_paths(plain)
    # Near the top as often as deep down, where most values are
    depth = drawn.choice(sorted({len(path) for path in paths}))
    path = drawn.choice([path for path in paths if len(path) == depth])
    return _find(plain, path[:-1]), path[-1]


def _delete(plain: Any, drawn: random.Random) -> None:
    if _list_paths(plain):
        container, key = _choose(plain, drawn)
        del container[key]


def _retype(plain: Any, drawn: random.Random) -> None:
    if _list_paths(plain):
        container, key = _choose(plain, drawn)
        value = container[key]
        near = [[value], {"name": value}, str(value), {str(value)[:50]: value}]
        container[key] = copy.deepcopy(drawn.choice((*ODD_VALUES, *near)))


def _move(plain: Any, drawn: random.Random) -> None:
    if _list_paths(plain):
        container, key = _choose(plain, drawn)
        value = copy.deepcopy(container[key])
        target, place = _choose(plain, drawn)
        target[place] = value


def _rename(plain: Any, drawn: random.Random) -> None:
    if _list_paths(plain):
        container, key = _choose(plain, drawn)
        if isinstance(container, dict):
            other = drawn.choice((key[:-1], key + "s", key.upper(), f" {key}", "", "seed", "name", "a.b", "x" * 300))
            container[other] = container.pop(key)


def _repeat(plain: Any, drawn: random.Random) -> None:
    lists = [value for path in _list_paths(plain) if isinstance(value := _find(plain, path), list) and value]
    if lists:
        chosen = drawn.choice(lists)
        chosen.extend([copy.deepcopy(drawn.choice(chosen))] * drawn.choice((1, 2, 50)))


def _insert(plain: Any, drawn: random.Random) -> None:
    containers = [
        plain,
        *(value for path in _list_paths(plain) if isinstance(value := _find(plain, path), dict | list)),
    ]
    chosen, value = drawn.choice(containers), copy.deepcopy(drawn.choice(ODD_VALUES))
    if isinstance(chosen, list):
        chosen.insert(drawn.randrange(len(chosen) + 1), value)
    else:
        words = ("seed", "objective", "name", "methods", "recipe", "arms", "space", "presets", "when", "extra", "", "1")
        chosen[drawn.choice(words)] = value
