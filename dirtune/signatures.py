"""Validation of the arguments of public calls by their annotations, before anything is read or computed.

A wrong type would otherwise surface deep inside as an error about an attribute. Annotations that cannot be checked, such as
protocols and names for type checkers only, admit every value.
"""

import inspect
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from functools import cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dirtune.errors import Fault, InputError

_WORDS: dict[Any, tuple[str, str]] = {
    str: ("a text", "texts"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("True or False", "True or False"),
    Path: ("a path", "paths"),
    NoneType: ("None", "None"),
}
"""Words for one value and for several."""
_LISTS = {Sequence, Collection, list, tuple}


def check_arguments(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a function that validates its arguments by their annotations, and then calls this one.

    Args:
        function: the function.
        name: its public name, for faults.

    The function raises TypeError if its arguments do not fit the signature, and InputError if one has a wrong type.
    """
    signature = inspect.signature(function)

    @cache
    def get_annotations() -> dict[str, Any]:
        inner = inspect.unwrap(function)
        return {each.name: _resolve(each.annotation, inner) for each in signature.parameters.values()}

    @wraps(function)
    def call(*args: Any, **keywords: Any) -> Any:
        try:
            given = signature.bind(*args, **keywords).arguments
        except TypeError as error:
            raise TypeError(f"{name}(): {error}{_name_known(signature, keywords)}") from None
        faults = []
        for key, annotation in get_annotations().items():
            is_variable = signature.parameters[key].kind in {
                inspect.Parameter.VAR_KEYWORD,
                inspect.Parameter.VAR_POSITIONAL,
            }
            if key not in given or is_variable:
                continue
            if not is_instance(given[key], annotation):
                faults.append(_make_fault(name, key, annotation, given[key]))
            elif isinstance(given[key], str) and not given[key] and Path in {annotation, *get_args(annotation)}:
                # As a path it would be the current directory
                faults.append(Fault(where=name, key=key, rule="must not be empty"))
        if faults:
            raise InputError(faults)
        return function(*args, **keywords)

    return call


def is_instance(value: object, annotation: Any) -> bool:
    """Return True if a value has the type of an annotation, or if that cannot be checked.

    NumPy's numbers are numbers, whole numbers are numbers, truth values are neither, and a text is not a list of texts.
    """
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return any(is_instance(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    kind = origin or annotation
    is_truth = isinstance(value, bool) or type(value).__name__ == "bool"
    if kind is bool:
        return is_truth
    if kind in {int, float}:
        return isinstance(value, Integral if kind is int else Real) and not is_truth
    if kind is Path:
        return isinstance(value, os.PathLike)
    if kind in _LISTS:
        # Arrays have no truth value, and a text is a sequence of its letters
        if isinstance(value, str | bytes | Mapping) or hasattr(value, "__array__") or not isinstance(value, Collection):
            return False
        is_kind = kind is Collection or isinstance(value, Sequence)
        return is_kind and (not inner or all(is_instance(each, inner[0]) for each in value))
    if not isinstance(kind, type):
        return True
    try:
        return isinstance(value, kind)
    except TypeError:
        # A protocol that is for type checkers only
        return True


def describe(annotation: Any, *, several: bool = False) -> str:
    """Return an annotation in words, such as "a text or None"."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        words = [describe(each, several=several) for each in inner]
        # Every path may be given as a text.
        return " or ".join(dict.fromkeys(words))
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if (origin or annotation) in _LISTS:
        return f"a list of {describe(inner[0], several=True)}" if inner else "a list"
    if origin is Mapping or annotation is Mapping:
        return "a mapping"
    if annotation in _WORDS:
        return _WORDS[annotation][several]
    return (
        "a function" if origin is not None and callable(origin) else f"a {getattr(annotation, '__name__', annotation)}"
    )


def describe_value(value: object) -> str:
    """Return the type of a value in words; None as it is."""
    name = type(value).__name__
    article = "an" if name[0].lower() in "aeiou" else "a"
    return "None" if value is None else f"{article} {name}"


def _resolve(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return an annotation that is written as a text as a value; Any if it has names for type checkers only."""
    if annotation is inspect.Parameter.empty:
        return Any
    try:
        hints = get_type_hints(
            SimpleNamespace(__annotations__={"it": annotation}), getattr(function, "__globals__", {})
        )
    # The second, of a text within a union
    except (NameError, TypeError):
        return Any
    return hints["it"]


def _make_fault(name: str, key: str, annotation: Any, value: object) -> Fault:
    rule = f"must be {describe(annotation)}"
    if isinstance(value, str | int | float):
        return Fault(where=name, key=key, rule=rule, got=value)
    return Fault(where=name, key=key, rule=f"{rule}, got {describe_value(value)}")


def _name_known(signature: inspect.Signature, keywords: Mapping[str, object]) -> str:
    """Return the known keywords if one is unknown, with the nearest one."""
    known = [each.name for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    unknown = [key for key in keywords if key not in known]
    if not unknown:
        return ""
    close = get_close_matches(unknown[0], known, n=1)
    return f"; known: {', '.join(known)}" + (f" (did you mean {close[0]!r}?)" if close else "")
