"""What a study would run: read, checked against data and nodes, and counted, before anything is trained or written.

`plan` shows it to the user; a sweep begins with the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dirtune.data.blocks import read_directly
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.io.storage import Storage
from dirtune.io.yamlfile import parse_yaml
from dirtune.results.analysis.sequential import recorded_values, rule_of, seeds_due
from dirtune.results.records.store import read_table
from dirtune.study.files import find_study
from dirtune.study.resolve import resolve
from dirtune.training.train import vocabulary_of
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.reconcile import Claim, Extension
from dirtune.tuning.plan.autoscaling import NodeType, find_startable_nodes, list_nodes, read_node_types
from dirtune.tuning.plan.capacity import Node, compute_concurrency, list_available_nodes
from dirtune.tuning.plan.checks import check_study, count_parameters, get_data_set
from dirtune.tuning.plan.gpu_memory import get_gpu_memory_warning
from dirtune.tuning.plan.inert_settings import SettingEffect, measure_setting_effects
from dirtune.tuning.plan.runtime import (
    TimeEstimate,
    count_missing_trials,
    estimate_from_records,
    forecast_runtime,
)
from dirtune.tuning.plan.runtime_probe import estimate_from_probe, get_probe_device
from dirtune.tuning.search.secondary import check_secondary
from dirtune.tuning.search.warm_start import first_configurations

LOOK = MemoryBudget(device_bytes=2**28, host_bytes=2**28)
"""A larger set is read from disk, batch by batch, by whoever only looks at its first batches."""


def plan(
    study: str,
    *,
    data: str | Path = "data",
    results: str | Path = "results",
    effects: bool = False,
    probe: bool = False,
    expect: str | Path | None = None,
) -> Plan:
    """What `sweep` would run; trains nothing but what is asked for here.

    Args:
        study: a file, or the name of a shipped study.
        data: root of the ingested data sets; a path or URL.
        results: root of the results; recorded trials there tell how long a trial takes.
        effects: find out, by a batch of each, what arms and tuned settings change (`dirtune.tuning.plan.inert_settings`).
        probe: measure how long a trial takes by some steps of every arm on this machine (`dirtune.tuning.plan.runtime_probe`).
        expect: the cluster's file, whose nodes to come are counted as well (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the nodes cannot hold a trial.
    """
    types = read_node_types(expect)
    file = find_study(study)
    claim = open_study(file.read_yaml(), file.where, data=data, results=results)
    extension = claim.extension()
    found = make_plan(claim, extension, list_available_nodes(), types)
    estimates = _probed(claim, Storage.open(data)) if probe else estimate_from_records(claim.study, results)
    return replace(
        found,
        forecast=forecast_runtime(claim.study, estimates, left=_left(claim, extension), concurrent=found.concurrent),
        crowding=get_gpu_memory_warning(claim.study, results),
        findings=_findings(claim, Storage.open(data)) if effects else None,
    )


def open_study(text: str, where: str, *, data: str | Path, results: str | Path) -> Claim:
    """The claim of the study in a file's text, which fits the data, on its folder.

    Raises:
        InputError: the study is not usable, does not fit the data, or starts from results that are not there.
    """
    study = resolve(parse_yaml(text, where=where), where=where)
    manifest = read_manifest(Storage.open(data), get_data_set(study))
    check_study(study, manifest)
    check_secondary(study, manifest)
    first_configurations(study, Storage.open(results))
    return Claim(get_study_folder(results, study.name), study, manifest, text)


def get_study_folder(results: str | Path, name: str) -> Storage:
    """The folder of a study."""
    return Storage.open(results).below(name)


def make_plan(claim: Claim, extension: Extension, nodes: Sequence[Node], types: Sequence[NodeType]) -> Plan:
    """The plan of a claim on these nodes and those that may come.

    Raises:
        InputError: they cannot hold a trial.
    """
    study, manifest, further = claim.study, claim.manifest, find_startable_nodes(types, nodes)
    return Plan(
        study=study,
        recorded=extension.reused,
        orphaned=len(extension.orphaned),
        parameters=count_parameters(study, manifest),
        rows={name: split.rows for name, split in manifest.splits.items()},
        trials=count_trials(claim),
        concurrent=compute_concurrency(study, [*nodes, *list_nodes(further)]),
        to_come=further,
    )


def count_trials(claim: Claim) -> dict[str, int]:
    """Trials by arm, those of further seeds as far as the records make them due."""
    study = claim.study
    trials = {arm.name: study.count_trials(arm) for arm in study.arms}
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
    return count_missing_trials(claim.study, [arm_of[trial] for trial in reused if trial in arm_of])


def _probed(claim: Claim, data: Storage) -> dict[str, TimeEstimate]:
    device = get_probe_device(claim.study)
    at_hand = read_directly(data, claim.manifest, device, LOOK)
    return estimate_from_probe(claim.study, at_hand, vocabulary_of(claim.manifest, data))


def _findings(claim: Claim, data: Storage) -> tuple[SettingEffect, ...]:
    at_hand = read_directly(data, claim.manifest, torch.device("cpu"), LOOK)
    return tuple(measure_setting_effects(claim.study, at_hand, vocabulary_of(claim.manifest, data)))
