"""Presets: methods and recipes by name, with the settings published for each data set.

A configuration may name presets, as `recipe: NAME` and `methods: [NAME, ...]`; `expand_presets` replaces the names by
their settings before the configuration is validated. A trial records the settings, never the names, so a preset may
change without a change of any trial's id. A method changes loss, terms, re-weighting or the regressor's head; a recipe
is everything else: optimizer, schedule, batch, epochs, backbone and augmentation.

`presets: published` adds what the official script does by mistake or apart from its paper; `presets: intended`, the
default, leaves it out: a comparison of methods must not measure the errors of their scripts. The published variant is
for reproducing the numbers of a paper.

The values are in `methods.yaml` and `recipes.yaml`, each with its source; `any` is for data sets without an entry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from dirtune import plugins
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, read
from dirtune.io.yamlfile import read_yaml
from dirtune.nested import get_leaf, merge
from dirtune.registry import Registry

ANY = "any"
PRESET_KEYS = ("recipe", "methods", "presets")
"""Keys of a configuration that name presets, or the variant of all of them."""
Variant = Literal["intended", "published"]
DEFAULT_VARIANT: Variant = "intended"


class Difference(Frozen):
    """One way in which the official script differs from the intended settings."""

    reason: str
    """What the script does, and where."""
    recipe: str | None = None
    """The recipe whose script this is; None: with any recipe."""
    encoder: str | None = None
    """The encoder that it concerns, without which it is left out; None: with any encoder."""
    set: dict[str, Any]
    """Overlay of the intended settings."""


class RecipeSettings(Frozen):
    """Settings of a method in one recipe."""

    source: str
    """Origin of the values."""
    set: dict[str, Any]
    """Overlay of the method's other settings."""


class PresetSettings(Frozen):
    """Settings of a preset on one data set."""

    source: str
    """Origin of the values."""
    set: dict[str, Any] = {}
    """Overlay of the configuration."""
    with_recipe: dict[str, RecipeSettings] = {}
    """Settings of a method by recipe, in both variants."""
    published: tuple[Difference, ...] = ()
    """Differences of the official scripts, which the published variant has."""

    def get_overlay(self, use: "PresetUse") -> dict[str, Any]:
        """Return the overlay of the configuration in a variant and recipe."""
        overlay = self.set
        if use.recipe in self.with_recipe:
            overlay = merge(overlay, self.with_recipe[use.recipe].set)
        for difference in self.published if use.variant == "published" else ():
            fits_encoder = use.encoder is None or difference.encoder in {None, use.encoder}
            if fits_encoder and difference.recipe in {None, use.recipe}:
                overlay = merge(overlay, difference.set)
        return overlay


class Preset(Frozen):
    """One method or recipe."""

    paper: str
    """Authors, short title, venue and year."""
    adds: str
    """Difference from plain training, in one sentence."""
    data: dict[str, PresetSettings]
    """Settings by data set; `any` is for all others."""

    def get_settings(self, data: str) -> PresetSettings | None:
        """Return the settings for a data set, or None if the preset has neither an entry for it nor a general one."""
        return self.data.get(data, self.data.get(ANY))


@dataclass(frozen=True)
class PresetUse:
    """Presets that the layers of a configuration name together; what is no name is left out, as if it were not there."""

    data: str = ""
    """The data set."""
    variant: str = DEFAULT_VARIANT
    recipe: str | None = None
    """Name of the recipe, a preset or a label."""
    encoder: str | None = None
    """Name of the encoder; None: that of the recipe."""
    methods: tuple[str, ...] = ()

    @classmethod
    def find(cls, *layers: Mapping[str, Any]) -> "PresetUse":
        """Return the presets of a configuration, given as plain data and overlays of it in their order."""
        found: dict[str, Any] = {}
        methods: list[str] = []
        for layer in layers:
            recipe = layer.get("recipe")
            named = {
                "data": get_leaf(layer, "data.name"),
                "variant": layer.get("presets"),
                "recipe": recipe.get("name") if isinstance(recipe, Mapping) else recipe,
                "encoder": get_leaf(layer, "model.encoder.name"),
            }
            found |= {key: name for key, name in named.items() if isinstance(name, str)}
            methods += [name for name in _list_methods(layer) if isinstance(name, str)]
        return cls(**found, methods=tuple(methods))

    def has_script(self) -> bool:
        """Return True if it names a preset, and official scripts on its data set differ from what is intended."""
        presets = (*read_recipes().values(), *read_methods().values())
        return bool(self.to_plain()) and any(
            self.data in preset.data and preset.data[self.data].published for preset in presets
        )

    def to_plain(self) -> dict[str, Any]:
        """Return the variant and the names as plain data; empty without any preset."""
        recipes = [self.recipe] if self.recipe in read_recipes() else []
        if not recipes and not self.methods:
            return {}
        return {"variant": self.variant, "recipes": recipes, "methods": list(dict.fromkeys(self.methods))}


