"""Optuna storage of a sweep: one Optuna study per searched arm, which can be rebuilt from the records.

The storage of a sweep in an object store is copied back when its driver ends; if the driver is killed, the copy is lost, and
anybody may delete or damage the file. The records remain, and with them the spent budget: a resumed search must neither spend
it again nor lose its results. A file that is no intact database of this release of Optuna is therefore removed; a search then
asks again only for the trials that had started.
"""

import contextlib
import math
import sqlite3
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState, create_trial

from dirtune.errors import Fault, InputError
from dirtune.io.storage import RETRY_SECONDS, Storage
from dirtune.results.records.schema import Status
from dirtune.study import resolve, space
from dirtune.tuning.folder import layout, records
from dirtune.tuning.folder.lock import LockLostError

TRIAL_ID = "trial_id"
"""User attribute of an Optuna trial: its trial id in the sweep."""


@contextlib.contextmanager
def open_optuna_storage(folder: Storage) -> Iterator[str]:
    """Yield the URL of a sweep's Optuna storage; for a remote folder, it is a local copy that is written back at exit."""
    if folder.is_local:
        path = Path(folder.path(layout.OPTUNA_DB))
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_if_unusable(path)
        with _name_storage_errors(folder.path(layout.OPTUNA_DB)):
            yield _make_url(path)
        return
    # SQLite needs a file on a local disk
    with tempfile.TemporaryDirectory(prefix="dirtune-optuna-") as scratch:
        local = Path(scratch) / layout.OPTUNA_DB
        if folder.exists(layout.OPTUNA_DB):
            local.write_bytes(folder.read(layout.OPTUNA_DB))
        _remove_if_unusable(local)
        try:
            with _name_storage_errors(folder.path(layout.OPTUNA_DB)):
                yield _make_url(local)
        # The driver that has taken the study writes its own
        except LockLostError:
            local.unlink(missing_ok=True)
            raise
        finally:
            # If this fails, the next sweep restores the searches from the records
            with contextlib.suppress(OSError):
                if local.exists():
                    folder.with_retry(RETRY_SECONDS).write(layout.OPTUNA_DB, local.read_bytes())


def _remove_if_unusable(path: Path) -> None:
    """Remove a file that is no intact database of this release of Optuna; one that another process has locked stays."""
    if path.exists() and _find_database_fault(path) is not None:
        # With its journal, which would be played back into the new file
        for each in (path, *(path.with_name(f"{path.name}-{suffix}") for suffix in ("journal", "wal", "shm"))):
            each.unlink(missing_ok=True)


def _find_database_fault(path: Path) -> str | None:
    """Return why Optuna cannot use a database, or None if it can, or if that cannot be told now."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as database:
            (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
            # Locked by another process, if this fails
            database.execute("BEGIN IMMEDIATE").close()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    if verdict != "ok":
        return str(verdict)
    try:
        storage = optuna.storages.RDBStorage(_make_url(path))
        for study in storage.get_all_studies():
            storage.get_all_trials(study._study_id)
    # A disk that fails is an outage. RuntimeError: of another release; the others: tables of another program, or values that
    # Optuna has not written
    except _get_database_errors() as error:
        return str(error) if "no such" in str(error.__cause__ or error) else None
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _get_database_errors() -> tuple[type[Exception], ...]:
    # Called when there is an error: a sweep whose trials are all recorded opens no database, and SQLAlchemy is slow to import.
    from sqlalchemy.exc import SQLAlchemyError

    return StorageInternalError, SQLAlchemyError


def _make_url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


@contextlib.contextmanager
def _name_storage_errors(where: str) -> Iterator[None]:
    """Raise an error of Optuna's storage as one sentence.

    Raises:
        InputError: the database is locked by another process, cannot be written, or is of another release of Optuna.
    """
    try:
        yield
    except _get_database_errors() as error:
        # Optuna's own text about a failed commit blames the data; its cause is the error of the database
        cause = error.__cause__ or error
        reason = str(getattr(cause, "orig", None) or cause).splitlines()[0]
        rule = f"cannot be used ({reason}); records are complete, and without this file searches are rebuilt from them"
        raise InputError(Fault(where=where, rule=rule)) from None


def get_search_name(study: str, search: str) -> str:
    """Return the name of the Optuna study of a search."""
    return f"{study}/{search}"


def open_search(study: resolve.ResolvedStudy, search: resolve.ArmSearchPlan, optuna_url: str) -> optuna.Study:
    """Return the Optuna study of a search; create it if it does not exist."""
    # Optuna's own lines would break the progress display
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = (study.objective, *study.secondary)
    directions: list[Literal["minimize", "maximize"]] = [
        "minimize" if each.mode == "min" else "maximize" for each in objectives
    ]
    name = get_search_name(study.name, search.name)
    return optuna.create_study(study_name=name, storage=optuna_url, load_if_exists=True, directions=directions)


def restore_searches(folder: Storage, study: resolve.ResolvedStudy, optuna_url: str) -> None:
    """Add the recorded trials of searches to their Optuna studies, if these lack them."""
    trials = records.read_recorded_trials(folder)
    for plan in study.searches:
        recorded, arm = records.select_search_trials(trials, plan, study), plan.arm
        if not recorded:
            continue
        search = open_search(study, plan, optuna_url)
        known = {trial.user_attrs.get(TRIAL_ID) for trial in search.get_trials(deepcopy=False)}
        distributions = {path: to_optuna_distribution(each) for path, each in arm.space.items()}
        for each in recorded:
            if each.trial_id in known:
                continue
            is_complete = each.outcome.status == "complete"
            secondary = records.read_secondary_objectives(folder, study, each.trial_id) if is_complete else []
            state, values = to_optuna_result(each.outcome.status, [each.outcome.objective, *secondary])
            search.add_trial(
                create_trial(
                    state=state,
                    values=values,
                    params=dict(records.read_settings(folder, each.trial_id, tuple(arm.space))),
                    distributions=distributions,
                    user_attrs={TRIAL_ID: each.trial_id},
                )
            )


def add_running_trials(search: optuna.Study, trial_ids: Collection[str]) -> None:
    """Add a running copy of each of these trials that the search has, unless its last one is running already."""
    last = {trial.user_attrs[TRIAL_ID]: trial for trial in search.trials if TRIAL_ID in trial.user_attrs}
    for trial_id in trial_ids:
        trial = last.get(trial_id)
        # Running already: an earlier retry was killed after this step
        if trial is not None and trial.state != TrialState.RUNNING:
            copy = create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
            )
            search.add_trial(copy)


def to_optuna_distribution(distribution: space.Distribution) -> BaseDistribution:
    """Return the same distribution for Optuna."""
    match distribution:
        case space.Choice():
            return CategoricalDistribution(distribution.values)
        case space.Integer():
            return IntDistribution(distribution.low, distribution.high, log=distribution.log)
        case space.LogUniform():
            return FloatDistribution(distribution.low, distribution.high, log=True)
        case space.Uniform():
            return FloatDistribution(distribution.low, distribution.high)


def to_optuna_result(status: Status, values: Sequence[float | None]) -> tuple[TrialState, list[float] | None]:
    """Return the Optuna state and values of a trial; a complete trial with an undefined objective is a failure."""
    if status == "pruned":
        return TrialState.PRUNED, None
    # Optuna accepts no trial with a missing value
    defined = [value for value in values if value is not None and not math.isnan(value)]
    if status == "complete" and len(defined) == len(values):
        return TrialState.COMPLETE, defined
    return TrialState.FAIL, None
