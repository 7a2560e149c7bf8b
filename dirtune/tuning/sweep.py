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

from dirtune.data.session import ray_session
from dirtune.data.stream import materialise
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage, without_keys
from dirtune.manifest import Manifest
from dirtune.results.analysis.sequential import rule_of
from dirtune.results.records.compaction import compact
from dirtune.results.records.schema import ErrorClass, Status
from dirtune.results.records.store import read_table
from dirtune.study.files import find_study, is_file_name
from dirtune.study.resolve import ResolvedStudy, Resources, load_study
from dirtune.training.provenance import code_version
from dirtune.training.train import vocabulary_of
from dirtune.training.trial import HANDOVERS, tidy
from dirtune.tuning.execution.concurrency import Slots
from dirtune.tuning.execution.driver import Driver, Silent, View
from dirtune.tuning.execution.fusing import Fuse
from dirtune.tuning.execution.storage_failure import PATIENCE_SECONDS, refuse_to_go_on
from dirtune.tuning.execution.tune_run import run_with_tune
from dirtune.tuning.execution.worker import WorkerSettings
from dirtune.tuning.folder.confirmation import confirm
from dirtune.tuning.folder.learning_curves import recorded_curves
from dirtune.tuning.folder.lock import held, refuse_if_held
from dirtune.tuning.folder.optuna_storage import optuna_name, recall_searches
from dirtune.tuning.folder.reconcile import STUDY_FILE, Claim
from dirtune.tuning.folder.retry import ALWAYS, classes_to_retry, reopen
from dirtune.tuning.folder.stop_request import stoppable
from dirtune.tuning.plan.autoscaling import NodeType, node_types
from dirtune.tuning.plan.capacity import nodes_of_cluster
from dirtune.tuning.plan.plan import claimed, planned, study_folder, trials_by_arm
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
    halved: int = 0
    """Trials that ran out of memory and ran again with smaller micro-batches."""
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
    fuse: Fuse | None = None,
    expect: str | Path | None = None,
    view: View | None = None,
) -> SweepSummary:
    """Run everything of a study that is not recorded yet.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the study gets a folder of its own below it.
        fuse: trials that one worker trains side by side, at most, or `auto`; none: as the study says (`resources.fuse`).
        expect: the file of a cluster that may have no nodes yet (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the folder holds another study.
    """
    types = node_types(expect)
    file = find_study(study)
    claim = claimed(file.text(), file.where, data=data, results=results)
    return _complete(_fused(claim, fuse), Storage.at(data), Storage.at(results), view or Silent(), ALWAYS, types)


def resume(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    retry: Sequence[str] = (),
    fuse: Fuse | None = None,
    expect: str | Path | None = None,
    view: View | None = None,
) -> SweepSummary:
    """Continue a sweep from its folder: recorded trials are kept, started ones go on from their checkpoints.

    Args:
        retry: failed trials to run again, by error class (`out_of_memory`, `nan`, `code`), or all as `failed`; those that
            failed by `infrastructure` always are.
        fuse: as for `sweep`.
        expect: as for `sweep`.

    Raises:
        InputError: there is no such sweep, or the data have changed since, or no such error class.
    """
    classes, types = classes_to_retry(retry), node_types(expect)
    name = load_study(study).name if is_file_name(study) else study
    folder = study_folder(results, name)
    if not folder.exists(STUDY_FILE):
        root = Storage.at(results)
        known = [name for name in root.folders() if root.exists(f"{name}/{STUDY_FILE}")]
        raise InputError(
            Fault(where=without_keys(results), rule="no sweep of this study to resume", got=name, known=known)
        )
    text, where = folder.read(STUDY_FILE).decode(), folder.path(STUDY_FILE)
    claim = claimed(text, where, data=data, results=results)
    return _complete(_fused(claim, fuse), Storage.at(data), Storage.at(results), view or Silent(), classes, types)


def _fused(claim: Claim, fuse: Fuse | None) -> Claim:
    """The claim, for so many trials side by side."""
    if fuse is None:
        return claim
    study = claim.study.study
    resources = read(Resources, {**study.resources.model_dump(), "fuse": fuse}, where=study.name)
    study = study.model_copy(update={"resources": resources})
    return replace(claim, study=replace(claim.study, study=study))


def _complete(
    claim: Claim, data: Storage, results: Storage, view: View, classes: frozenset[ErrorClass], types: Sequence[NodeType]
) -> SweepSummary:
    """Run what is not recorded yet, and again what failed with an error of these classes."""
    folder, study, manifest = claim.folder, claim.study, claim.manifest
    extension = claim.extension()
    # Before Ray starts
    refuse_if_held(folder)
    with ray_session():
        found = planned(claim, extension, nodes_of_cluster(), types)
        # Only now: a study that does not fit the cluster leaves nothing behind.
        # Stoppable first: what it forgets was asked of an earlier sweep, as long as this one is not known to hold the folder.
        with stoppable(folder) as watch, held(folder), _optuna_storage(folder) as storage:
            # Reads anew: another driver may have been here meanwhile
            claim = replace(claim)
            extension = claim.extension()
            recorded = _taken(claim, storage, classes)
            agenda = _agenda(claim, storage, results, recorded)
            # Reopened trials are due again
            found = replace(found, trials=trials_by_arm(claim))
            patient = folder.patient(PATIENCE_SECONDS)
            driver = Driver(agenda, patient, view, found.concurrent, manifest.fingerprint, watch, study.study.resources)
            view.begin(replace(found, recorded=len(recorded), earlier=tuple(recorded.values())))
            if not agenda.is_empty:
                settings = _worker_settings(study, manifest, patient, data)
                slots = Slots(study, types, found.concurrent)
                run_with_tune(study, driver, settings, materialise(data, manifest), slots)
                refuse_to_go_on(folder, driver.outage)
                compact(folder)
            if agenda.is_empty and not driver.to_retry:
                folder.remove(HANDOVERS)
    return SweepSummary(
        folder=folder.path(),
        reused=len(recorded),
        orphaned=len(extension.orphaned),
        run=driver.counts,
        crashed=driver.crashed,
        halved=len(driver.halved),
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
        curves=functools.partial(recorded_curves, folder, study),
    )


def _recorded(folder: Storage) -> Recorded:
    rows = read_table(folder, "trials", columns=["arm", "status", "objective"]).to_pylist()
    return {row["trial_id"]: (row["arm"], Ending(status=row["status"], objective=row["objective"])) for row in rows}


def _worker_settings(study: ResolvedStudy, manifest: Manifest, folder: Storage, data: Storage) -> WorkerSettings:
    resources = study.study.resources
    return WorkerSettings(
        study=folder,
        manifest=manifest,
        cpus=resources.cpus,
        gpus=resources.gpus,
        workers=resources.workers,
        checkpoint_seconds=resources.checkpoint_seconds,
        vocabulary=vocabulary_of(manifest, data),
        representations=study.study.representations,
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
                    folder.patient(PATIENCE_SECONDS).write(OPTUNA, local.read_bytes())
