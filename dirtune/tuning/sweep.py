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

import torch

from dirtune.data.residency import Residency
from dirtune.data.session import ray_session
from dirtune.data.store import read_manifest
from dirtune.data.stream import materialise, read_directly
from dirtune.errors import Fault, InputError
from dirtune.frozen import read
from dirtune.manifest import Manifest
from dirtune.results.compaction import compact
from dirtune.results.schema import ErrorClass, Status
from dirtune.results.sequential import recorded_values, rule_of, seeds_due
from dirtune.results.store import read_table
from dirtune.storage import Storage, without_keys
from dirtune.training.provenance import code_version
from dirtune.training.train import vocabulary_of
from dirtune.training.trial import HANDOVERS, tidy
from dirtune.tuning.autoscaling import NodeType, node_types, nodes_of, to_come
from dirtune.tuning.claim import STUDY_FILE, Claim, Extension
from dirtune.tuning.confirmation import confirm
from dirtune.tuning.crowding import crowding
from dirtune.tuning.driver import Driver, Silent, View
from dirtune.tuning.earlier import recorded_curves
from dirtune.tuning.files import find_study, is_file_name
from dirtune.tuning.forecast import Estimate, forecast, left_of, recorded_estimates
from dirtune.tuning.holder import held, refuse_if_held
from dirtune.tuning.jobs import JobMaker
from dirtune.tuning.liveness import Finding, findings
from dirtune.tuning.nodes import Node, available_nodes, nodes_of_cluster
from dirtune.tuning.optuna_studies import optuna_name, recall_searches
from dirtune.tuning.outage import PATIENCE_SECONDS, refuse_to_go_on
from dirtune.tuning.preflight import Plan, capacity, check, data_set_of, parameters_of
from dirtune.tuning.probe import probe_device, probed_estimates
from dirtune.tuning.retry import ALWAYS, classes_to_retry, reopen
from dirtune.tuning.search import Agenda, Ending
from dirtune.tuning.secondary import check_secondary, secondary_objectives
from dirtune.tuning.seeds import SeedSequence
from dirtune.tuning.slots import Slots
from dirtune.tuning.stop import stoppable
from dirtune.tuning.study import ResolvedStudy, Resources, load_study, resolve
from dirtune.tuning.tune_run import run_with_tune
from dirtune.tuning.warm_start import first_configurations
from dirtune.tuning.worker import WorkerSettings
from dirtune.yamlfile import parse_yaml

