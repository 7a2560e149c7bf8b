"""dirtune: ablation sweeps for deep imbalanced regression.

The verbs of the command line are also calls: `dirtune.sweep("quickstart")`, `dirtune.query("select ...")`. They are
imported when first used, so that `import dirtune` costs nothing and reading results needs neither torch nor Ray.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ingest": "dirtune.data.ingest",
    "inspect": "dirtune.data.ingest",
    "train": "dirtune.training.train",
    "plan": "dirtune.tuning.sweep",
    "sweep": "dirtune.tuning.sweep",
    "resume": "dirtune.tuning.sweep",
    "status": "dirtune.results.status",
    "query": "dirtune.results.query",
    "table": "dirtune.results.tables",
    "plot": "dirtune.results.plots",
    "catalogue": "dirtune.catalogue",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dirtune' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
