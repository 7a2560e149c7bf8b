"""Failed trials that are tried again: which, and how they become trials that have not been run.

A sweep runs what is planned and not recorded. So a trial is tried again by taking its record away; the next one has the
same name and stands in its place. A search must not forget it either: Optuna lets nobody run a trial again that has been
told as failed, therefore it gets a second one with the same settings, open as if the driver had just asked for it, and
knows of both.

Each step may be killed: the record goes last, and while it is there the next sweep does all of it again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import optuna
from optuna.trial import TrialState

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES, ErrorClass
from dirtune.results.records.store import read_table
from dirtune.training.trial import tidy
from dirtune.tuning.execution.failures import FROM_THE_START
from dirtune.tuning.folder.optuna_storage import TRIAL_ID

ALL = "failed"
ALWAYS: frozenset[ErrorClass] = frozenset({"infrastructure"})
"""What nobody has to ask for: these trials were stopped by something that has nothing to do with them."""


def classes_to_retry(asked: Sequence[str]) -> frozenset[ErrorClass]:
    """The error classes whose trials are tried again: always `infrastructure`, and what is asked for.

    Args:
        asked: names of error classes; `failed` stands for all of them.

    Raises:
        InputError: a name is neither.
    """
    classes: tuple[ErrorClass, ...] = get_args(ErrorClass)
    known = (ALL, *classes)
    unknown = [name for name in asked if name not in known]
    if unknown:
        rule = "unknown class of failures"
        raise InputError(Fault(where="--retry", rule=rule, got=name, known=known) for name in unknown)
    return frozenset(each for each in classes if each in ALWAYS or each in asked or ALL in asked)


def reopen(
    folder: Storage, classes: frozenset[ErrorClass], optuna_storage: str, optuna_studies: Sequence[str]
) -> list[str]:
    """Make all recorded failures of these classes trials that have not been run; returns their ids.

    Args:
        folder: the study's.
        optuna_storage: URL of the sweep's searches; opened only if something failed.
        optuna_studies: the searches' names in there.
    """
    failed = _failed(folder, classes)
    if not failed:
        return []
    present = set(optuna.get_all_study_names(optuna_storage)) if optuna_studies else set()
    for name in present.intersection(optuna_studies):
        _reopen_search(optuna.load_study(study_name=name, storage=optuna_storage), failed)
    for trial_id, error_class in failed.items():
        if error_class in FROM_THE_START:
            tidy(folder, trial_id)
        # The file in `trials`, the last of them, is the record
        for table in reversed(TABLES):
            folder.remove(f"results/{table}/{trial_id}.parquet")
    return sorted(failed)


def _failed(folder: Storage, classes: frozenset[ErrorClass]) -> dict[str, ErrorClass]:
    rows = read_table(folder, "trials", columns=["status", "error_class"]).to_pylist()
    failed = {
        # Files without the column record one kind of failure.
        row["trial_id"]: row["error_class"] or "nan"
        for row in rows
        if row["status"] == "failed"
    }
    return {trial_id: found for trial_id, found in failed.items() if found in classes}


def _reopen_search(search: optuna.Study, failed: dict[str, ErrorClass]) -> None:
    last = {trial.user_attrs[TRIAL_ID]: trial for trial in search.trials if TRIAL_ID in trial.user_attrs}
    for trial_id in failed:
        trial = last.get(trial_id)
        if trial is not None and trial.state != TrialState.RUNNING:
            again = optuna.trial.create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
            )
            search.add_trial(again)
