"""How far a sweep is, read from its folder: while it runs, after it has ended, and after it has died.

Needs nobody's help: recorded trials are counted from the results, started ones from the progress they have left. A
started trial whose last sign of life is long ago has been killed; `dirtune resume` continues it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage, without_keys
from dirtune.results.analysis.sequential import with_seeds_due
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import STUDY_FILE, read_study

# What a started trial leaves after every epoch
PROGRESS = "progress.json"


@dataclass(frozen=True, kw_only=True)
class StartedTrial:
    """A trial that has begun and is not recorded."""

    trial_id: str
    arm: str
    seed: int
    epochs_run: int
    epochs_planned: int
    objective: float | None
    """Best so far."""
    seconds_since_sign: float
    """Since its last epoch ended."""


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """The state of one sweep."""

    study: str
    planned: Mapping[str, int]
    """Trials by arm."""
    recorded: Mapping[tuple[str, str], int]
    """By arm and status."""
    started: tuple[StartedTrial, ...]
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed trials by error class."""

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    @property
    def done(self) -> int:
        return sum(self.recorded.values())

    def count(self, arm: str, status: str) -> int:
        return self.recorded.get((arm, status), 0)


def status(study: str, *, results: str | Path = "results") -> SweepStatus:
    """The state of a sweep.

    Raises:
        InputError: there is no sweep of that name below `results`.
    """
    folder = sweep_folder(study, results=results)
    plans = with_seeds_due(folder, read_study(folder))[0].plans
    trials = read_table(folder, "trials", columns=["arm", "status", "error_class"])
    classes = Counter(
        # The one failure that files without the column record
        row["error_class"] or "nan"
        for row in trials.to_pylist()
        if row["status"] == "failed"
    )
    recorded = Counter(zip(trials["arm"].to_pylist(), trials["status"].to_pylist(), strict=True))
    ended = set(trials["trial_id"].to_pylist())
    started = [_started(folder, name) for name in folder.folders("trials") if name not in ended]
    return SweepStatus(
        study=study,
        recorded=recorded,
        failures=classes,
        planned={arm: plan.trials or len(plan.seeds) for arm, plan in plans.items()},
        started=tuple(trial for trial in started if trial is not None),
    )


def sweep_folder(study: str, *, results: str | Path = "results") -> Storage:
    """The folder of a sweep.

    Raises:
        InputError: there is no sweep of that name below `results`.
    """
    root = Storage.at(results)
    if not root.exists(f"{study}/{STUDY_FILE}"):
        known = [name for name in root.folders() if root.exists(f"{name}/{STUDY_FILE}")]
        raise InputError(Fault(where=without_keys(results), rule="no sweep of this name", got=study, known=known))
    return root.below(study)


def _started(folder: Storage, trial_id: str) -> StartedTrial | None:
    name = f"trials/{trial_id}/{PROGRESS}"
    modified = folder.filesystem.get_file_info(folder.path(name)).mtime_ns
    # Before its first epoch
    if modified is None:
        return None
    try:
        row: dict[str, Any] = json.loads(folder.read(name))["trial"]
    except FileNotFoundError:  # recorded this very moment
        return None
    return StartedTrial(
        trial_id=trial_id,
        arm=row["arm"],
        seed=row["seed"],
        epochs_run=row["epochs_run"],
        epochs_planned=row["epochs_planned"],
        objective=row["objective"],
        seconds_since_sign=time.time() - modified / 1e9,
    )
