"""Catalog of the names that a study may use: losses, terms, methods, recipes, encoders, augmentations, data sets, studies.

Every sentence comes from the code itself: docstrings, the fields of the settings with their documentation, and the
presets, so the catalog cannot disagree with the code.
"""

import ast
import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import PydanticUndefined

from dirtune import plugins
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read_field_docstrings
from dirtune.nested import get_leaf, iter_leaves
from dirtune.presets import Preset, read_methods, read_recipes
from dirtune.registry import Plugin
from dirtune.study.files import StudyFile, list_shipped_studies

# The literal dict that names each kind, as "module:NAME". They are read from their source, because importing them
# imports torch, which takes two seconds of CPU time.
REGISTRIES = {
    "losses": ("dirtune.losses:LOSSES",),
    "terms": ("dirtune.losses:TERMS",),
    "encoders": ("dirtune.models.encoders:ENCODERS",),
    "synthesis": ("dirtune.synthesis:SYNTHESIS",),
    "sampling": ("dirtune.sampling:SAMPLING",),
    "mixing": ("dirtune.mixing:MIXING",),
    "sharpness": ("dirtune.sharpness:SHARPNESS",),
    "augmentations": ("dirtune.data.dense_views:DENSE_AUGMENTATIONS", "dirtune.data.augmentations:AUGMENTATIONS"),
    "metrics": ("dirtune.metrics.formulas:METRICS", "dirtune.metrics.extra:EXTRA_METRICS"),
    "diagnostics": ("dirtune.diagnostics:DIAGNOSTICS",),
    "figures": ("dirtune.results.figures:FIGURES",),
}
PLUGIN_KINDS = {
    "loss": "losses",
    "term": "terms",
    "encoder": "encoders",
    "metric": "metrics",
    "synthesis": "synthesis",
    "sampling": "sampling",
    "mixing": "mixing",
    "sharpness": "sharpness",
    "figure": "figures",
    "pipeline": "data",
}
"""Kinds of parts that installed packages may add (`dirtune.plugins`), with their names here."""
PRESETS = {"methods": read_methods, "recipes": read_recipes}


KINDS = (
    "losses",
    "terms",
    "methods",
    "recipes",
    "encoders",
    "synthesis",
    "sampling",
    "mixing",
    "sharpness",
    "augmentations",
    "metrics",
    "diagnostics",
    "figures",
    "data",
    "studies",
)


def list_catalog() -> dict[str, dict[str, str]]:
    """Return one sentence for every known name, by kind."""
    return {kind: list_names(kind) for kind in KINDS}


