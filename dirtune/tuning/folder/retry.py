"""Retry of failed trials: their records are removed, so that a sweep runs them again.

A sweep runs trials that are planned and not recorded. So a retry removes the record; the next run has the same trial id and
replaces it. A search must keep the trial, too: Optuna refuses to run a trial again that has been reported as failed, so it
gets a second trial with the same settings, in the state "running" as if just asked, and knows both.

Each step may be killed: the record is removed after all other steps, and while it exists the next sweep repeats them.
"""

from collections.abc import Collection, Sequence
from typing import get_args

import optuna
from optuna.storages import BaseStorage

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES, ErrorClass
from dirtune.results.records.store import read_table
from dirtune.training.trial import remove_temporary_files
from dirtune.tuning.folder.optuna_storage import add_running_trials

CLASSES_THAT_START_OVER: frozenset[ErrorClass] = frozenset({"nan", "code"})
"""Error classes whose retry starts over; a trial of another class resumes from its checkpoint, which its error left valid."""
ALL_FAILURES = "failed"
"""Name for all error classes."""
ALWAYS_RETRIED: frozenset[ErrorClass] = frozenset({"infrastructure"})
"""Failures that are not caused by the trial itself are retried without a request."""


def parse_error_classes(names: Sequence[str]) -> frozenset[ErrorClass]:
    """Return the error classes to retry: the requested ones, and always `infrastructure`.

    Args:
        names: names of error classes; `failed` means all of them.

    Raises:
        InputError: a name is unknown.
    """
    classes: tuple[ErrorClass, ...] = get_args(ErrorClass)
    known = (ALL_FAILURES, *classes)
    unknown = [name for name in names if name not in known]
    if unknown:
        rule = "unknown error class"
        raise InputError(Fault(where="--retry", rule=rule, got=name, known=known) for name in unknown)
    return frozenset(each for each in classes if each in ALWAYS_RETRIED or each in names or ALL_FAILURES in names)


def find_failed_trials(folder: Storage, classes: Collection[ErrorClass]) -> dict[str, ErrorClass]:
    """Return the error class of every recorded trial that failed with one of these error classes, by trial id."""
    rows = read_table(folder, "trials", columns=["status", "error_class"]).to_pylist()
    return {
        row["trial_id"]: row["error_class"]
        for row in rows
        if row["status"] == "failed" and row["error_class"] in classes
    }


def reset_failed_trials(
    folder: Storage, classes: Collection[ErrorClass], journal: BaseStorage, search_names: Sequence[str]
) -> list[str]:
    """Remove the records of failed trials with these error classes, so that they run again; return their ids.

    Args:
        folder: the study folder.
        classes: error classes to retry.
        journal: the sweep's journal.
        search_names: names of its searches.
    """
    failed = find_failed_trials(folder, classes)
    if not failed:
        return []
    for name in set(optuna.get_all_study_names(journal)).intersection(search_names):
        add_running_trials(optuna.load_study(study_name=name, storage=journal), failed)
    for trial_id, error_class in failed.items():
        if error_class in CLASSES_THAT_START_OVER:
            remove_temporary_files(folder, trial_id)
        # The file in `trials/`, the last of `TABLES`, commits the record: without it, the others are ignored
        for table in reversed(TABLES):
            folder.remove(f"results/{table}/{trial_id}.parquet")
    return sorted(failed)
