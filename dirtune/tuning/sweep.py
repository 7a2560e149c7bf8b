"""Running a study: `sweep` and `resume` are one thing, set completion.

The study's folder is the state. Planned trials minus recorded ones are run; a trial that had been started continues
from its checkpoint; Tune schedules, pauses and stops, and what it remembers is thrown away at the end.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from dirtune.data.session import ray_session
from dirtune.data.store import read_manifest
from dirtune.data.stream import materialise
from dirtune.errors import Fault, InputError
from dirtune.manifest import MANIFEST, Manifest
from dirtune.results.compaction import compact
from dirtune.results.schema import Status
from dirtune.results.store import read_table, recorded
from dirtune.results.studies import STUDY_FILE as RESOLVED
from dirtune.storage import Storage
from dirtune.training.provenance import code_version, provenance
from dirtune.training.train import vocabulary_of
from dirtune.training.trial import tidy
from dirtune.tuning.driver import Driver, Silent, View, run_with_tune
from dirtune.tuning.preflight import Plan, capacity, check, data_set_of, parameters_of
from dirtune.tuning.search import Agenda, Ending
from dirtune.tuning.study import ResolvedStudy, find_study, load_study, resolve
from dirtune.tuning.worker import WorkerSettings
from dirtune.yamlfile import parse_yaml, read_text

STUDY_FILE, PROVENANCE, OPTUNA = "study.yaml", "provenance.json", "optuna.db"


@dataclass(frozen=True, kw_only=True)
class SweepSummary:
    """What a sweep did and what is on disk now."""

    folder: str
    reused: int  # recorded before
    run: Mapping[Status, int]  # ended now, by status
    crashed: Mapping[str, str]  # trials whose worker died, and why
    left: int  # trials that are not recorded now


def plan(study: str, *, data: str | Path = "data", results: str | Path = "results") -> Plan:
    """What `sweep` would run; starts nothing."""
    resolved = load_study(study)
    manifest = _fitting_manifest(resolved, data)
    folder = _study_folder(results, resolved.name)
    machine = {"cpus": os.cpu_count() or 1, "gpus": torch.cuda.device_count()}
    return _plan(resolved, manifest, recorded=len(recorded(folder)), **machine)


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
    return _complete(read_text(path), str(path), data=data, results=results, view=view)


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
    return _complete(text, where, data=data, results=results, view=view)


def _complete(
    text: str, where: str, *, data: str | Path, results: str | Path, view: View | None
) -> SweepSummary:
    """Run what is not recorded yet of the study in a file's text."""
    study = resolve(parse_yaml(text, where=where), where=where)
    manifest = _fitting_manifest(study, data)
    folder = _study_folder(results, study.name)
    claim = _Claim(study, manifest, text)
    claim.refuse_another(folder)
    return _run(claim, folder, Storage.at(data), view or Silent())


def _study_folder(results: str | Path, name: str) -> Storage:
    return Storage.at(results).below(name)


def _fitting_manifest(study: ResolvedStudy, data: str | Path) -> Manifest:
    manifest = read_manifest(Storage.at(data), data_set_of(study))
    check(study, manifest)
    return manifest


def _plan(
    study: ResolvedStudy, manifest: Manifest, *, recorded: int, cpus: float, gpus: float
) -> Plan:
    return Plan(
        study=study, recorded=recorded, parameters=parameters_of(study, manifest),
        rows={name: split.rows for name, split in manifest.splits.items()},
        trials={arm.name: study.trials_in(arm) for arm in study.arms},
        concurrent=capacity(study, cpus, gpus),
    )  # fmt: skip


@dataclass(frozen=True)
class _Claim:
    """A study that takes a folder, or continues in the one it has."""

    study: ResolvedStudy
    manifest: Manifest
    text: str

    @property
    def plain(self) -> dict[str, Any]:
        manifest = self.manifest
        data = {
            "name": manifest.name, "fingerprint": manifest.fingerprint, "unit": manifest.label.unit,
        }  # fmt: skip
        return {**self.study.plain(), "data": data}

    def refuse_another(self, folder: Storage) -> None:
        """See that the folder holds no other study, before anything is started."""
        if not folder.exists(RESOLVED):
            return
        differences = list(_differences(json.loads(folder.read(RESOLVED)), self.plain))
        if differences:
            raise InputError(
                [Fault(where=folder.path(), rule="holds another study of this name")]
                + [
                    Fault(where=folder.path(RESOLVED), key=key, rule=text)
                    for key, text in differences
                ]
            )

    def take(self, folder: Storage) -> None:
        """Make the folder this study's, unless it already is."""
        if folder.exists(RESOLVED):
            return
        folder.write(PROVENANCE, json.dumps(provenance(), indent=1).encode())
        # A copy, so that metrics with other label bins can be computed where the data are not.
        folder.write(MANIFEST, self.manifest.model_dump_json(indent=1).encode())
        folder.write(STUDY_FILE, self.text.encode())
        folder.write(RESOLVED, json.dumps(self.plain, indent=1).encode())


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys at which two plain values differ, and how."""
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(
                before.get(name), now.get(name), f"{key}.{name}" if key else name
            )
    elif before != now:
        yield key, f"was {before!r}, is now {now!r}"


def _run(claim: _Claim, folder: Storage, data: Storage, view: View) -> SweepSummary:
    study, manifest = claim.study, claim.manifest
    endings = _recorded_endings(folder)
    for trial_id in endings:
        tidy(folder, trial_id)
    with ray_session():
        cluster = ray.cluster_resources()
        found = _plan(
            study,
            manifest,
            recorded=len(endings),
            cpus=cluster.get("CPU", 0),
            gpus=cluster.get("GPU", 0),
        )
        claim.take(folder)  # only now: a study that does not fit the cluster leaves nothing behind
        with _optuna_storage(folder) as storage:
            agenda = Agenda(
                study, storage=storage, fingerprint=manifest.fingerprint,
                code_version=code_version(), recorded=endings,
            )  # fmt: skip
            driver = Driver(agenda, folder, view, found.concurrent)
            view.begin(found)
            if not agenda.is_empty:
                settings = _worker_settings(study, manifest, folder, data)
                run_with_tune(study, driver, settings, materialise(data, manifest))
                compact(folder)
    return SweepSummary(
        folder=folder.path(), reused=len(endings), run=driver.counts, crashed=driver.crashed,
        left=found.total - len(endings) - sum(driver.counts.values()),
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
