"""What a study would run: read, checked against data and nodes, and counted, before anything is trained or written.

`plan` shows it to the user; a sweep begins with the same values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from dirtune.data.memory_budget import Residency
from dirtune.data.store import read_manifest
from dirtune.data.stream import read_directly
from dirtune.io.storage import Storage
from dirtune.io.yamlfile import parse_yaml
from dirtune.results.analysis.sequential import recorded_values, rule_of, seeds_due
from dirtune.results.records.store import read_table
from dirtune.study.files import find_study
from dirtune.study.resolve import resolve
from dirtune.training.train import vocabulary_of
from dirtune.tuning.folder.jobs import JobMaker
from dirtune.tuning.folder.reconcile import Claim, Extension
from dirtune.tuning.plan.autoscaling import NodeType, node_types, nodes_of, to_come
from dirtune.tuning.plan.capacity import Node, available_nodes
from dirtune.tuning.plan.checks import Plan, capacity, check, data_set_of, parameters_of
from dirtune.tuning.plan.gpu_memory import crowding
from dirtune.tuning.plan.inert_settings import Finding, findings
from dirtune.tuning.plan.runtime import Estimate, forecast, left_of, recorded_estimates
from dirtune.tuning.plan.runtime_probe import probe_device, probed_estimates
from dirtune.tuning.search.secondary import check_secondary
from dirtune.tuning.search.warm_start import first_configurations

LOOK = Residency(device_bytes=2**28, host_bytes=2**28)
"""A larger set is read from disk, batch by batch, by whoever only looks at its first batches."""


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
        liveness: find out, by a batch of each, what arms and tuned settings change (`dirtune.tuning.plan.inert_settings`).
        probe: measure how long a trial takes by some steps of every arm on this machine (`dirtune.tuning.plan.runtime_probe`).
        expect: the cluster's file, whose nodes to come are counted as well (`dirtune.tuning.plan.autoscaling`).

    Raises:
        InputError: the study or the data are not usable, or the nodes cannot hold a trial.
    """
    types = node_types(expect)
    file = find_study(study)
    claim = claimed(file.text(), file.where, data=data, results=results)
    extension = claim.extension()
    found = planned(claim, extension, available_nodes(), types)
    estimates = _probed(claim, Storage.at(data)) if probe else recorded_estimates(claim.study, results)
    return replace(
        found,
        forecast=forecast(claim.study, estimates, left=_left(claim, extension), concurrent=found.concurrent),
        crowding=crowding(claim.study, results),
        findings=_findings(claim, Storage.at(data)) if liveness else None,
    )


def claimed(text: str, where: str, *, data: str | Path, results: str | Path) -> Claim:
    """The claim of the study in a file's text, which fits the data, on its folder.

    Raises:
        InputError: the study is not usable, does not fit the data, or starts from results that are not there.
    """
    study = resolve(parse_yaml(text, where=where), where=where)
    manifest = read_manifest(Storage.at(data), data_set_of(study))
    check(study, manifest)
    check_secondary(study, manifest)
    first_configurations(study, Storage.at(results))
    return Claim(study_folder(results, study.name), study, manifest, text)


def study_folder(results: str | Path, name: str) -> Storage:
    """The folder of a study."""
    return Storage.at(results).below(name)


def planned(claim: Claim, extension: Extension, nodes: Sequence[Node], types: Sequence[NodeType]) -> Plan:
    """The plan of a claim on these nodes and those that may come.

    Raises:
        InputError: they cannot hold a trial.
    """
    study, manifest, further = claim.study, claim.manifest, to_come(types, nodes)
    return Plan(
        study=study,
        recorded=extension.reused,
        orphaned=len(extension.orphaned),
        parameters=parameters_of(study, manifest),
        rows={name: split.rows for name, split in manifest.splits.items()},
        trials=trials_by_arm(claim),
        concurrent=capacity(study, [*nodes, *nodes_of(further)]),
        to_come=further,
    )


def trials_by_arm(claim: Claim) -> dict[str, int]:
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
