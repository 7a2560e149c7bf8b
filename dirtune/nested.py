"""Nested mappings, as YAML and JSON have them: merge, nest, and read by dotted path.

They are apart from `dirtune.config`, which imports torch: listing study files and presets needs no torch.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` updated by `overlay`, mapping by mapping.

    A mapping whose `name` changes is replaced, not merged: the settings of one encoder mean nothing to another.
    """
    result = dict(base)
    for key, value in overlay.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            # An overlay without a name changes settings of the encoder, loss or schedule that `base` names.
            is_renamed = "name" in value and value["name"] != below.get("name", value["name"])
            result[key] = value if is_renamed else merge(below, value)
        else:
            result[key] = value
    return result


def nest(path: str, value: Any) -> dict[str, Any]:
    """Return a value under a dotted path: `nest("a.b", 1) == {"a": {"b": 1}}`."""
    return nest_keys(path.split("."), value)


def nest_keys(keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a value under keys, which may have dots themselves: `nest_keys(["a", "b.c"], 1) == {"a": {"b.c": 1}}`."""
    for key in reversed(keys):
        value = {key: value}
    return value  # type: ignore[no-any-return]


def get_leaf(tree: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, or None if there is none."""
    current: Any = tree
    for part in path.split("."):
        if not isinstance(current, Mapping) or part not in current:
            return None
        current = current[part]
    return current


def iter_leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and value of every leaf."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from iter_leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
