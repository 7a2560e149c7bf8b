"""Named settings: methods and recipes with the values that were published for each data set.

A configuration may say `recipe: NAME` and `methods: [NAME, ...]` instead of the settings themselves; `expanded` puts the
settings in their place, before the configuration is read. What a trial records are the settings, never the names, so a
preset may grow without a change of any trial's identity. A method changes loss, terms, re-weighting or the regressor's
head; a recipe is everything else: optimiser, schedule, batch, epochs, backbone and augmentation.

The values stand in `methods.yaml` and `recipes.yaml`, each with its source; `any` serves the data sets that have no
entry of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dirtune.config import merged
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.io.yamlfile import read_yaml

ANY = "any"
PRESET_KEYS = ("recipe", "methods")
"""The keys of a configuration that may name presets."""


class Published(Frozen):
    """The settings of a preset on one data set."""

    source: str
    """Where the values come from."""
    set: dict[str, Any]
    """What is laid over the configuration."""


class Preset(Frozen):
    """One method or recipe."""

    paper: str
    """Authors, short title, venue and year."""
    adds: str
    """What it adds to or changes of plain training, in one sentence."""
    data: dict[str, Published]
    """Settings by data set; `any` stands for all others."""

    def for_data(self, data: str) -> Published | None:
        """The settings on a data set, or None if nothing is published and there is no general form."""
        return self.data.get(data, self.data.get(ANY))


def methods() -> dict[str, Preset]:
    """Every method by name."""
    return _presets("methods.yaml")


def recipes() -> dict[str, Preset]:
    """Every recipe by name."""
    return _presets("recipes.yaml")


def expanded(overlay: Mapping[str, Any], data: str | None, *, where: str, key: str = "") -> dict[str, Any]:
    """The overlay with the settings of its recipe and methods in place of their names; its own settings win.

    `recipe: {name: NAME, ...}` takes the rest from the recipe of that name, if there is one; any other name is a label.

    Args:
        overlay: a configuration, or what an arm lays over one, as plain data.
        data: name of the data set.
        where: names the source in faults; `key` the place in it.

    Raises:
        InputError: a name is unknown, or has no settings for the data set.
    """
    faults, layers, rest = [], [], dict(overlay)
    for kind, name, presets in _named(rest):
        found = _settings(presets, name, data)
        if isinstance(found, Published):
            layers.append(found.set)
            continue
        place = f"{key}.{kind}" if key else kind
        faults.append(Fault(where=where, key=place, rule=f"{found[0]} {kind} preset", got=name, known=found[1]))
    if faults:
        raise InputError(faults)
    result: dict[str, Any] = {}
    for layer in [*layers, rest]:
        result = merged(result, layer)
    return result


def _named(overlay: dict[str, Any]) -> Iterator[tuple[str, object, dict[str, Preset]]]:
    """Kind, name and presets of everything that the overlay names; names that stand for settings are taken out."""
    recipe = overlay.get("recipe")
    if isinstance(recipe, str):
        del overlay["recipe"]
        yield "recipe", recipe, recipes()
    elif isinstance(recipe, Mapping) and recipe.get("name") in recipes():
        yield "recipe", recipe["name"], recipes()
    chosen = overlay.pop("methods", [])
    for name in chosen if isinstance(chosen, list | tuple) else [chosen]:
        yield "methods", name, methods()


def _settings(presets: dict[str, Preset], name: object, data: str | None) -> Published | tuple[str, list[str]]:
    """The settings, or what is wrong with the name and the names that would do."""
    if not isinstance(name, str) or name not in presets:
        return "unknown", list(presets)
    published = presets[name].for_data(data or "")
    if published is None:
        fitting = [known for known, preset in presets.items() if preset.for_data(data or "")]
        return f"nothing is published on {data!r} for this", fitting
    return published


@cache
def _presets(file: str) -> dict[str, Preset]:
    path = Path(__file__).with_name(file)
    return {name: read(Preset, plain, where=f"{file}: {name}") for name, plain in read_yaml(path).items()}
