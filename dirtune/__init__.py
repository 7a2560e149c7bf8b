"""dirtune: ablation sweeps for deep imbalanced regression.

The verbs of the command line are also calls: `dirtune.sweep("quickstart")`, `dirtune.query("select ...", "results")`. They are
imported when first used, so that `import dirtune` costs nothing and reading results needs neither torch nor Ray.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "catalog": "dirtune.cli.catalog:list_catalog",
    "check": "dirtune.results.analysis.soundness:check_study",
    "compact": "dirtune.results.records.compaction:compact_study",
    "compare": "dirtune.results.tables.comparison:compare",
    "doctor": "dirtune.cluster.doctor:doctor",
    "ingest": "dirtune.data.ingest:ingest",
    "init": "dirtune.data.init:init",
    "inspect": "dirtune.data.inspection:inspect",
    "load": "dirtune.prediction.arm:load",
    "plan": "dirtune.tuning.plan.plan:plan",
    "plot": "dirtune.results.figures:plot",
    "query": "dirtune.results.query.query:query",
    "recompute": "dirtune.results.analysis.recompute:recompute",
    "report": "dirtune.results.report.page:write_report",
    "resume": "dirtune.tuning.sweep:resume",
    "status": "dirtune.results.analysis.status:status",
    "stop": "dirtune.tuning.folder.stop_request:stop",
    "submit": "dirtune.cluster.submission:submit",
    "sweep": "dirtune.tuning.sweep:sweep",
    "table": "dirtune.results.tables.table:make_arm_table",
    "tensorboard": "dirtune.results.tensorboard:write_logs",
    "train": "dirtune.training.train:train",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dirtune' has no attribute {name!r}")
    # Python asks a module's `__getattr__` (PEP 562) only for names that it does not find.
    module, attribute = _HOMES[name].split(":")
    return getattr(import_module(module), attribute)
