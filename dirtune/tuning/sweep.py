"""Running a study: `sweep` and `resume` are one thing, set completion.

The study's folder is the state. Planned trials minus recorded ones are run; a trial that had been started continues
from its checkpoint; Tune schedules, pauses and stops, and what it remembers is thrown away at the end.
"""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from dirtune.data.session import ray_session
from dirtune.data.store import read_manifest
from dirtune.data.stream import materialise
from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest
from dirtune.results.compaction import compact
from dirtune.results.schema import Status
from dirtune.results.store import read_table
from dirtune.storage import Storage
from dirtune.training.provenance import code_version
from dirtune.training.train import vocabulary_of
from dirtune.training.trial import tidy
from dirtune.tuning.claim import STUDY_FILE, Claim, Extension
from dirtune.tuning.confirmation import confirm
from dirtune.tuning.driver import Driver, Silent, View, run_with_tune
from dirtune.tuning.holder import held, refuse_if_held
from dirtune.tuning.optuna_studies import recall_searches
from dirtune.tuning.preflight import Plan, capacity, check, data_set_of, parameters_of
from dirtune.tuning.search import Agenda, Ending
from dirtune.tuning.secondary import check_secondary, secondary_objectives
from dirtune.tuning.study import ResolvedStudy, find_study, load_study, resolve
from dirtune.tuning.warm_start import first_configurations
from dirtune.tuning.worker import WorkerSettings
from dirtune.yamlfile import parse_yaml, read_text

OPTUNA = "optuna.db"


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep did and what is on disk now."""

    folder: str
    reused: int  # recorded before
    orphaned: int  # recorded before, and set aside now because the study no longer plans them
    run: Mapping[Status, int]  # ended now, by status
    crashed: Mapping[str, str]  # trials whose worker died, and why
    left: int  # trials that are not recorded now


def plan(study: str, *, data: str | Path = "data", results: str | Path = "results") -> Plan:
    """What `sweep` would run; starts nothing."""
    path = find_study(study)
    claim = _claim(read_text(path), str(path), data=data, results=results)
    machine = {"cpus": os.cpu_count() or 1, "gpus": torch.cuda.device_count()}
    return _plan(claim, claim.extension(), **machine)


def sweep(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    view: View | None = None,
) -> SweepSummary:
    """Run everything of a study that is not recorded yet.

    Args:
        study: a file, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the study gets a folder of its own below it.

    Raises:
        InputError: the study or the data are not usable, or the folder holds another study.
    """
    path = find_study(study)
    claim = _claim(read_text(path), str(path), data=data, results=results)
    return _complete(claim, Storage.at(data), Storage.at(results), view or Silent())


def resume(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    view: View | None = None,
) -> SweepSummary:
    """Continue a sweep from its folder: recorded trials are kept, started ones go on from their checkpoints.

    Raises:
        InputError: there is no such sweep, or the data have changed since.
    """
    name = load_study(study).name if study.endswith((".yaml", ".yml")) else study
    folder = _study_folder(results, name)
    if not folder.exists(STUDY_FILE):
        root = Storage.at(results)
        known = [name for name in root.folders() if root.exists(f"{name}/{STUDY_FILE}")]
        raise InputError(
            Fault(
                where=str(results), rule="no sweep of this study to resume", got=name, known=known
            )
        )
    text, where = folder.read(STUDY_FILE).decode(), folder.path(STUDY_FILE)
    claim = _claim(text, where, data=data, results=results)
    return _complete(claim, Storage.at(data), Storage.at(results), view or Silent())


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


def _study_folder(results: str | Path, name: str) -> Storage:
    return Storage.at(results).below(name)


def _plan(claim: Claim, extension: Extension, *, cpus: float, gpus: float) -> Plan:
    study, manifest = claim.study, claim.manifest
    return Plan(
        study=study, recorded=extension.reused, orphaned=len(extension.orphaned), parameters=parameters_of(study, manifest),
        rows={name: split.rows for name, split in manifest.splits.items()},
        trials={arm.name: study.trials_in(arm) for arm in study.arms},
        concurrent=capacity(study, cpus, gpus),
    )  # fmt: skip


def _complete(claim: Claim, data: Storage, results: Storage, view: View) -> SweepSummary:
    """Run what is not recorded yet."""
    folder, study, manifest = claim.folder, claim.study, claim.manifest
    extension = claim.extension()
    refuse_if_held(folder)  # before Ray starts
    with ray_session():
        cluster = ray.cluster_resources()
        found = _plan(claim, extension, cpus=cluster.get("CPU", 0), gpus=cluster.get("GPU", 0))
        # Only now: a study that does not fit the cluster leaves nothing behind.
        with held(folder), _optuna_storage(folder) as storage:
            claim.forget_changed_searches(storage)
            claim.take()
            endings = _recorded_endings(folder)
            for trial_id in endings:
                tidy(folder, trial_id)
            recall_searches(folder, study, storage)
            agenda = Agenda(
                study, storage=storage, fingerprint=manifest.fingerprint,
                code_version=code_version(), recorded=endings,
                queued=first_configurations(study, results),
                measured=functools.partial(secondary_objectives, folder, study),
                on_selected=functools.partial(confirm, folder),
            )  # fmt: skip
            driver = Driver(agenda, folder, view, found.concurrent)
            view.begin(found)
            if not agenda.is_empty:
                settings = _worker_settings(study, manifest, folder, data)
                run_with_tune(study, driver, settings, materialise(data, manifest))
                compact(folder)
    return SweepSummary(
        folder=folder.path(), reused=len(endings), orphaned=len(extension.orphaned),
        run=driver.counts, crashed=driver.crashed,
        left=max(0, found.total - len(_recorded_endings(folder)) - agenda.without_run),
    )  # fmt: skip


def _recorded_endings(folder: Storage) -> dict[str, Ending]:
    rows = read_table(folder, "trials", columns=["status", "objective"]).to_pylist()
    return {
        row["trial_id"]: Ending(status=row["status"], objective=row["objective"]) for row in rows
    }


def _worker_settings(
    study: ResolvedStudy, manifest: Manifest, folder: Storage, data: Storage
) -> WorkerSettings:
    resources = study.study.resources
    return WorkerSettings(
        study=folder, manifest=manifest, cpus=resources.cpus, gpus=resources.gpus,
        workers=resources.workers, checkpoint_seconds=resources.checkpoint_seconds,
        vocabulary=vocabulary_of(manifest, data),
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
            if local.exists():
                folder.write(OPTUNA, local.read_bytes())
