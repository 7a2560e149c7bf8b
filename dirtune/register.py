"""Decorators that register parts of a plug-in, such as `@dirtune.register.term("spread")`.

They belong into a Python file, which a study names under `plugins:`, or which is imported; `dirtune.plugins` says how its
parts reach workers. Installed packages may use entry points instead.
"""

import importlib
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

from dirtune import plugins
from dirtune.errors import Fault, InputError

PartT = TypeVar("PartT")
_NAME = re.compile("[a-z][a-z0-9_]*")
_METHODS = {
    "encoder": "build",
    "mixing": "fit",
    "synthesis": "make_rows",
    "sampling": "make_order",
    "sharpness": "compute_perturbations",
}
"""Method that a part of a kind must have."""


def term(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a regularizer term: a `Frozen` class with a field `weight`, called with `dirtune.batch.TermInputs`."""
    return _make_decorator("term", name)


def loss(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a regression loss: a `Frozen` class with `name: Literal[NAME]`, called with predictions, labels, weights."""
    return _make_decorator("loss", name)


def encoder(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register an encoder: a `Frozen` class with `name: Literal[NAME]` and `build(inputs)`."""
    return _make_decorator("encoder", name)


def synthesis(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a synthesis: a `Frozen` class with `name: Literal[NAME]` and the method of `dirtune.synthesis.Synthesis`."""
    return _make_decorator("synthesis", name)


def sampling(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a sampling: a `Frozen` class with `name: Literal[NAME]` and the method of `dirtune.sampling.Sampling`."""
    return _make_decorator("sampling", name)


def mixing(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a mixing: a `Frozen` class with `name: Literal[NAME]` and `fit(labels)` (`dirtune.mixing.Mixing`)."""
    return _make_decorator("mixing", name)


def sharpness(name: str) -> Callable[[type[PartT]], type[PartT]]:
    """Register a perturbation: a `Frozen` class with `name: Literal[NAME]` and the method of `dirtune.sharpness.Sharpness`."""
    return _make_decorator("sharpness", name)


def metric(name: str, *, higher_is_better: bool) -> Callable[[PartT], PartT]:
    """Register a metric: a function of all labels and predictions, two NumPy arrays, that returns a number."""

    _check_name("metric", name)

    def decorate(part: PartT) -> PartT:
        part.higher_is_better = higher_is_better  # type: ignore[attr-defined]
        return _register("metric", name, part)

    return decorate


def figure(name: str) -> Callable[[PartT], PartT]:
    """Register a figure: a `dirtune.results.figures.FigureKind`, called as `register.figure(NAME)(kind)`."""
    return _make_decorator("figure", name)


def pipeline(name: str) -> Callable[[PartT], PartT]:
    """Register a pipeline: a class with `Options` and a static method `ingest(storage, raw, options)`, as those in `pipelines`."""
    return _make_decorator("pipeline", name)


def method(name: str) -> Callable[[PartT], PartT]:
    """Register a method: a mapping with the keys of an entry of `dirtune/presets/methods.yaml`."""
    return _make_decorator("method", name)


def file(path: str) -> None:
    """Load a plug-in from its file, as `plugins:` in a study does."""
    plugins.load_files([path])


def check_part(kind: str, name: str, part: Any) -> None:
    """Raise if a part does not have the form of its kind.

    Raises:
        InputError: with what is missing.
    """
    if rule := _find_fault(kind, name, part):
        raise InputError(Fault(where=f"{kind} {name!r}", rule=rule))


def _make_decorator(kind: str, name: str) -> Callable[[PartT], PartT]:
    _check_name(kind, name)
    return lambda part: _register(kind, name, part)


def _check_name(kind: str, name: Any) -> None:
    """Raise if a decorator is written without a name, which would replace the part by a function."""
    if not isinstance(name, str):
        rule = f'needs a name: write `@dirtune.register.{kind}("NAME")`'
        raise InputError(Fault(where=f"register.{kind}", rule=f"{rule}, got a {type(name).__name__}"))


def _register(kind: str, name: str, part: PartT) -> PartT:
    check_part(kind, name, part)
    plugins.register(kind, name, part)
    return part


def _find_fault(kind: str, name: str, part: Any) -> str | None:
    from dirtune.frozen import Frozen

    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return "a name has small letters, digits and underscores"
    if kind == "metric":
        from dirtune.metrics import METRICS

        if name in METRICS:
            return "the name belongs to a metric of every data set"
        is_said = isinstance(getattr(part, "higher_is_better", None), bool)
        return None if callable(part) and is_said else "must be a function with an attribute higher_is_better"
    if kind in {"pipeline", "method", "figure"}:
        return _find_fault_of_other_parts(kind, name, part)
    if not (isinstance(part, type) and issubclass(part, Frozen)):
        return "must be a class derived from dirtune.frozen.Frozen"
    if kind == "term":
        has_weight = "weight" in part.model_fields
        return None if has_weight and hasattr(part, "__call__") else "needs a field `weight` and a method `__call__`"  # noqa: B004
    tag = part.model_fields.get("name")
    if tag is None or get_args(tag.annotation) != (name,) or tag.default != name:
        return f'needs the field `name: Literal["{name}"] = "{name}"`'
    method = _METHODS.get(kind)
    return f"needs a method `{method}`" if method and not hasattr(part, method) else None


def _find_fault_of_other_parts(kind: str, name: str, part: Any) -> str | None:
    """Return what is wrong with a pipeline, method or figure, whose registry does not know the names of dirtune itself."""
    from dirtune.frozen import Frozen, read

    if kind == "pipeline":
        if name in importlib.import_module("dirtune.pipelines").PIPELINES:
            return "the name belongs to dirtune already"
        options, is_complete = getattr(part, "Options", None), callable(getattr(part, "ingest", None))
        is_complete = is_complete and isinstance(options, type) and issubclass(options, Frozen)
        rule = "must be a module with a class `Options`, derived from dirtune.frozen.Frozen, and a function `ingest`"
        return None if is_complete else rule
    if kind == "method":
        from dirtune.presets import Preset, read_shipped_methods

        if name in read_shipped_methods():
            return "the name belongs to dirtune already"
        read(Preset, part, where=f"method {name!r}")
        return None
    from dirtune.results.figures import FigureKind

    return None if isinstance(part, FigureKind) else "must be a dirtune.results.figures.FigureKind"
