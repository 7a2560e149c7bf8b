"""Presets: methods and recipes by name, with the settings published for each data set.

A configuration may name presets, as `recipe: NAME` and `methods: [NAME, ...]`; `expand_presets` replaces the names by
their settings before the configuration is validated. A trial records the settings, never the names, so a preset may
change without a change of any trial's id. A method changes loss, terms, re-weighting or the regressor's head; a recipe
is everything else: optimizer, schedule, batch, epochs, backbone and augmentation.

The values are in `methods.yaml` and `recipes.yaml`, each with its source; `any` is for data sets without an entry.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.io.yamlfile import read_yaml
from dirtune.nested import merge

ANY = "any"
PRESET_KEYS = ("recipe", "methods")
"""Keys of a configuration that may name presets."""


class PublishedSettings(Frozen):
    """Settings of a preset on one data set."""

    source: str
    """Origin of the values."""
    set: dict[str, Any]
    """Overlay of the configuration."""


class Preset(Frozen):
    """One method or recipe."""

    paper: str
    """Authors, short title, venue and year."""
    adds: str
    """Difference from plain training, in one sentence."""
    data: dict[str, PublishedSettings]
    """Settings by data set; `any` is for all others."""

    def get_settings(self, data: str) -> PublishedSettings | None:
        """Return the settings for a data set, or None if the preset has neither an entry for it nor a general one."""
        return self.data.get(data, self.data.get(ANY))


def read_methods() -> dict[str, Preset]:
    """Return all methods by name."""
    return _read_presets("methods.yaml")


def read_recipes() -> dict[str, Preset]:
    """Return all recipes by name."""
    return _read_presets("recipes.yaml")


def expand_presets(overlay: Mapping[str, Any], data: str | None, *, where: str, key: str = "") -> dict[str, Any]:
    """Replace the names of presets by their settings; the overlay's own settings take precedence.

    `recipe: {name: NAME, ...}` takes the settings that it lacks from the recipe NAME; an unknown NAME is a label.

    Args:
        overlay: a configuration, or an arm's overlay of one, as plain data.
        data: name of the data set.
        where: name of the source in faults.
        key: dotted path of the overlay in the source.

    Raises:
        InputError: a name is unknown, or the preset has no settings for the data set.
    """
    own, named = dict(overlay), list[tuple[str, object, dict[str, Preset]]]()
    recipe = own.get("recipe")
    if isinstance(recipe, str):
        del own["recipe"]
        named.append(("recipe", recipe, read_recipes()))
    elif isinstance(recipe, Mapping) and recipe.get("name") in read_recipes():
        named.append(("recipe", recipe["name"], read_recipes()))
    # A single method may be given without a list.
    chosen = own.pop("methods", [])
    for name in chosen if isinstance(chosen, list | tuple) else [chosen]:
        named.append(("methods", name, read_methods()))

    # In the order of the list: a later method replaces settings of an earlier one.
    faults, result = [], dict[str, Any]()
    for kind, name, presets in named:
        preset = presets.get(name) if isinstance(name, str) else None
        settings = preset and preset.get_settings(data or "")
        if settings:
            result = merge(result, settings.set)
            continue
        rule, known = f"unknown {kind} preset", list(presets)
        if preset:
            rule = f"nothing is published on {data!r} for this {kind} preset"
            known = [known for known, each in presets.items() if each.get_settings(data or "")]
        faults.append(Fault(where=where, key=f"{key}.{kind}" if key else kind, rule=rule, got=name, known=known))
    if faults:
        raise InputError(faults)
    return merge(result, own)


@cache
def _read_presets(file: str) -> dict[str, Preset]:
    path = Path(__file__).with_name(file)
    return {name: read(Preset, plain, where=f"{file}: {name}") for name, plain in read_yaml(path).items()}
