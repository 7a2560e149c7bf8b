"""Running a study: `sweep` and `resume` are one thing, set completion.

The study's folder is the state. Planned trials minus recorded ones are run; a trial that had been started continues
from its checkpoint; Tune schedules, pauses and stops, and what it remembers is thrown away at the end.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dirtune.data.blocks import materialize
from dirtune.data.session import ray_session
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage, remove_credentials
from dirtune.manifest import Manifest
from dirtune.results.analysis.sequential import rule_of
from dirtune.results.records.compaction import compact
from dirtune.results.records.schema import ErrorClass, Status
from dirtune.results.records.store import read_table
from dirtune.study.files import find_study, is_file_name
from dirtune.study.resolve import ResolvedStudy, load_study
from dirtune.training.provenance import code_version
from dirtune.training.train import vocabulary_of
from dirtune.training.trial import tidy
from dirtune.tuning.execution.concurrency import Slots
from dirtune.tuning.execution.driver import Driver, Silent, View
from dirtune.tuning.execution.storage_failure import RETRY_SECONDS, refuse_to_go_on
from dirtune.tuning.execution.tune_run import run_with_tune
from dirtune.tuning.execution.worker import WorkerSettings
from dirtune.tuning.folder.confirmation import confirm
from dirtune.tuning.folder.lock import held, refuse_if_held
from dirtune.tuning.folder.optuna_storage import optuna_name, recall_searches
from dirtune.tuning.folder.reconcile import STUDY_FILE, Claim
from dirtune.tuning.folder.retry import ALWAYS, classes_to_retry, reopen
from dirtune.tuning.folder.stop_request import stoppable
from dirtune.tuning.plan.autoscaling import NodeType, read_node_types
from dirtune.tuning.plan.capacity import list_cluster_nodes
from dirtune.tuning.plan.plan import count_trials, get_study_folder, make_plan, open_study
from dirtune.tuning.search.queue import Agenda, Ending
from dirtune.tuning.search.secondary import secondary_objectives
from dirtune.tuning.search.sequential_seeds import SeedSequence
from dirtune.tuning.search.warm_start import first_configurations

OPTUNA = "optuna.db"
Recorded = Mapping[str, tuple[str, Ending]]
"""The arm and the ending of every recorded trial."""


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep did and what is on disk now."""

    folder: str
    reused: int
    """Recorded before."""
    orphaned: int
    """Recorded before, and set aside now because the study no longer plans them."""
    run: Mapping[Status, int]
    """Ended now, by status."""
    crashed: Mapping[str, str]
    """Failed now because the worker died or raised: trials, and why."""
    tracebacks: Sequence[str] = ()
    """Files, of those of them whose own code raised."""
    left: int
    """Trials that `resume` runs: not recorded now, or failed by infrastructure."""
    stopped: str | None = None
    """What asked the sweep to end early: a signal, or `dirtune stop`."""


def sweep(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    expect: str | Path | None = None,
    view: View | None = None,
) -> SweepSummary:
    """Run everything of a study that is not recorded yet.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the study gets a folder of its own below it.
        expect: the file of a cluster that may have no nodes yet (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the folder holds another study.
    """
    types = read_node_types(expect)
    file = find_study(study)
    claim = open_study(file.read_yaml(), file.where, data=data, results=results)
    return _complete(claim, Storage.open(data), Storage.open(results), view or Silent(), ALWAYS, types)


def resume(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    retry: Sequence[str] = (),
    expect: str | Path | None = None,
    view: View | None = None,
) -> SweepSummary:
    """Continue a sweep from its folder: recorded trials are kept, started ones go on from their checkpoints.

    Args:
        retry: failed trials to run again, by error class (`out_of_memory`, `nan`, `code`), or all as `failed`; those that
            failed by `infrastructure` always are.
        expect: as for `sweep`.

    Raises:
        InputError: there is no such sweep, or the data have changed since, or no such error class.
    """
    classes, types = classes_to_retry(retry), read_node_types(expect)
    name = load_study(study).name if is_file_name(study) else study
    folder = get_study_folder(results, name)
    if not folder.exists(STUDY_FILE):
        root = Storage.open(results)
        known = [name for name in root.list_folders() if root.exists(f"{name}/{STUDY_FILE}")]
        raise InputError(
            Fault(where=remove_credentials(results), rule="no sweep of this study to resume", got=name, known=known)
        )
    text, where = folder.read(STUDY_FILE).decode(), folder.path(STUDY_FILE)
    claim = open_study(text, where, data=data, results=results)
    return _complete(claim, Storage.open(data), Storage.open(results), view or Silent(), classes, types)


