"""dirtune: ablation sweeps for deep imbalanced regression.

The verbs of the command line are also calls: `dirtune.sweep("quickstart")`, `dirtune.table("quickstart")`. They are imported when
first used, so that `import dirtune` costs nothing and reading results needs neither torch nor Ray.
"""

from importlib import import_module
from types import FunctionType
from typing import Any

_HOMES = {
    "InputError": "dirtune.errors:InputError",
    "Study": "dirtune.study.given:Study",
    "catalog": "dirtune.cli.catalog:list_catalog",
    "check": "dirtune.api:check",
    "compact": "dirtune.api:compact",
    "doctor": "dirtune.cluster.doctor:doctor",
    "export": "dirtune.prediction.export:export",
    "ingest": "dirtune.data.ingest:ingest",
    "init": "dirtune.data.init:init",
    "inspect": "dirtune.data.inspection:inspect",
    "intervals": "dirtune.api:intervals",
    "load": "dirtune.prediction.arm:load",
    "log": "dirtune.api:log",
    "plan": "dirtune.tuning.plan.plan:plan",
    "plot": "dirtune.api:plot",
    "query": "dirtune.api:query",
    "recommend": "dirtune.tuning.recommend:recommend",
    "recompute": "dirtune.api:recompute",
    "report": "dirtune.api:report",
    "resume": "dirtune.tuning.sweep:resume",
    "status": "dirtune.api:status",
    "stop": "dirtune.api:stop",
    "submit": "dirtune.cluster.submission:submit",
    "sweep": "dirtune.tuning.sweep:sweep",
    "table": "dirtune.api:table",
    "train": "dirtune.training.train:train",
    "weights": "dirtune.reweighting.labels:weights",
}

_MODULES = ("nn", "register", "results", "testing")
"""Submodules: tables of results, and for training loops of one's own and the authors of plug-ins."""

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("dirtune")
    if name in _MODULES:
        return import_module(f"dirtune.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'dirtune' has no attribute {name!r}")
    # Python asks a module's `__getattr__` (PEP 562) only for names that it does not find.
    module, attribute = _HOMES[name].split(":")
    try:
        found = getattr(import_module(module), attribute)
    except ModuleNotFoundError as error:
        from dirtune.errors import name_missing_package

        if (sentence := name_missing_package(error)) is None:
            raise
        raise ImportError(sentence, name=error.name) from None
    if isinstance(found, FunctionType):
        from dirtune.signatures import check_arguments

        found = check_arguments(found, f"dirtune.{name}")
    # Found without this function from now on
    globals()[name] = found
    return found
