"""Plan of a sweep: the study read, checked against data and nodes, and its trials counted; nothing is trained or written.

`plan` shows it to the user; a sweep starts from the same values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.io.yamlfile import parse_yaml
from dirtune.results.analysis.sequential import read_values, make_sequential_rule, list_due_seeds
from dirtune.results.records.store import read_table
from dirtune.study.files import find_study
from dirtune.study.resolve import ResolvedStudy, resolve
from dirtune.training.train import read_vocabulary
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.reconcile import Reuse, StudyFolder
from dirtune.tuning.folder.records import TrialOutcome
from dirtune.tuning.plan.autoscaling import NodeType, find_startable_nodes, list_nodes, read_node_types
from dirtune.tuning.plan.capacity import Node, compute_concurrency, list_available_nodes
from dirtune.tuning.plan.checks import check_study, count_parameters, get_data_set
from dirtune.tuning.plan.gpu_memory import get_gpu_memory_warning
from dirtune.tuning.plan.inert_settings import SettingEffect, measure_setting_effects
from dirtune.tuning.plan.runtime import (
    RuntimeForecast,
    count_missing_trials,
    estimate_from_records,
    forecast_runtime,
)
from dirtune.tuning.plan.runtime_probe import estimate_from_probe, get_probe_device
from dirtune.tuning.search.secondary import check_secondary
from dirtune.tuning.search.warm_start import find_first_settings

PREVIEW_MEMORY = MemoryBudget(device_bytes=2**28, host_bytes=2**28)
"""Memory for a data set of which only the first batches are needed; a larger one is read from disk, batch by batch."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Trials, resources and run time of a study."""

    study: ResolvedStudy
    samples: dict[str, int]
    """Samples by split."""
    trials: dict[str, int]
    """Trials by arm."""
    recorded_trials: int
    """Trials that need not run."""
    recorded_outcomes: tuple[tuple[str, TrialOutcome], ...] = ()
    """Arm and outcome of every recorded trial, once the sweep has begun."""
    orphaned_trials: int = 0
    """Recorded trials that the study no longer plans."""
    concurrency: int
    """Number of concurrent trials."""
    startable_nodes: tuple[NodeType, ...] = ()
    """Nodes that an autoscaler may start, which `concurrency` includes."""
    parameters: dict[str, int]
    """Trainable parameters by arm."""
    forecast: RuntimeForecast | None = None
    gpu_memory_warning: str | None = None
    """Set if trials that share a GPU need more memory than it has."""
    setting_effects: tuple[SettingEffect, ...] | None = None
    """Effects of the arms and tuned settings. None: not measured."""

    @property
    def inert_settings(self) -> tuple[SettingEffect, ...]:
        """Arms and tuned settings that change nothing, among the measured ones."""
        return tuple(effect for effect in self.setting_effects or () if effect.is_inert)

    @property
    def total_trials(self) -> int:
        return sum(self.trials.values())


def plan(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    effects: bool = False,
    probe: bool = False,
    expect: str | Path | None = None,
) -> Plan:
    """Return what `sweep` would run; trains nothing but the requested measurements.

    Args:
        study: a file, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; the time of a trial is estimated from the trials recorded there.
        effects: measure the effects of all arms and tuned settings on a batch (`dirtune.tuning.plan.inert_settings`).
        probe: estimate the time of a trial from some steps on this machine (`dirtune.tuning.plan.runtime_probe`).
        expect: the cluster's file, whose startable nodes are included (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: the study or the data are invalid, or the nodes cannot hold a trial.
    """
    types = read_node_types(expect)
    file = find_study(study)
    folder = open_study_folder(file.read_yaml(), file.where, data=data, results=results)
    reuse = folder.find_reuse()
    made = make_plan(folder, reuse, list_available_nodes(), types)
    vocabulary = read_vocabulary(folder.manifest, Storage.open(data)) if probe or effects else None

    def preview(device: torch.device) -> ResidentData:
        return read_without_ray(Storage.open(data), folder.manifest, device, PREVIEW_MEMORY)

    estimates: Mapping[str, TimeEstimate | None]
    if probe:
        estimates = estimate_from_probe(folder.study, preview(get_probe_device(folder.study)), vocabulary)
    else:
        estimates = estimate_from_records(folder.study, results)
    left = _count_missing(folder, reuse)
    measured = measure_setting_effects(folder.study, preview(torch.device("cpu")), vocabulary) if effects else None
    return replace(
        made,
        forecast=forecast_runtime(folder.study, estimates, left=left, concurrent=made.concurrency),
        gpu_memory_warning=get_gpu_memory_warning(folder.study, results),
        setting_effects=None if measured is None else tuple(measured),
    )


def open_study_folder(text: str, where: str, *, data: str | Path, results: str | Path) -> StudyFolder:
    """Resolve and check a study, and return it with its folder.

    Args:
        text: the study as YAML.
        where: name of the study in faults.
        data: root of the ingested data sets.
        results: root of the results.

    Raises:
        InputError: the study is invalid, does not fit the data, or starts from results that do not exist.
    """
    study = resolve(parse_yaml(text, where=where), where=where)
    manifest = read_manifest(Storage.open(data), get_data_set(study))
    check_study(study, manifest)
    check_secondary(study, manifest)
    find_first_settings(study, Storage.open(results))
    return StudyFolder(get_study_folder(results, study.name), study, manifest, text)


def get_study_folder(results: str | Path, name: str) -> Storage:
    """Return the folder of a study."""
    return Storage.open(results).get_folder(name)


def make_plan(folder: StudyFolder, reuse: Reuse, nodes: Sequence[Node], types: Sequence[NodeType]) -> Plan:
    """Return the plan for these nodes and those that an autoscaler may start.

    Args:
        types: node types of the autoscaler.

    Raises:
        InputError: the nodes cannot hold a trial.
    """
    study, manifest, startable = folder.study, folder.manifest, find_startable_nodes(types, nodes)
    return Plan(
        study=study,
        recorded_trials=len(reuse.trial_ids),
        orphaned_trials=len(reuse.orphaned),
        parameters=count_parameters(study, manifest),
        samples={name: split.rows for name, split in manifest.splits.items()},
        trials=count_trials(folder),
        concurrency=compute_concurrency(study, [*nodes, *list_nodes(startable)]),
        startable_nodes=startable,
    )


def count_trials(folder: StudyFolder) -> dict[str, int]:
    """Return the number of trials by arm, with the seeds that a sequential study needs by its records."""
    study = folder.study
    trials = {arm.name: study.count_trials(arm) for arm in study.arms}
    rule = make_sequential_rule(folder.to_info())
    if rule is not None:
        due = list_due_seeds(rule, read_values(folder.storage, rule))
        trials = {arm: len(due[arm]) for arm in trials}
    return trials


def _count_missing(folder: StudyFolder, reuse: Reuse) -> dict[str, int]:
    """Return the number of trials by arm that `reuse` does not reuse."""
    jobs = JobMaker(study=folder.study, fingerprint=folder.manifest.fingerprint).make_possible_jobs()
    rows = read_table(folder.storage, "trials", columns=["trial_id", "arm"])
    recorded = zip(rows["trial_id"].to_pylist(), rows["arm"].to_pylist(), strict=True)
    arms = {job.trial_id: job.arm for job in jobs} | dict(recorded)
    # A restored trial of a search's earlier selection has no arm here: it is planned only if the search selects it again.
    return count_missing_trials(folder.study, [arms[trial] for trial in reuse.trial_ids if trial in arms])
