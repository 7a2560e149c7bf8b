"""`Frozen`: the base class of every configuration value, with validation and hashing.

A value is immutable, rejects unknown keys and wrong types, and has one canonical JSON text, so that its hash identifies
it. `read` reports all faults at once, each with key, rule, value and the known names (`dirtune.errors.Fault`).
"""

import ast
import hashlib
import inspect
import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from dirtune.errors import Fault, InputError


class Frozen(BaseModel):
    """An immutable, strictly validated value."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        # Infinities and NaN are written as such, or they would be read back as null.
        ser_json_inf_nan="constants",
    )

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = handler(core_schema)
        properties = handler.resolve_ref_schema(written).get("properties", {})
        for name, text in read_field_docstrings(cls).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return written


def read_field_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings below the fields of a model and of its bases, from their source.

    pydantic's `use_attribute_docstrings` parses the source of every model at import, a second for every worker.
    """
    found = {}
    for cls in reversed(model.__mro__):
        if not issubclass(cls, BaseModel) or cls is BaseModel:
            continue
        try:
            source = inspect.getsource(cls)
        except (OSError, TypeError):
            # Made by `create_model`, or in a module without a file
            continue
        (definition,) = ast.parse(textwrap.dedent(source)).body
        assert isinstance(definition, ast.ClassDef)
        for statement, below in pairwise(definition.body):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = inspect.cleandoc(text)
    return found


_SURROGATE = re.compile("[\ud800-\udfff]")
# Deeper than any configuration; pydantic and json have limits of their own beyond it.
_MAX_DEPTH = 60

FrozenT = TypeVar("FrozenT", bound=Frozen)


class Added:
    """Mark of a field that was added after values without it had been recorded.

    The field is left out of the hashed identity while it has its default, so that recorded trials keep their ids.
    """


def to_identity(value: Frozen) -> dict[str, Any]:
    """Return the value as plain JSON data without `Added` fields at their defaults: the input of its hash."""
    plain: dict[str, Any] = value.model_dump(mode="json")
    for name, field in type(value).model_fields.items():
        # A term that is not in use
        if name not in plain:
            continue
        inner = getattr(value, name)
        if isinstance(inner, Frozen):
            plain[name] = to_identity(inner)
        elif inner == field.default and any(isinstance(mark, Added) for mark in field.metadata):
            del plain[name]
    return plain


def to_canonical_json(value: object) -> str:
    """Return JSON text with sorted keys and without spaces: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def hash_json(value: object, *, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a JSON value's canonical text."""
    return hash_text(to_canonical_json(value), length=length)


