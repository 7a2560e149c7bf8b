"""`Frozen`: the base of every configuration value, and how one is read with all its faults.

A value is immutable, refuses unknown keys and wrong types, and has one canonical JSON text, so that its hash is an
identity. Reading collects every fault with its key, rule, value and the known names (`dirtune.errors.Fault`).
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from dirtune.errors import Fault, InputError


class Frozen(BaseModel):
    """An immutable, strictly read value."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True,
        allow_inf_nan=False, ser_json_inf_nan="constants",
    )  # fmt: skip


FrozenT = TypeVar("FrozenT", bound=Frozen)


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
    except TypeError as error:  # a YAML date or set: no JSON value
        raise InputError(Fault(where=where, key=prefix, rule=f"must be plain data ({error})")) from None


def faults_of(
    error: ValidationError, model: type[BaseModel], *, where: str, prefix: str = ""
) -> list[Fault]:
    """Turn pydantic's findings into faults."""
    return [_fault(detail, model, where, prefix) for detail in error.errors()]


def _fault(detail: ErrorDetails, model: type[BaseModel], where: str, prefix: str) -> Fault:
    path = [str(part) for part in detail["loc"]]
    key = ".".join([prefix, *path] if prefix else path)
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields_at(model, path[:-1])
        return Fault(where=where, key=key, rule="unknown key", got=path[-1], known=known)
    if kind == "union_tag_invalid":
        known = [tag.strip(" '") for tag in str(context["expected_tags"]).split(",")]
        discriminator = str(context["discriminator"]).strip("'")
        return Fault(
            where=where, key=f"{key}.{discriminator}", rule=f"unknown {discriminator}",
            got=context["tag"], known=known,
        )  # fmt: skip
    if kind == "union_tag_not_found":
        discriminator = str(context["discriminator"]).strip("'")
        return Fault(where=where, key=f"{key}.{discriminator}", rule="is missing")
    if kind == "missing":
        return Fault(where=where, key=key, rule="is missing")
    rule = detail["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return Fault(where=where, key=key, rule=rule, got=detail["input"])


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """The field names of the model that stands at `path` below `model` (union tags are part of the path)."""
    current: list[type[BaseModel]] = [model]
    for part in path:
        following: list[type[BaseModel]] = []
        for candidate in current:
            if part in candidate.model_fields:
                following += _models_in(candidate.model_fields[part].annotation)
            elif candidate.model_fields.get("name") and candidate.model_fields["name"].default == part:
                following.append(candidate)
        current = following
    return sorted({name for candidate in current for name in candidate.model_fields})


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for inner in getattr(annotation, "__args__", ()) for found in _models_in(inner)]