def _complete(
    claim: Claim, data: Storage, results: Storage, view: View, classes: frozenset[ErrorClass], types: Sequence[NodeType]
) -> SweepSummary:
    """Run what is not recorded yet, and again what failed with an error of these classes."""
    folder, study, manifest = claim.folder, claim.study, claim.manifest
    extension = claim.extension()
    # Before Ray starts
    refuse_if_held(folder)
    with ray_session():
        found = make_plan(claim, extension, list_cluster_nodes(), types)
        # Only now: a study that does not fit the cluster leaves nothing behind.
        # Stoppable first: what it forgets was asked of an earlier sweep, as long as this one is not known to hold the folder.
        with stoppable(folder) as watch, held(folder), _optuna_storage(folder) as storage:
            # Reads anew: another driver may have been here meanwhile
            claim = replace(claim)
            extension = claim.extension()
            recorded = _taken(claim, storage, classes)
            agenda = _agenda(claim, storage, results, recorded)
            # Reopened trials are due again
            found = replace(found, trials=count_trials(claim))
            patient = folder.with_retry(RETRY_SECONDS)
            driver = Driver(agenda, patient, view, found.concurrent, manifest.fingerprint, watch, study.resources)
            view.begin(replace(found, recorded=len(recorded), earlier=tuple(recorded.values())))
            if not agenda.is_empty:
                settings = _worker_settings(study, manifest, patient, data)
                slots = Slots(study, types, found.concurrent)
                run_with_tune(study, driver, settings, materialize(data, manifest), slots)
                refuse_to_go_on(folder, driver.outage)
                compact(folder)
    return SweepSummary(
        folder=folder.path(),
        reused=len(recorded),
        orphaned=len(extension.orphaned),
        run=driver.counts,
        crashed=driver.crashed,
        tracebacks=driver.tracebacks,
        left=max(0, found.total + driver.added - len(_recorded(folder)) - agenda.without_run) + len(driver.to_retry),
        stopped=watch.reason,
    )


def _taken(claim: Claim, storage: str, classes: frozenset[ErrorClass]) -> Recorded:
    """Make the folder the claim's; what is recorded in it then."""
    folder, study = claim.folder, claim.study
    claim.forget_changed_searches(storage)
    claim.take()
    searches = [optuna_name(study.name, arm.name) for arm in study.searched_arms]
    reopen(folder, classes, storage, searches)
    recorded = _recorded(folder)
    for trial_id, (_, ending) in recorded.items():
        # What these may still need their class has decided
        if ending.status != "failed":
            tidy(folder, trial_id)
    recall_searches(folder, study, storage)
    return recorded


def _agenda(claim: Claim, storage: str, results: Storage, recorded: Recorded) -> Agenda:
    folder, study, rule = claim.folder, claim.study, rule_of(claim.info)
    return Agenda(
        study,
        storage=storage,
        fingerprint=claim.manifest.fingerprint,
        code_version=code_version(),
        recorded={trial_id: ending for trial_id, (_, ending) in recorded.items()},
        queued=first_configurations(study, results),
        measured=functools.partial(secondary_objectives, folder, study),
        on_selected=functools.partial(confirm, folder),
        sequence=None if rule is None else SeedSequence(folder, rule),
    )


def _recorded(folder: Storage) -> Recorded:
    rows = read_table(folder, "trials", columns=["arm", "status", "objective"]).to_pylist()
    return {row["trial_id"]: (row["arm"], Ending(status=row["status"], objective=row["objective"])) for row in rows}


def _worker_settings(study: ResolvedStudy, manifest: Manifest, folder: Storage, data: Storage) -> WorkerSettings:
    resources = study.resources
    return WorkerSettings(
        study=folder,
        manifest=manifest,
        cpus=resources.cpus,
        gpus=resources.gpus,
        workers=resources.workers,
        checkpoint_seconds=resources.checkpoint_seconds,
        vocabulary=vocabulary_of(manifest, data),
        representations=study.representations,
    )


@contextlib.contextmanager
def _optuna_storage(folder: Storage) -> Iterator[str]:
    """URL of the sweep's Optuna storage; behind a remote folder it is a local file that is copied back at the end."""
    if folder.is_local:
        Path(folder.path()).mkdir(parents=True, exist_ok=True)
        yield f"sqlite:///{folder.path(OPTUNA)}"
        return
    with tempfile.TemporaryDirectory(prefix="dirtune-optuna-") as scratch:
        local = Path(scratch) / OPTUNA
        if folder.exists(OPTUNA):
            local.write_bytes(folder.read(OPTUNA))
        try:
            yield f"sqlite:///{local}"
        finally:
            # What is lost where this fails, the next sweep makes anew of the records.
            with contextlib.suppress(OSError):
                if local.exists():
                    folder.with_retry(RETRY_SECONDS).write(OPTUNA, local.read_bytes())