def list_names(kind: str) -> dict[str, str]:
    """Return one sentence for every known name of one of `KINDS`."""
    if kind in REGISTRIES:
        texts = _read_docstrings(REGISTRIES[kind])
        found = {name: text.split("\n\n")[0].replace("\n", " ") for name, text in texts.items()}
    elif kind in PRESETS:
        found = {name: f"{preset.adds} {preset.paper}." for name, preset in PRESETS[kind]().items()}
    elif kind == "data":
        found = dict(import_module("dirtune.pipelines").PIPELINES)
    else:
        found = {name: str(file.read_plain()["question"]) for name, file in list_shipped_studies().items()}
    # By name alone, because their sentences would need an import of packages that import torch.
    for plugin_kind in (each for each, name in PLUGIN_KINDS.items() if name == kind):
        for entry in plugins.list_entry_points(plugin_kind):
            package = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
            found[entry.name] = f"Of the package {package}."
        # Parts of files that this process has loaded
        added = plugins.get_registry(plugin_kind).get_added() if plugins.is_loaded(plugin_kind) else {}
        found |= {
            part: _name_origin(plugin) for part, plugin in added.items() if isinstance(plugin, plugins.FilePlugin)
        }
    return found


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name in detail."""

    name: str
    about: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    """Setting, for a data set its type, value, and its meaning or source."""


def describe_entry(kind: str, name: str) -> Entry:
    """Return one name in detail: losses, terms and encoders with their hyperparameters, methods and recipes with their
    published settings, data sets with the options of their ingest, studies with their arms, functions with what they say.

    Raises:
        InputError: the kind or `name` is unknown.
    """
    settings_of = {
        key: REGISTRIES[key][0].split(":")
        for key in ("losses", "terms", "encoders", "synthesis", "sampling", "mixing", "sharpness")
    }
    if kind not in (known := [*REGISTRIES, *PRESETS, "data", "studies"]):
        raise InputError(Fault(where="list", rule="unknown kind", got=kind, known=known))
    things: Mapping[str, Any]
    if kind == "studies":
        things = list_shipped_studies()
    elif kind == "data":
        things = {**import_module("dirtune.pipelines").PIPELINES, **_read_added_docstrings(kind)}
    elif kind in settings_of:
        plugins.load_installed()
        module, registry = settings_of[kind]
        things = getattr(import_module(module), registry)
    elif kind in PRESETS:
        things = PRESETS[kind]()
    else:
        things = _read_docstrings(REGISTRIES[kind]) | _read_added_docstrings(kind)
    if name not in things:
        raise InputError(Fault(where="list", key=kind, rule="unknown name", got=name, known=tuple(things)))
    thing = things[name]
    if kind == "data":
        return _describe_pipeline(name, str(thing), import_module("dirtune.data.ingest").load_pipeline(name).Options)
    if isinstance(thing, StudyFile):
        return _describe_study(name, thing.read_plain())
    if isinstance(thing, str):
        return Entry(name=name, about=thing, columns=(), rows=[])
    return _describe_preset(name, thing) if isinstance(thing, Preset) else _describe_settings(name, thing)


def _describe_study(name: str, plain: Mapping[str, Any]) -> Entry:
    sections = ("base", "arms", "parts", "derive", "axes", "space", "search", "seeds", "objective", "claim")
    rows: list[tuple[str, ...]] = [
        (f"{section}.{key}", "\n".join(_format_leaves(value)) if isinstance(value, Mapping) else str(value))
        for section in sections
        if isinstance(plain.get(section), Mapping)
        for key, value in plain[section].items()
    ]
    rows += [(each, str(plain[each])) for each in sections if each in plain and not isinstance(plain[each], Mapping)]
    return Entry(name=name, about=str(plain["question"]), columns=("key", "value"), rows=rows)


def _describe_settings(name: str, settings: type[Frozen]) -> Entry:
    meanings = read_field_docstrings(settings)
    rows: list[tuple[str, ...]] = [
        (
            field,
            "" if about.default is PydanticUndefined else _format_value(about.default),
            " ".join(meanings.get(field, "").split()),
        )
        for field, about in settings.model_fields.items()
        # That of a registry's entry
        if field != "name" or about.is_required()
    ]
    about = " ".join((inspect.getdoc(settings) or "").split())
    return Entry(name=name, about=about, columns=("setting", "default", "meaning"), rows=rows)


def _describe_pipeline(name: str, about: str, options: type[Frozen]) -> Entry:
    """Return the options of a pipeline."""
    # Required options first, then those of the class itself, which are of this data set
    defined = {field: place for place, cls in enumerate(options.__mro__) for field in inspect.get_annotations(cls)}
    fields = options.model_fields
    rows: list[tuple[str, ...]] = [
        (
            field,
            format_type(fields[field].annotation),
            "required" if fields[field].is_required() else _format_written(fields[field].default),
            meaning,
        )
        for field, _, meaning in _describe_settings(name, options).rows
    ]
    rows.sort(key=lambda row: (not fields[row[0]].is_required(), defined[row[0]]))
    return Entry(name=name, about=about, columns=("option", "type", "default", "meaning"), rows=rows)


def _format_written(value: object) -> str:
    """Return a value as it is written for `--option`."""
    return value if isinstance(value, str) else json.dumps(value)


def format_type(annotation: Any) -> str:
    """Return the type of an option in words: `list of texts`, `made | natural`; null, if it is allowed, is left out."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return format_type(inner[0])
    if origin is Literal:
        return " | ".join(map(str, inner))
    if origin in {Union, UnionType}:
        return " | ".join(format_type(each) for each in inner if each is not type(None))
    if origin is tuple:
        kinds = [format_type(each) for each in inner if each is not Ellipsis]
        plural = "" if kinds[0].endswith("]") else "s"
        return f"list of {kinds[0]}{plural}" if inner[-1] is Ellipsis else f"[{', '.join(kinds)}]"
    return {str: "text", bool: "true | false", int: "integer", float: "number"}.get(annotation, str(annotation))


