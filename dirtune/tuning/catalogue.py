"""What can be named in a study: losses, terms, encoders, augmentations, data sets, studies."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from dirtune.data.views import AUGMENTATIONS
from dirtune.losses import LOSSES, TERMS
from dirtune.metrics import METRICS, spearman
from dirtune.models.encoders import ENCODERS
from dirtune.tuning.study import shipped_studies
from dirtune.yamlfile import read_yaml


def catalogue() -> dict[str, dict[str, str]]:
    """One sentence for every known name, by kind."""
    return {
        "losses": _sentences(LOSSES),
        "terms": _sentences(TERMS),
        "encoders": _sentences(ENCODERS),
        "augmentations": _sentences(AUGMENTATIONS),
        "metrics": _sentences({name: metric or spearman for name, metric in METRICS.items()}),
        "data": dict(import_module("pipelines").PIPELINES),
        "studies": {
            name: str(read_yaml(path)["question"]) for name, path in shipped_studies().items()
        },
    }


def _sentences(registry: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")
        for name, thing in registry.items()
    }
