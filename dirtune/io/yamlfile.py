"""Reading YAML as the field writes it: `1e-4` is a number, a key stands once, faults name file and line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from dirtune.errors import Fault, InputError


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1, with the floats of YAML 1.2 and without silent duplicate keys."""


# YAML 1.1 wants a dot and a signed exponent, so that 1e-4 would be read as text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _mapping_without_duplicates(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for position, key in enumerate(keys):
        if key in keys[:position]:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {key!r} stands twice", node.value[position][0].start_mark
            )
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_duplicates)


def parse_yaml(text: str, *, where: str) -> Any:
    """Plain data from YAML text; an `InputError` names `where` and the line if it cannot be read."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"{where}:{error.problem_mark.line + 1}" if error.problem_mark else where
        raise InputError(Fault(where=line, rule=f"not readable as YAML ({error.problem})")) from None
    except yaml.YAMLError as error:
        raise InputError(Fault(where=where, rule=f"not readable as YAML ({error})")) from None


def read_yaml(path: Path) -> Any:
    """Plain data from a YAML file.

    Raises:
        InputError: the file is missing, not text, or not YAML.
    """
    return parse_yaml(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: the file is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None
