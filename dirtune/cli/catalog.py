"""What can be named in a study: losses, terms, methods, recipes, encoders, augmentations, data sets, studies.

Everything here is made from the code itself: docstrings, the fields of the settings and their documentation, and the
presets. So the catalog cannot say anything that is not so.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pydantic_core import PydanticUndefined

from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.dense_views import MAP_AUGMENTATIONS
from dirtune.diagnostics import DIAGNOSTICS
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import METRICS, OWN_METRICS, spearman
from dirtune.models.encoders import ENCODERS
from dirtune.presets import Preset, methods, recipes
from dirtune.study.files import shipped_studies


def catalog() -> dict[str, dict[str, str]]:
    """One sentence for every known name, by kind."""
    return {
        "losses": _sentences(LOSSES),
        "terms": _sentences(TERMS),
        "methods": _adds(methods()),
        "recipes": _adds(recipes()),
        "encoders": _sentences(ENCODERS),
        "augmentations": _sentences(MAP_AUGMENTATIONS | AUGMENTATIONS),
        "metrics": _sentences({name: metric or spearman for name, metric in METRICS.items()} | OWN_METRICS),
        "diagnostics": _sentences(DIAGNOSTICS),
        "data": dict(import_module("pipelines").PIPELINES),
        "studies": {name: str(file.raw()["question"]) for name, file in shipped_studies().items()},
    }


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in detail: what it is, and rows of (setting, value, what it means or where it comes from)."""

    name: str
    about: str
    columns: tuple[str, str, str]
    rows: list[tuple[str, str, str]]


def entry(kind: str, name: str) -> Entry:
    """One loss, term or encoder with its hyperparameters, or one method or recipe with its published settings.

    Raises:
        InputError: the kind has no details, or nothing of that name.
    """
    settings: dict[str, Mapping[str, Any]] = {"losses": LOSSES, "terms": TERMS, "encoders": ENCODERS}
    presets = {"methods": methods, "recipes": recipes}
    known = [*settings, *presets]
    if kind not in known:
        raise InputError(Fault(where="list", rule="no details on this kind", got=kind, known=known))
    things = settings[kind] if kind in settings else presets[kind]()
    if name not in things:
        raise InputError(Fault(where="list", key=kind, rule="unknown name", got=name, known=tuple(things)))
    thing = things[name]
    return _preset_entry(name, thing) if isinstance(thing, Preset) else _settings_entry(name, thing)


def _settings_entry(name: str, settings: type[Frozen]) -> Entry:
    rows = [
        (
            field,
            "" if about.default is PydanticUndefined else _short(about.default),
            " ".join((about.description or "").split()),
        )
        for field, about in settings.model_fields.items()
        if field != "name"
    ]
    about = " ".join((inspect.getdoc(settings) or "").split())
    return Entry(name=name, about=about, columns=("setting", "default", "meaning"), rows=rows)


def _preset_entry(name: str, preset: Preset) -> Entry:
    rows = [(data, "\n".join(_leaves(published.set)), published.source) for data, published in preset.data.items()]
    about = f"{preset.adds} {preset.paper}."
    return Entry(name=name, about=about, columns=("data set", "settings", "source"), rows=rows)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {_short(value)}"


def _short(value: object) -> str:
    if isinstance(value, Frozen):
        return _short(value.model_dump(mode="json"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _adds(presets: Mapping[str, Preset]) -> dict[str, str]:
    return {name: f"{preset.adds} {preset.paper}." for name, preset in presets.items()}


def _sentences(registry: Mapping[str, Any]) -> dict[str, str]:
    return {name: (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ") for name, thing in registry.items()}