PLUGIN_METHODS: Registry[Mapping[str, Any]] = Registry("method", {})
"""Methods of plug-ins, as plain data."""


def read_methods() -> dict[str, Preset]:
    """Return all methods by name."""
    plugins.load_entry_points("method")
    own = {name: read(Preset, plain, where=f"method {name!r}") for name, plain in PLUGIN_METHODS.items()}
    return read_shipped_methods() | own


def read_shipped_methods() -> dict[str, Preset]:
    """Return the methods of dirtune itself by name."""
    return _read_presets("methods.yaml")


def read_recipes() -> dict[str, Preset]:
    """Return all recipes by name."""
    return _read_presets("recipes.yaml")


def expand_presets(
    overlay: Mapping[str, Any], data: str | None, *, where: str, key: str = "", use: PresetUse | None = None
) -> dict[str, Any]:
    """Replace the names of presets by their settings; the overlay's own settings take precedence.

    `recipe: {name: NAME, ...}` takes the settings that it lacks from the recipe NAME; an unknown NAME is a label.

    Args:
        overlay: a configuration, or an arm's overlay of one, as plain data.
        data: name of the data set.
        where: name of the source in faults.
        key: dotted path of the overlay in the source.
        use: presets of the whole configuration that the overlay is a layer of; None if it is all of it.

    Raises:
        InputError: a name or the variant is unknown, or the preset has no settings for the data set.
    """
    own, named = dict(overlay), list[tuple[str, object, dict[str, Preset]]]()
    use = use or PresetUse.find(overlay)
    # A name of another type is reported where the configuration is read.
    known_data = data if isinstance(data, str) else ""
    prefix = f"{key}." if key else ""
    recipe, variant = own.get("recipe"), own.pop("presets", DEFAULT_VARIANT)
    faults = []
    if variant not in get_args(Variant):
        known = get_args(Variant)
        faults.append(Fault(where=where, key=f"{prefix}presets", rule="unknown variant", got=variant, known=known))
    if isinstance(recipe, str):
        del own["recipe"]
        named.append(("recipe", recipe, read_recipes()))
    elif isinstance(recipe, Mapping) and isinstance(recipe.get("name"), str) and recipe["name"] in read_recipes():
        named.append(("recipe", recipe["name"], read_recipes()))
    own.pop("methods", None)
    named += [("methods", name, read_methods()) for name in _list_methods(overlay)]

    # In the order of the list: a later method replaces settings of an earlier one.
    result = dict[str, Any]()
    for kind, name, presets in named:
        preset = presets.get(name) if isinstance(name, str) else None
        settings = preset and preset.get_settings(known_data)
        if settings:
            result = merge(result, settings.get_overlay(use))
            continue
        rule, known = f"unknown {kind} preset", tuple(presets)
        if preset:
            rule = f"nothing is published on {data!r} for this {kind} preset"
            known = tuple(known for known, each in presets.items() if each.get_settings(known_data))
        faults.append(Fault(where=where, key=f"{prefix}{kind}", rule=rule, got=name, known=known))
    if faults:
        raise InputError(faults)
    return merge(result, own)


def _list_methods(layer: Mapping[str, Any]) -> Sequence[object]:
    """Return the names under `methods`; a single one may be given without a list."""
    chosen = layer.get("methods", [])
    return chosen if isinstance(chosen, list | tuple) else [chosen]


@cache
def _read_presets(file: str) -> dict[str, Preset]:
    path = Path(__file__).with_name(file)
    return {name: read(Preset, plain, where=f"{file}: {name}") for name, plain in read_yaml(path).items()}
