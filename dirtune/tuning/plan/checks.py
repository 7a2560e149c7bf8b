"""Before a sweep spends anything: does the study fit the data and the machine, and what will it take?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest
from dirtune.models.build import build_regressor
from dirtune.models.regressor import Regressor
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm, Resources
from dirtune.study.search_settings import Asha, Median
from dirtune.training.numerics import check_layers, check_machine
from dirtune.training.state import check_labels
from dirtune.training.train import check_against
from dirtune.tuning.folder.confirmation import Ending
from dirtune.tuning.plan.autoscaling import NodeType
from dirtune.tuning.plan.capacity import Node, count_workers, describe_nodes
from dirtune.tuning.plan.inert_settings import SettingEffect
from dirtune.tuning.plan.runtime import RuntimeForecast


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study would run."""

    study: ResolvedStudy
    rows: dict[str, int]
    """Samples by split."""
    trials: dict[str, int]
    """By arm."""
    recorded: int
    """Trials that need not be run."""
    earlier: tuple[tuple[str, Ending], ...] = ()
    """Their arms and how they ended, once a sweep has begun."""
    orphaned: int = 0
    """Recorded, and no longer planned."""
    concurrent: int
    to_come: tuple[NodeType, ...] = ()
    """Nodes that an autoscaler may start, and `concurrent` counts."""
    parameters: dict[str, int]
    """Trainable parameters by arm."""
    forecast: RuntimeForecast | None = None
    """How long it takes."""
    crowding: str | None = None
    """That trials which share a GPU need more memory than it has."""
    findings: tuple[SettingEffect, ...] | None = None
    """What arms and tuned settings change, if asked."""

    @property
    def dead(self) -> tuple[SettingEffect, ...]:
        """Arms and tuned settings that change nothing, as far as that was asked."""
        return tuple(finding for finding in self.findings or () if finding.is_dead)

    @property
    def total(self) -> int:
        return sum(self.trials.values())


def get_data_set(study: ResolvedStudy) -> str:
    """The one data set of a study.

    Raises:
        InputError: its arms use several.
    """
    names = sorted({arm.config.data.name for arm in study.arms})
    if len(names) > 1:
        raise InputError(Fault(where=study.name, rule="all arms of a study share one data set", got=names))
    return names[0]


def check_study(study: ResolvedStudy, manifest: Manifest) -> None:
    """Whether every arm fits the data.

    Raises:
        InputError: with everything that does not.
    """
    faults: dict[tuple[str, str, str], Fault] = {}
    for arm in study.arms:
        for fault in _faults_of_arm(study, arm, manifest):
            # What several arms share is said for the first of them.
            faults.setdefault((fault.key.split(".", 2)[-1], fault.rule, repr(fault.got)), fault)
    if faults:
        raise InputError(faults.values())


def capacity(study: ResolvedStudy, nodes: Sequence[Node]) -> int:
    """How many trials these nodes run at once.

    Raises:
        InputError: they cannot hold even one.
    """
    need = study.resources
    slots = count_workers(nodes, cpus=need.cpus, gpus=need.gpus)
    if slots < need.workers:
        fault = Fault(where=study.name, key="resources", rule=_no_room(need, nodes, slots))
        raise InputError(fault)
    fits = slots // need.workers
    return min(fits, need.concurrent or fits)


def count_parameters(study: ResolvedStudy, manifest: Manifest) -> dict[str, int]:
    """Trainable parameters of every arm's regressor."""
    return {
        arm.name: sum(parameter.numel() for parameter in _regressor(arm, manifest).parameters()) for arm in study.arms
    }


def _no_room(need: Resources, nodes: Sequence[Node], slots: int) -> str:
    """Why not even one trial can be scheduled."""
    whole = Node(need.cpus * need.workers, need.gpus * need.workers)
    cluster = Node(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    if whole.cpus > cluster.cpus or whole.gpus > cluster.gpus:
        text = f"the cluster has {cluster.cpus:g} and {cluster.gpus:g}"
        return f"one trial needs {whole}, {text}"
    worker, hold = Node(need.cpus, need.gpus), f"hold {slots} of the {need.workers} of a trial"
    return f"a worker needs {worker} on one node; the nodes ({describe_nodes(nodes)}) {hold}"


def _faults_of_arm(study: ResolvedStudy, arm: Arm, manifest: Manifest) -> Iterator[Fault]:
    where, key, need = f"study {study.name!r}", f"arms.{arm.name}", study.resources
    for fits in (
        lambda: check_against(arm.config, manifest, where=where, key=key),
        lambda: check_labels(arm.config, manifest),
        lambda: check_machine(
            arm.config.recipe, device="cuda" if need.gpus else "cpu", workers=need.workers, where=where, key=key
        ),
        lambda: _regressor(arm, manifest),
    ):
        try:
            fits()
        except InputError as error:
            yield from (replace(fault, where=where, key=fault.key or f"{key}.{fault.where}") for fault in error.faults)
    asha, epochs = study.search.scheduler, arm.config.epochs_planned
    if arm.space and isinstance(asha, Asha | Median) and asha.grace_epochs > epochs:
        rule = f"must be at most the {epochs} epochs of a trial"
        yield Fault(where=where, key="search.scheduler.grace_epochs", rule=rule, got=asha.grace_epochs)


def _regressor(arm: Arm, manifest: Manifest) -> Regressor:
    """The arm's regressor in shapes alone: a study of many large ones is checked in seconds and in no memory."""
    with torch.device("meta"):
        model = build_regressor(
            arm.config.model,
            manifest.features,
            0,
            label_dim=len(manifest.label.axes),
            maps=manifest.label.dense is not None,
            smoothing=arm.config.reweighting.fds,
            num_bins=manifest.label.num_bins,
        )
    check_layers(arm.config.recipe, model)
    return model
