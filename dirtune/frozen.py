"""`Frozen`: the base of every configuration value, and how one is read with all its faults.

A value is immutable, refuses unknown keys and wrong types, and has one canonical JSON text, so that its hash is an
identity. Reading collects every fault with its key, rule, value and the known names (`dirtune.errors.Fault`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dirtune.errors import Fault, InputError


class Frozen(BaseModel):
    """An immutable, strictly read value."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",
    )


FrozenT = TypeVar("FrozenT", bound=Frozen)


class Added:
    """Marks a field that came when values without it had been recorded: at its default it is no part of the identity."""


def identity(value: Frozen) -> dict[str, Any]:
    """The value as plain JSON data, without what was `Added` and is at its default; what its hash is taken of."""
    plain: dict[str, Any] = value.model_dump(mode="json")
    for name, field in type(value).model_fields.items():
        inner = getattr(value, name)
        if name in plain and isinstance(inner, Frozen):
            plain[name] = identity(inner)
        elif inner == field.default and any(isinstance(mark, Added) for mark in field.metadata):
            del plain[name]
    return plain


def canonical_json(value: object) -> str:
    """Sorted keys, no spaces: equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def digest(value: object, *, length: int = 16) -> str:
    """The first `length` hexadecimal digits of the SHA-256 of a JSON value's canonical text."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:length]


def read(model: type[FrozenT], raw: object, *, where: str, prefix: str = "") -> FrozenT:
    """Validate plain data (as it comes from YAML or JSON) as `model`.

    Raises:
        InputError: with one fault per violated rule, naming `where` and the dotted key below `prefix`.
    """
    try:
        # JSON mode, so that lists may fill tuples while numbers and texts stay strict.
        return model.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InputError(faults_of(error, model, where=where, prefix=prefix)) from None
    except (TypeError, ValueError) as error:  # a YAML date or set, or a list that holds itself
        raise InputError(Fault(where=where, key=prefix, rule=f"must be plain data ({error})")) from None


def faults_of(error: ValidationError, model: type[BaseModel], *, where: str, prefix: str = "") -> list[Fault]:
    """Turn pydantic's findings into faults."""
    return [_fault(detail, model, where, prefix) for detail in error.errors()]


def _fault(detail: ErrorDetails, model: type[BaseModel], where: str, prefix: str) -> Fault:
    kind, context = detail["type"], detail.get("ctx", {})
    location = [str(part) for part in detail["loc"]]
    path, models = _as_written(model, location[:-1] if kind == "extra_forbidden" else location)
    key = ".".join([prefix, *path] if prefix else path)
    if kind == "extra_forbidden":
        key = f"{key}.{location[-1]}".removeprefix(".")
        known = sorted({name for candidate in models for name in candidate.model_fields})
        return Fault(where=where, key=key, rule="unknown key", got=location[-1], known=known)
    if kind == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        discriminator = str(context["discriminator"]).strip("'")
        return Fault(
            where=where, key=f"{key}.{discriminator}", rule=f"unknown {discriminator}", got=context["tag"], known=known
        )
    if kind == "union_tag_not_found":
        discriminator = str(context["discriminator"]).strip("'")
        return Fault(where=where, key=f"{key}.{discriminator}", rule="is missing")
    if kind == "missing":
        return Fault(where=where, key=key, rule="is missing")
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return Fault(where=where, key=key, rule=rule, got=detail["input"])


def _as_written(model: type[BaseModel], location: list[str]) -> tuple[list[str], list[type[BaseModel]]]:
    """pydantic's location as the path that stands in the input, and the models that may stand there."""
    path: list[str] = []
    current: list[type[BaseModel]] = [model]
    for part in location:
        fields = [each.model_fields[part] for each in current if part in each.model_fields]
        chosen = [each for each in current if part in _tags(each)]
        # Pydantic puts the tag of a union's member into the location
        if chosen and not fields:
            current = chosen
            continue
        # Otherwise the index or key of a container, whose values stay the same
        if fields:
            current = [found for field in fields for found in _models_in(field.annotation)]
        path.append(part)
    return path, current


def _tags(model: type[BaseModel]) -> set[str]:
    """The values of fields that admit one text only: what a union can tell its members apart by."""
    options = [get_args(field.annotation) for field in model.model_fields.values()]
    return {each[0] for each in options if len(each) == 1 and isinstance(each[0], str)}


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in get_args(annotation) for found in _models_in(inner)]