def hash_text(text: str, *, length: int = 16) -> str:
    """Return the first `length` hexadecimal digits of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def read(model: type[FrozenT], raw: object, *, where: str, prefix: str = "") -> FrozenT:
    """Validate plain data, as parsed from YAML or JSON, as a `model`.

    Args:
        where: name of the source in faults, such as a file.
        prefix: dotted path of `raw` inside the source.

    Raises:
        InputError: one fault per violated rule.
    """
    if faults := list(_find_other_data(raw, where, prefix, depth=0)):
        raise InputError(faults)
    try:
        # JSON mode, so that lists may fill tuples while numbers and texts stay strict.
        return model.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InputError(to_faults(error, model, where=where, prefix=prefix)) from None


def _find_other_data(value: object, where: str, path: str, *, depth: int) -> Iterator[Fault]:
    """Find keys that JSON would turn into texts, values that it cannot write, and data too deep for it."""
    if depth > _MAX_DEPTH:
        yield Fault(where=where, key=path[:100], rule="must be plain data, but has too many levels")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                yield Fault(where=where, key=path, rule="keys must be texts (write them in quotes)", got=key)
            else:
                yield from _find_other_data(inner, where, f"{path}.{key}" if path else key or "''", depth=depth + 1)
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from _find_other_data(inner, where, f"{path}.{index}" if path else str(index), depth=depth + 1)
    elif isinstance(value, str):
        if _SURROGATE.search(value):
            yield Fault(where=where, key=path, rule="has half of a character (a single surrogate)", got=ascii(value))
    elif isinstance(value, int) and abs(value) >= 2**63 and not isinstance(value, bool):
        yield Fault(where=where, key=path, rule="must be within 64 bits, less than 2**63", got=value)
    elif not isinstance(value, int | float | bool | None):
        yield Fault(where=where, key=path, rule=f"must be plain data, got a {type(value).__name__}")


def to_faults(error: ValidationError, model: type[BaseModel], *, where: str, prefix: str = "") -> list[Fault]:
    """Return one fault per pydantic error, with the key as it is written in the input."""
    faults = []
    for detail in _drop_consequences(error.errors()):
        kind, context = detail["type"], detail.get("ctx", {})
        location = [str(part) for part in detail["loc"]]
        path, models = _resolve_location(model, location[:-1] if kind == "extra_forbidden" else location)
        key, rule, known = ".".join([prefix, *path] if prefix else path), "is missing", list[str]()
        got: Any = None
        if kind == "extra_forbidden":
            key = f"{key}.{location[-1]}".removeprefix(".")
            rule, got = "unknown key", location[-1]
            known = sorted({name for candidate in models for name in candidate.model_fields})
        elif kind in {"union_tag_invalid", "union_tag_not_found"}:
            discriminator = str(context["discriminator"]).strip("'")
            key = f"{key}.{discriminator}"
            if kind == "union_tag_invalid":
                rule, got = f"unknown {discriminator}", context["tag"]
                known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        elif kind == "member":
            rule, got = f"should be {detail['msg']}", detail["input"]
        elif kind != "missing":
            rule = _RULES.get(kind) or detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
            rule = _PATTERNS.get(str(context.get("pattern")), rule)
            got = detail["input"]
            if got is None:
                rule += ", got null"
            elif kind == "string_type" and isinstance(got, bool | int | float):
                rule += " (write it in quotes)"
            elif kind in ("float_type", "int_type") and isinstance(got, str) and _NUMBER.fullmatch(got):
                rule += " (write it without quotes and underscores)"
            elif kind in _MAPPING_TYPES and isinstance(got, str) and (main := _find_main_field(models)):
                rule += f" such as {{{main}: {got}}}"
            elif kind == "value_error" and isinstance(got, Mapping):
                # Of many settings, those that the rule names
                named = {name: value for name, value in got.items() if re.search(rf"\b{re.escape(name)}\b", rule)}
                got = named if named and ", got " not in rule else None
        faults.append(Fault(where=where, key=key, rule=rule, got=got, known=known))
    return faults


_NUMBER = re.compile(r"[-+]?(\.[0-9_]+|[0-9_]+(\.[0-9_]*)?)([eE][-+]?[0-9]+)?")
_MAPPING_TYPES = {"model_type", "model_attributes_type", "dict_type"}


def _find_main_field(models: Sequence[type[BaseModel]]) -> str:
    """Return the field that names a thing, for which the name alone is often given, else ""."""
    return next((name for name in ("name", "metric") for model in models if name in model.model_fields), "")


_SCALARS = {"bool", "int", "float", "str"}
# Members of a union as pydantic names them in locations: numbers within limits, and certain texts
_LIMITED_MEMBER = re.compile(r"constrained-\w+$|literal\[")
# Of YAML, where pydantic has the words of JSON
_RULES = {
    "model_type": "must be a mapping of settings",
    "model_attributes_type": "must be a mapping of settings",
    "dict_type": "must be a mapping",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "too_short": "must not be empty",
    "scalar": "must be a number, a text, true, false or null",
}
_NAME = "alone, and begin with a letter or a digit"
_PATTERNS = {
    r"^[a-z0-9][a-z0-9_-]*$": f"must have lower-case letters, digits, - and _ {_NAME}",
    r"^[A-Za-z0-9][A-Za-z0-9_.-]*$": f"must have letters without accents, digits, ., - and _ {_NAME}",
}


def _drop_consequences(details: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return pydantic's errors with one for each value that is no member of a union, and without false lengths.

    pydantic reports every member of a union, and counts only the valid elements of a list.
    """
    kept: dict[tuple[object, ...], Mapping[str, Any]] = {}
    for detail in details:
        location = tuple(detail["loc"])
        is_member = bool(location) and location[-1] in _SCALARS and str(detail["type"]).endswith("_type")
        if location and _LIMITED_MEMBER.match(str(location[-1])):
            place, rule = (*location[:-1], "member"), detail["msg"].removeprefix("Input ")
            others = f"{kept[place]['msg']} or " if place in kept else ""
            kept[place] = {
                **detail,
                "loc": location[:-1],
                "type": "member",
                "msg": others + rule.removeprefix("should be "),
            }
        elif is_member:
            kept.setdefault((*location[:-1], "scalar"), {**detail, "loc": location[:-1], "type": "scalar"})
        else:
            kept[(*location, detail["type"], len(kept))] = detail
    locations = [tuple(detail["loc"]) for detail in kept.values()]
    return [
        detail
        for detail in kept.values()
        if detail["type"] != "too_short"
        or not any(len(each) > len(detail["loc"]) and each[: len(detail["loc"])] == detail["loc"] for each in locations)
    ]


def _resolve_location(model: type[BaseModel], location: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """Return pydantic's location as the path in the input, and the models that are valid there."""
    path: list[str] = []
    current: list[type[BaseModel]] = [model]
    for part in location:
        fields = [each.model_fields[part] for each in current if part in each.model_fields]
        # A union selects its member by a field that admits exactly one text, the tag. pydantic inserts the tag into the
        # location; the input has no such key.
        chosen = [
            each
            for each in current
            if any(get_args(field.annotation) == (part,) for field in each.model_fields.values())
        ]
        if chosen and not fields:
            current = chosen
            continue
        # Otherwise the part is the index or key of a container, whose values have the models of its field.
        if fields:
            current = [found for field in fields for found in _list_models(field.annotation)]
        path.append(part)
    return path, current


def find_annotations(model: type[BaseModel], path: str) -> list[Any]:
    """Return the annotations that a setting has in a model and the members of its unions; path is dotted."""
    models, found = [model], list[Any]()
    for part in path.split("."):
        found = [each.model_fields[part].annotation for each in models if part in each.model_fields]
        models = [inner for annotation in found for inner in _list_models(annotation)]
    return found


def find_models(model: type[BaseModel], path: str) -> list[type[BaseModel]]:
    """Return the models that a setting can be, with the members of its unions; empty for a value such as a number."""
    return [found for annotation in find_annotations(model, path) for found in _list_models(annotation)]


def _list_models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _list_models(inner)]
