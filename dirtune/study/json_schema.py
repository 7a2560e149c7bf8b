"""JSON Schema of a study file, for editors: completion, descriptions and faults while one writes.

It comes from the same classes as the validation, with their documentation, so that both agree. It accepts every valid
study; rules between the parts of a study are left to `dirtune plan`.
"""

from collections.abc import Mapping
from typing import Any, get_args

from dirtune.config import TrialConfig
from dirtune.presets import PRESET_KEYS, Variant, read_methods, read_recipes
from dirtune.study.files import VARIANTS
from dirtune.study.schema import Study

_OWN_OF_STUDIES = ("objective", "seed")
"""Fields of a trial's configuration that a study sets for all its trials."""


def make_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a study file."""
    schema = Study.model_json_schema()
    configuration = _relax(TrialConfig.model_json_schema())
    definitions = configuration.pop("$defs") | schema.pop("$defs")
    for name in _OWN_OF_STUDIES:
        del configuration["properties"][name]
    configuration["properties"] |= _describe_presets(configuration["properties"]["recipe"])
    # Null is an empty overlay.
    overlay = {"anyOf": [{"$ref": "#/$defs/Overlay"}, {"type": "null"}]}
    properties = schema["properties"]
    for key in ("base", "arms", "parts"):
        about = {"description": properties[key]["description"]}
        properties[key] = about | (overlay if key == "base" else {"type": "object", "additionalProperties": overlay})
    definitions["Overlay"] = configuration | {"title": "Overlay", "description": "Settings of a trial."}
    # A variant changes any part of the study, and the file may leave to it what a study must have.
    definitions["Variant"] = _relax({"type": "object", "properties": properties, "additionalProperties": False})
    variants = {
        "description": "Changes of the study by data set; a variant is named FILE:DATA_SET.",
        "type": "object",
        "additionalProperties": {"anyOf": [{"$ref": "#/$defs/Variant"}, {"type": "null"}]},
    }
    whole = {name: schema[name] for name in ("type", "additionalProperties", "required")}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dirtune study",
        **whole,
        "properties": {**properties, VARIANTS: variants},
        "$defs": dict(sorted(definitions.items())),
    }


def _relax(schema: Any) -> Any:
    """Return a schema of overlays: nothing is required, and a mapping without its `name` may fit several classes."""
    if isinstance(schema, list):
        return [_relax(each) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    relaxed = {}
    for key, value in schema.items():
        # Properties may have the names of keywords.
        if key in {"properties", "$defs"}:
            relaxed[key] = {name: _relax(each) for name, each in value.items()}
        elif key not in {"required", "discriminator", "default"}:
            relaxed["anyOf" if key == "oneOf" else key] = _relax(value)
    return relaxed


def _describe_presets(recipe: Mapping[str, Any]) -> dict[str, Any]:
    recipes, methods = sorted(read_recipes()), sorted(read_methods())
    known = {
        "recipe": {"description": "A published recipe by name, or settings.", "anyOf": [{"enum": recipes}, recipe]},
        "methods": {
            "description": "Methods by name, with their settings for the data set.",
            "type": "array",
            "items": {"enum": methods},
        },
        "presets": {
            "description": "intended: as the papers say; published: as their scripts do.",
            "enum": list(get_args(Variant)),
        },
    }
    return {key: known[key] for key in PRESET_KEYS}
