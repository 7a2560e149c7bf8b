"""Progress of a sweep, read from its folder: while it runs, after it has ended, and after it was killed.

Needs no running process: recorded trials are counted from the results, started ones from the progress that they write
after an epoch, once a second. A started trial whose last progress is long ago has been killed; `dirtune resume` continues it.
"""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.results.analysis.sequential import plan_due_seeds
from dirtune.results.records import kept, names, store, studies
from dirtune.wording import format_counts

PROGRESS = "progress.json"
"""Written by a started trial after an epoch, once a second."""


@dataclass(frozen=True, kw_only=True)
class StartedTrial:
    """A trial that has started and is not recorded."""

    trial_id: str
    arm: str
    seed: int
    epochs_run: int
    epochs_planned: int
    objective: float | None
    """Best so far."""
    seconds_since_progress: float
    """Since its last epoch ended."""


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """State of one sweep."""

    study: str
    planned: Mapping[str, int]
    """Trials by arm."""
    recorded: Mapping[tuple[str, str], int]
    """Trials by arm and status."""
    started: tuple[StartedTrial, ...]
    failures: Mapping[str, int] = field(default_factory=dict)
    """Failed trials by error class."""
    models: int = 0
    """Number of kept models."""
    model_bytes: int = 0
    """Their size on disk."""
    without_model: tuple[str, ...] = ()
    """Recorded trials whose model is missing, of a study that keeps models."""

    @property
    def total(self) -> int:
        return sum(self.planned.values())

    @property
    def done(self) -> int:
        return sum(self.recorded.values())

    def count(self, arm: str, status: str) -> int:
        """Return the number of recorded trials of an arm with a status."""
        return self.recorded.get((arm, status), 0)


def status(study: str, *, results: str | Path = "results") -> SweepStatus:
    """Return the state of a sweep.

    Raises:
        InputError: there is no sweep of that name below `results`.
    """
    folder = open_sweep(study, results=results)
    info = studies.read_study(folder)
    plans = plan_due_seeds(folder, info)[0].plans
    trials = store.read_table(folder, "trials", columns=["arm", "role", "status", "error_class"])
    recorded = Counter(zip(trials["arm"].to_pylist(), trials["status"].to_pylist(), strict=True))
    # The folder of a recorded trial may remain until its files are removed.
    ended = set(trials["trial_id"].to_pylist())
    models = kept.measure_models(folder)
    started = [_read_started(folder, name) for name in folder.list_folders("trials") if name not in ended]
    return SweepStatus(
        study=study,
        recorded=recorded,
        failures=_count_failures(trials),
        # A searched arm plans a number of trials, not one per seed.
        planned={arm: plan.trials or len(plan.seeds) for arm, plan in plans.items()},
        started=tuple(trial for trial in started if trial is not None),
        models=len(models),
        model_bytes=sum(models.values()),
        without_model=kept.find_missing_models(models, _list_evaluated(trials, info.spaces)),
    )


def open_sweep(study: str, *, results: str | Path = "results") -> Storage:
    """Return the folder of a sweep.

    Raises:
        InputError: there is no sweep of that name below `results`.
    """
    root = Storage.open(results)
    if not root.exists(f"{study}/{names.RESOLVED_STUDY}"):
        # The resolved study is the last file that is written when a sweep is set up: a folder without it is none.
        known = [name for name in root.list_folders() if root.exists(f"{name}/{names.RESOLVED_STUDY}")]
        raise InputError(Fault(where=remove_credentials(results), rule="no sweep of this name", got=study, known=known))
    return root.get_folder(study)


def describe_failures(folder: Storage, study: str, arm: str | None = None) -> tuple[str, str]:
    """Return the number of failed trials by error class, and the command that runs them again; "" if none has failed.

    Args:
        folder: the study folder.
        study: its name.
        arm: of this arm alone; None means of all.
    """
    trials = store.read_table(folder, "trials", columns=["arm", "status", "error_class"])
    failures = _count_failures(trials if arm is None else trials.filter(pc.equal(trials["arm"], arm)))
    # Those of the infrastructure are always run again.
    classes = sorted({*failures} - {"infrastructure"})
    retry = "" if not classes else f" --retry {classes[0] if len(classes) == 1 else 'failed'}"
    return format_counts(failures), f"dirtune resume {study}{retry}"


def _count_failures(trials: pa.Table) -> Counter[str]:
    return Counter(str(row["error_class"]) for row in trials.to_pylist() if row["status"] == "failed")


def _list_evaluated(trials: pa.Table, searched: Collection[str]) -> list[str]:
    """Return the complete trials whose models a study keeps."""
    rows = trials.to_pylist()
    # Of a search whose trials are the runs of its arm, only the best model is kept.
    unconfirmed = set(searched) - {row["arm"] for row in rows if row["role"] == "search"}
    return [
        row["trial_id"]
        for row in rows
        if row["status"] == "complete" and row["role"] != "search" and row["arm"] not in unconfirmed
    ]


def _read_started(folder: Storage, trial_id: str) -> StartedTrial | None:
    """Return the progress of a started trial; None before its first epoch, and if it has just been recorded."""
    name = f"trials/{trial_id}/{PROGRESS}"
    modified = folder.filesystem.get_file_info(folder.path(name)).mtime_ns
    if modified is None:
        return None
    try:
        row = read_json_object(folder, name)["trial"]
        return StartedTrial(
            trial_id=trial_id,
            arm=row["arm"],
            seed=int(row["seed"]),
            epochs_run=int(row["epochs_run"]),
            epochs_planned=int(row["epochs_planned"]),
            objective=None if row["objective"] is None else float(row["objective"]),
            seconds_since_progress=time.time() - modified / 1e9,
        )
    except FileNotFoundError:
        # Recorded since its modification time was read: recording removes the file.
        return None
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(Fault(where=folder.path(name), rule=f"damaged progress of a trial ({error})")) from None