OPTUNA = "optuna.db"
LOOK = Residency(device_bytes=2**28, host_bytes=2**28)
"""A larger set is read from disk, batch by batch, by whoever only looks at its first batches."""


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep did and what is on disk now."""

    folder: str
    reused: int  # recorded before
    orphaned: int  # recorded before, and set aside now because the study no longer plans them
    run: Mapping[Status, int]  # ended now, by status
    crashed: Mapping[str, str]  # failed now because the worker died or raised: trials, and why
    halved: int = 0  # trials that ran out of memory and ran again with smaller micro-batches
    tracebacks: Sequence[str] = ()  # files, of those of them whose own code raised
    left: int  # trials that `resume` runs: not recorded now, or failed by infrastructure
    stopped: str | None = None  # what asked the sweep to end early: a signal, or `dirtune stop`


def plan(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    liveness: bool = False,
    probe: bool = False,
    expect: str | Path | None = None,
) -> Plan:
    """What `sweep` would run; trains nothing but what is asked for here.

    Args:
        study: a file, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; recorded trials there tell how long a trial takes.
        liveness: find out, by a batch of each, what arms and tuned settings change (`dirtune.tuning.liveness`).
        probe: measure how long a trial takes by some steps of every arm on this machine (`dirtune.tuning.probe`).
        expect: the cluster's file, whose nodes to come are counted as well (`dirtune.tuning.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the nodes cannot hold a trial.
    """
    types = node_types(expect)
    file = find_study(study)
    claim = _claim(file.text(), file.where, data=data, results=results)
    extension = claim.extension()
    found = _plan(claim, extension, available_nodes(), types)
    estimates = (
        _probed(claim, Storage.at(data)) if probe else recorded_estimates(claim.study, results)
    )
    return replace(
        found,
        forecast=forecast(
            claim.study, estimates, left=_left(claim, extension), concurrent=found.concurrent
        ),
        crowding=crowding(claim.study, results),
        findings=_findings(claim, Storage.at(data)) if liveness else None,
    )


def sweep(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    fuse: int | None = None,
    expect: str | Path | None = None,
    view: View | None = None,
) -> SweepSummary:
    """Run everything of a study that is not recorded yet.

    Args:
        study: a file, one of its variants as `FILE:VARIANT`, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the study gets a folder of its own below it.
        fuse: trials that one worker trains side by side, at most; none: as the study says (`resources.fuse`).
        expect: the file of a cluster that may have no nodes yet (`dirtune.tuning.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the folder holds another study.
    """
    types = node_types(expect)
    file = find_study(study)
    claim = _claim(file.text(), file.where, data=data, results=results)
    return _complete(
        _fused(claim, fuse), Storage.at(data), Storage.at(results), view or Silent(), ALWAYS, types
    )


def resume(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    retry: Sequence[str] = (),
    fuse: int | None = None,
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
    folder = _study_folder(results, name)
    if not folder.exists(STUDY_FILE):
        root = Storage.at(results)
        known = [name for name in root.folders() if root.exists(f"{name}/{STUDY_FILE}")]
        raise InputError(
            Fault(
                where=without_keys(results),
                rule="no sweep of this study to resume",
                got=name,
                known=known,
            )
        )
    text, where = folder.read(STUDY_FILE).decode(), folder.path(STUDY_FILE)
    claim = _claim(text, where, data=data, results=results)
    return _complete(
        _fused(claim, fuse), Storage.at(data), Storage.at(results), view or Silent(), classes, types
    )


def _claim(text: str, where: str, *, data: str | Path, results: str | Path) -> Claim:
    """The claim of the study in a file's text, which fits the data, on its folder."""
    study = resolve(parse_yaml(text, where=where), where=where)
    manifest = read_manifest(Storage.at(data), data_set_of(study))
    check(study, manifest)
    check_secondary(study, manifest)
    first_configurations(
        study, Storage.at(results)
    )  # what is not there is said before anything starts
    return Claim(_study_folder(results, study.name), study, manifest, text)


def _fused(claim: Claim, fuse: int | None) -> Claim:
    """The claim, for so many trials side by side."""
    if fuse is None:
        return claim
    study = claim.study.study
    resources = read(Resources, {**study.resources.model_dump(), "fuse": fuse}, where="--fuse")
    study = study.model_copy(update={"resources": resources})
    return replace(claim, study=replace(claim.study, study=study))


def _study_folder(results: str | Path, name: str) -> Storage:
    return Storage.at(results).below(name)


def _plan(
    claim: Claim, extension: Extension, nodes: Sequence[Node], types: Sequence[NodeType]
) -> Plan:
    study, manifest, further = claim.study, claim.manifest, to_come(types, nodes)
    return Plan(
        study=study, recorded=extension.reused, orphaned=len(extension.orphaned), parameters=parameters_of(study, manifest),
        rows={name: split.rows for name, split in manifest.splits.items()},
        trials=_trials(claim),
        concurrent=capacity(study, [*nodes, *nodes_of(further)]), to_come=further,
    )  # fmt: skip


def _trials(claim: Claim) -> dict[str, int]:
    """Trials by arm, those of further seeds as far as the records make them due."""
    study = claim.study
    trials = {arm.name: study.trials_in(arm) for arm in study.arms}
    rule = rule_of(claim.info)
    if rule is not None:
        due = seeds_due(rule, recorded_values(claim.folder, rule))
        trials = {arm: len(due[arm]) for arm in trials}
    return trials


def _left(claim: Claim, extension: Extension) -> dict[str, int]:
    """Trials of every arm that `extension` does not reuse."""
    jobs = JobMaker(study=claim.study, fingerprint=claim.manifest.fingerprint).possible()
    rows = read_table(claim.folder, "trials", columns=["trial_id", "arm"])
    recorded = zip(rows["trial_id"].to_pylist(), rows["arm"].to_pylist(), strict=True)
    arm_of = {job.trial_id: job.arm for job in jobs} | dict(recorded)
    reused = extension.kept | extension.restored
    # What a selection had brought and is restored is not planned before the search has selected again.
    return left_of(claim.study, [arm_of[trial] for trial in reused if trial in arm_of])


def _probed(claim: Claim, data: Storage) -> dict[str, Estimate]:
    device = probe_device(claim.study)
    at_hand = read_directly(data, claim.manifest, device, LOOK)
    return probed_estimates(claim.study, at_hand, vocabulary_of(claim.manifest, data))


def _findings(claim: Claim, data: Storage) -> tuple[Finding, ...]:
    at_hand = read_directly(data, claim.manifest, torch.device("cpu"), LOOK)
    return tuple(findings(claim.study, at_hand, vocabulary_of(claim.manifest, data)))


def _complete(
    claim: Claim,
    data: Storage,
    results: Storage,
    view: View,
    classes: frozenset[ErrorClass],
    types: Sequence[NodeType],
) -> SweepSummary:
    """Run what is not recorded yet, and again what failed with an error of these classes."""
    folder, study, manifest = claim.folder, claim.study, claim.manifest
    extension = claim.extension()
    refuse_if_held(folder)  # before Ray starts
    with ray_session():
        found = _plan(claim, extension, nodes_of_cluster(), types)
        # Only now: a study that does not fit the cluster leaves nothing behind.
        # Stoppable first: what it forgets was asked of an earlier sweep, as long as this one is not known to hold the folder.
        with stoppable(folder) as watch, held(folder), _optuna_storage(folder) as storage:
            claim = replace(
                claim
            )  # reads anew: another driver may have been here while Ray started
            extension = claim.extension()
            claim.forget_changed_searches(storage)
            claim.take()
            searches = [optuna_name(study.name, arm.name) for arm in study.searched_arms]
            reopen(folder, classes, storage, searches)
            recorded = _recorded(folder)
            endings = {trial_id: ending for trial_id, (_, ending) in recorded.items()}
            for trial_id, ending in endings.items():
                if ending.status != "failed":  # what these may still need their class has decided
                    tidy(folder, trial_id)
            recall_searches(folder, study, storage)
            rule = rule_of(claim.info)
            agenda = Agenda(
                study, storage=storage, fingerprint=manifest.fingerprint,
                code_version=code_version(), recorded=endings,
                queued=first_configurations(study, results),
                measured=functools.partial(secondary_objectives, folder, study),
                on_selected=functools.partial(confirm, folder),
                sequence=None if rule is None else SeedSequence(folder, rule),
                curves=functools.partial(recorded_curves, folder, study),
            )  # fmt: skip
            found = replace(found, trials=_trials(claim))  # reopened trials are due again
            patient = folder.patient(PATIENCE_SECONDS)
            driver = Driver(
                agenda, patient, view, found.concurrent, manifest.fingerprint, watch, study.study.resources
            )  # fmt: skip
            view.begin(replace(found, recorded=len(endings), earlier=tuple(recorded.values())))
            if not agenda.is_empty:
                settings = _worker_settings(study, manifest, patient, data)
                slots = Slots(study, types, found.concurrent)
                run_with_tune(study, driver, settings, materialise(data, manifest), slots)
                refuse_to_go_on(folder, driver.outage)
                compact(folder)
            if agenda.is_empty and not driver.to_retry:
                folder.remove(HANDOVERS)
    return SweepSummary(
        folder=folder.path(), reused=len(endings), orphaned=len(extension.orphaned),
        run=driver.counts, crashed=driver.crashed,
        halved=len(driver.halved), tracebacks=driver.tracebacks,
        left=max(
            0, found.total + driver.added - len(_recorded(folder)) - agenda.without_run
        ) + len(driver.to_retry),
        stopped=watch.reason,
    )  # fmt: skip


def _recorded(folder: Storage) -> dict[str, tuple[str, Ending]]:
    """The arm and the ending of every recorded trial."""
    rows = read_table(folder, "trials", columns=["arm", "status", "objective"]).to_pylist()
    return {
        row["trial_id"]: (row["arm"], Ending(status=row["status"], objective=row["objective"]))
        for row in rows
    }


def _worker_settings(
    study: ResolvedStudy, manifest: Manifest, folder: Storage, data: Storage
) -> WorkerSettings:
    resources = study.study.resources
    return WorkerSettings(
        study=folder, manifest=manifest, cpus=resources.cpus, gpus=resources.gpus,
        workers=resources.workers, checkpoint_seconds=resources.checkpoint_seconds,
        vocabulary=vocabulary_of(manifest, data), representations=study.study.representations,
    )  # fmt: skip


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
