"""YAML files: `1e-4` is a number, duplicate keys are refused, errors name the file and line."""

import re
from pathlib import Path
from typing import Any

import yaml

from dirtune.errors import Fault, InputError


class _Loader(yaml.SafeLoader):
    """Safe YAML 1.1 loader with the floats of YAML 1.2 that refuses duplicate keys."""

    def construct_unique_mapping(self, node: yaml.MappingNode) -> dict[Any, Any]:
        """Return a mapping; raise if a key is duplicate."""
        # PyYAML silently keeps the last value of a duplicate key
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, key in enumerate(keys):
            if key in keys[:position]:
                mark = node.value[position][0].start_mark
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", mark)
        return self.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _Loader.construct_unique_mapping)
# YAML 1.1 requires a dot and a signed exponent, so it would read 1e-4 as text
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(?:\d[\d_]*)(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_yaml(text: str, *, where: str) -> Any:
    """Return plain data from YAML text.

    Raises:
        InputError: the text is not YAML; the error names `where` and the line.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = f"{where}:{error.problem_mark.line + 1}" if error.problem_mark else where
        raise InputError(Fault(where=line, rule=f"not readable as YAML ({error.problem})")) from None
    except yaml.YAMLError as error:
        raise InputError(Fault(where=where, rule=f"not readable as YAML ({error})")) from None


def read_yaml(path: Path) -> Any:
    """Return plain data from a YAML file.

    Raises:
        InputError: the file is missing, not text, or not YAML.
    """
    return parse_yaml(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        InputError: the file is missing or not text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None