def _describe_preset(name: str, preset: Preset) -> Entry:
    rows: list[tuple[str, ...]] = []
    for data, settings in preset.data.items():
        rows.append((data, "\n".join(_format_leaves(settings.set)), settings.source))
        for recipe, own in settings.with_recipe.items():
            rows.append((f"{data}: recipe {recipe}", "\n".join(_format_leaves(own.set)), own.source))
        for difference in settings.published:
            script = f", recipe {difference.recipe}" if difference.recipe else ""
            rows.append(
                (f"{data}: published{script}", _format_changes(difference.set, settings.set), difference.reason)
            )
    about = f"{preset.adds} {preset.paper}."
    return Entry(name=name, about=about, columns=("data set", "settings", "source"), rows=rows)


def _format_changes(changes: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """Return changed settings in one line, each with the value that it replaces if there is one."""
    texts = []
    for path, value in iter_leaves(changes):
        before = get_leaf(settings, path)
        replaced = "" if before is None else f" instead of {_format_value(before)}"
        texts.append(f"{path}: {_format_value(value)}{replaced}")
    return ", ".join(texts)


def _format_leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _format_leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}: {_format_value(value)}"


def _format_value(value: object) -> str:
    if isinstance(value, Frozen):
        return _format_value(value.model_dump(mode="json"))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _read_docstrings(registries: tuple[str, ...]) -> dict[str, str]:
    """Return the docstring of every entry of literal dicts, without importing them."""
    texts: dict[str, str] = {}
    for registry in registries:
        module, _, variable = registry.partition(":")
        literal = _find_literal(_parse(module), variable)
        for key, value in zip(literal.keys, literal.values, strict=True):
            assert key is not None, f"{registry} merges another dict"
            name = ast.literal_eval(key)
            # An entry may be None where the function of the entry's name needs other arguments than the rest.
            target = name if isinstance(value, ast.Constant) else ast.unparse(value)
            # A figure, `FigureKind(build, draw)`, is described by what it builds.
            if isinstance(value, ast.Call):
                target = ast.unparse(value.args[0])
            texts[name] = _read_docstring(module, target)
    return texts


def _read_added_docstrings(kind: str) -> dict[str, str]:
    """Return the docstring of every part of a kind that plug-ins have added."""
    part_kinds = [each for each, name in PLUGIN_KINDS.items() if name == kind]
    texts: dict[str, str] = {}
    for each in part_kinds:
        plugins.load_entry_points(each)
        registry = plugins.get_registry(each)
        for name, plugin in registry.get_added().items():
            text = inspect.getdoc(getattr(registry[name], "build", registry[name])) or ""
            texts[name] = f"{text}\n\n{_name_origin(plugin)}".lstrip()
    return texts


def _name_origin(plugin: Plugin) -> str:
    return f"Of the {'file' if isinstance(plugin, plugins.FilePlugin) else 'package'} {plugin.name}."


def _read_docstring(module: str, name: str) -> str:
    """Return the docstring of a class or function, following imports to the module that defines it.

    `name` is as written in the registry: `L1`, or `pointwise.L1` with `from dirtune.losses import pointwise`.
    """
    submodule, _, name = name.rpartition(".")
    if submodule:
        return _read_docstring(f"{module}.{submodule}", name)
    for node in _parse(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
        # A registry may also import its entries by name.
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _read_docstring(node.module, alias.name)
    raise LookupError(f"{module} neither defines nor imports {name}")


def _find_literal(tree: ast.Module, variable: str) -> ast.Dict:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_named = any(isinstance(target, ast.Name) and target.id == variable for target in targets)
        value = getattr(node, "value", None)
        # The literal may be wrapped: `Registry("term", {...})`.
        parts = value.args if isinstance(value, ast.Call) else [value]
        if is_named and (literals := [part for part in parts if isinstance(part, ast.Dict)]):
            return literals[0]
    raise LookupError(f"no literal dict {variable}")


@cache
def _parse(module: str) -> ast.Module:
    path = Path(__file__).parents[2].joinpath(*module.split("."))
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
