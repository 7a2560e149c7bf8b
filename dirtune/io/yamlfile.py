"""YAML files, as the core schema of YAML 1.2 reads them: `010` is ten, `1e-4` a number, `no` and `1:30` are texts.

Keys are texts as written, duplicate keys are refused, merge keys (`<<`) are merged, and errors name the file and line. A file
of any content takes little time and memory: its size, its depth, and the values that its aliases repeat are limited.
"""

import codecs
import io
import re
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from dirtune.errors import Fault, InputError

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 50
"""Largest number of lists and mappings inside one another."""
MAX_VALUES = 100_000
"""Largest number of values, with those that aliases repeat."""
_TAG = "tag:yaml.org,2002:"
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_RESOLVERS = (
    ("bool", re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    ("null", re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
    # Before floats, whose expression includes whole numbers
    ("int", _INT, "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", re.compile(r"<<"), "<"),
)


_HINTS = {
    "mapping values are not allowed here": "; a text with a colon and a blank needs quotes",
    r"'\t' that cannot start any token": "; indent with blanks, not with tabs",
    "that cannot start any token": "; a text that begins with it needs quotes",
    "found undefined alias": "; a text that begins with * needs quotes",
    "but found another document": "; a file has one, without --- between",
}
"""Remedies by a part of PyYAML's sentence on a problem."""


class _CoreSchema(Composer, SafeConstructor, Resolver):
    """Composer and constructor of the core schema of YAML 1.2 with merge keys."""

    # Without those of YAML 1.1, such as octal and sexagesimal numbers, dates, and booleans of other words
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    yaml_constructors: ClassVar[dict[str | None, Any]] = {}
    peek_event: Callable[[], Any]
    depth = 0
    count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node; raise if it is too deep for the stack of Python."""
        self.depth += 1
        self.count += 1
        if self.count > MAX_VALUES:
            rule = f"more than {MAX_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, rule, self._get_mark())
        if self.depth > MAX_DEPTH:
            rule = f"more than {MAX_DEPTH} lists and mappings inside one another"
            raise yaml.composer.ComposerError(None, None, rule, self._get_mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def _get_mark(self) -> Any:
        return self.peek_event().start_mark

    def get_single_node(self) -> yaml.Node | None:
        """Compose the document; raise if aliases repeat too many values."""
        node: yaml.Node | None = super().get_single_node()
        if node is not None:
            _check_size(node)
        return node

    def construct_map(self, node: yaml.MappingNode) -> dict[str, Any]:
        """Return a mapping with its keys as written; its own keys win over merged ones, and earlier merged over later."""
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in node.value:
            if key.tag == f"{_TAG}merge":
                sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
                for source in sources:
                    if not isinstance(source, yaml.MappingNode):
                        rule = "a merge key (<<) takes a mapping or a list of mappings"
                        raise yaml.constructor.ConstructorError(None, None, rule, source.start_mark)
                    merged = self.construct_map(source) | merged
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a text", key.start_mark)
            if key.value in own:
                # PyYAML would keep the last value.
                rule = f"duplicate key {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, rule, key.start_mark)
            own[self.construct_text(key)] = self.construct_object(value, deep=True)
        # In the order of the file, which is the order of the arms in tables.
        return own if not merged else {**merged, **own}

    def construct_text(self, node: yaml.ScalarNode) -> str:
        """Return a text; the two escapes by which JSON writes a character beyond 16 bits become this character."""
        text = str(self.construct_scalar(node))
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            rule = "half of a character (a single surrogate)"
            raise yaml.constructor.ConstructorError(None, None, rule, node.start_mark) from None

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        """Return a decimal number, or one with the prefix of octal or hexadecimal digits."""
        if len(node.value) > 400:
            raise yaml.constructor.ConstructorError(None, None, "the number has too many digits", node.start_mark)
        # With an explicit tag, anything can be written.
        if not _INT.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(None, None, "not a whole number", node.start_mark)
        base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
        return int(node.value, base)

    def construct_float(self, node: yaml.ScalarNode) -> float:
        """Return a float; raise if the digits give an infinite one."""
        if not _FLOAT.fullmatch(node.value):
            raise yaml.constructor.ConstructorError(None, None, "not a number", node.start_mark)
        # Python writes infinities and NaN without the point of YAML.
        value = float(re.sub(r"\.(inf|nan)$", r"\1", node.value.lower()))
        if abs(value) == float("inf") and node.value[-1] in "0123456789.":
            raise yaml.constructor.ConstructorError(None, None, "the number is too large", node.start_mark)
        # Without the sign of zero, which would make two values of one
        return value + 0.0


for _name, _expression, _first in _RESOLVERS:
    _CoreSchema.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_expression.pattern})$"), list(_first))
_CONSTRUCTORS: dict[str, Any] = {
    "null": lambda loader, node: None,
    "bool": lambda loader, node: node.value.lower() == "true",
    "int": _CoreSchema.construct_integer,
    "float": _CoreSchema.construct_float,
    "str": _CoreSchema.construct_text,
    # As a value, `<<` is a text.
    "merge": _CoreSchema.construct_scalar,
    "seq": lambda loader, node: loader.construct_sequence(node, deep=True),
    "map": _CoreSchema.construct_map,
}
for _name, _construct in _CONSTRUCTORS.items():
    _CoreSchema.add_constructor(_TAG + _name, _construct)
_CoreSchema.yaml_constructors[None] = _CoreSchema.construct_undefined


class _Loader(_CoreSchema, yaml.SafeLoader):
    """Loader in Python."""


class _TextLoader(_Loader):
    """Loader that reads every scalar as a text."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}


_LOADERS: dict[bool, tuple[Any, ...]] = {False: (_Loader,), True: (_TextLoader,)}
"""Loaders, the fastest first, by whether every scalar is a text."""
# PyYAML may come without libyaml
with suppress(ImportError):
    from yaml.cyaml import CParser  # type: ignore[attr-defined]

    class _FastLoader(_CoreSchema, CParser):
        """Loader with the parser of libyaml, which is ten times as fast."""

        def __init__(self, stream: str) -> None:
            CParser.__init__(self, stream)
            for base in (Composer, SafeConstructor, Resolver):
                base.__init__(self)

    class _FastTextLoader(_FastLoader):
        """Loader that reads every scalar as a text."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    _LOADERS = {False: (_FastLoader, _Loader), True: (_FastTextLoader, _TextLoader)}


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes the texts that either version of YAML would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write equal values out, because aliases are hard to read."""
        return True


for _name, _expression, _first in _RESOLVERS:
    _Dumper.add_implicit_resolver(_TAG + _name, re.compile(rf"^(?:{_expression.pattern})$"), list(_first))


def parse_yaml(text: str, *, where: str, only_texts: bool = False) -> Any:
    """Return plain data from YAML text.

    Args:
        text: one document.
        where: name of the source in faults.
        only_texts: True reads every scalar as the text that it is.

    Raises:
        InputError: the text is not YAML, or too large; the error names `where` and the line.
    """
    # A copy, because a file is read for each of its variants, and a reader may change what it gets.
    return deepcopy(_parse(text, where, only_texts))


@lru_cache(maxsize=64)
def _parse(text: str, where: str, only_texts: bool) -> Any:
    if len(text) > MAX_CHARACTERS:
        rule = f"is larger than {MAX_CHARACTERS:,} characters"
        raise InputError(Fault(where=where, rule=rule, got=len(text)))
    fault: Exception | None = None
    for loader in _LOADERS[only_texts]:
        try:
            return yaml.load(text, Loader=loader)
        # The loader in Python has the last word: libyaml refuses the two escapes by which JSON writes a character beyond 16
        # bits, and words faults differently.
        except (yaml.YAMLError, ValueError) as error:
            fault = error
    if isinstance(fault, yaml.MarkedYAMLError):
        line = f"{where}:{fault.problem_mark.line + 1}" if fault.problem_mark else where
        hint = next((hint for problem, hint in _HINTS.items() if problem in str(fault.problem)), "")
        raise InputError(Fault(where=line, rule=f"not readable as YAML ({fault.problem}{hint})"))
    # A bad character, a broken escape, or the value of a tag that does not fit it
    reason = " ".join(str(fault).split())
    raise InputError(Fault(where=where, rule=f"not readable as YAML ({reason})"))


def dump_yaml(plain: Any) -> str:
    """Return plain data as YAML text that `parse_yaml` reads as equal data."""
    return yaml.dump(plain, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> Any:
    """Return plain data from a YAML file.

    Raises:
        InputError: the file is missing, not text, or not YAML.
    """
    return parse_yaml(read_text(path), where=str(path))


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 with a byte order mark, as shells on Windows write it.

    Raises:
        InputError: the file is missing or not text.
    """
    try:
        content = path.read_bytes()
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        # A byte order mark is no part of the text.
        return io.TextIOWrapper(io.BytesIO(content), encoding="utf-16" if is_utf16 else "utf-8-sig").read()
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except UnicodeDecodeError as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error}); save it as UTF-8")) from None
    except OSError as error:
        raise InputError(Fault(where=str(path), rule=f"cannot be read ({error})")) from None


def _check_size(root: yaml.Node) -> None:
    """Raise if a document has too many values, each alias counted with all that it repeats, or contains itself."""
    sizes: dict[int, int] = {}
    depths: dict[int, int] = {}
    open_nodes = set[int]()

    def measure(node: yaml.Node) -> tuple[int, int]:
        key = id(node)
        if key in open_nodes:
            raise yaml.composer.ComposerError(None, None, "an alias of a value inside the value", node.start_mark)
        if key not in sizes:
            open_nodes.add(key)
            pairs = node.value if isinstance(node, yaml.CollectionNode) else []
            children = [each for pair in pairs for each in (pair if isinstance(pair, tuple) else (pair,))]
            measured = [measure(child) for child in children]
            sizes[key] = 1 + sum(size for size, _ in measured)
            depths[key] = 1 + max((depth for _, depth in measured), default=0)
            open_nodes.remove(key)
        if sizes[key] > MAX_VALUES:
            rule = f"more than {MAX_VALUES:,} values, counting those that aliases repeat"
            raise yaml.composer.ComposerError(None, None, rule, node.start_mark)
        if depths[key] > MAX_DEPTH:
            rule = f"more than {MAX_DEPTH} lists and mappings inside one another"
            raise yaml.composer.ComposerError(None, None, rule, node.start_mark)
        return sizes[key], depths[key]

    measure(root)
