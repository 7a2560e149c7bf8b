"""What the tests of the loop and of trials share: how a run is made, and how two are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.kills import VARYING
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, ResidentSplit
from dirtune.io.storage import Storage
from dirtune.results.records.schema import TABLES
from dirtune.results.records.store import read_table
from dirtune.training.loop import run_epochs
from dirtune.training.state import Training, begin_training
from dirtune.training.trial import TrialJob, TrialRun

Configure = Callable[..., TrialConfig]
Weights = dict[str, Tensor]
Tables = dict[str, list[dict[str, Any]]]

TERMS = {"conr": {"beta": 0.5, "omega": 2.0}, "accon": {"gamma": 0.3}}
EXPLODING = {"optimizer": "sgd", "epochs": 4, "schedule": {"name": "steps", "milestones": [2], "factor_per_step": 1e30}}


def trained(config: TrialConfig, data: ResidentData) -> Training:
    training = begin_training(config, data)
    assert sum(1 for _ in run_epochs(training)) == config.epochs_planned
    return training


def weights_of(training: Training) -> Weights:
    return {name: value.clone() for name, value in training.model.state_dict().items()}


def with_inputs(data: ResidentData, split: str, change: Callable[[Tensor], Tensor]) -> ResidentData:
    """The data with the vectors of one split changed."""
    rows = data.splits[split]
    changed = {**rows.inputs, "vector": change(rows.inputs["vector"].clone())}
    return replace(data, splits={**data.splits, split: replace(rows, inputs=changed)})


def without_images(data: ResidentData) -> ResidentData:
    """The data with vectors alone."""
    splits = {
        name: replace(split, inputs={"vector": split.inputs["vector"]})
        for name, split in data.splits.items()
        if isinstance(split, ResidentSplit)
    }
    inputs = {"vector": data.manifest.inputs["vector"]}
    return replace(data, manifest=data.manifest.model_copy(update={"inputs": inputs}), splits=splits)


def in_float64(data: ResidentData) -> ResidentData:
    """The data with vectors in float64, for a model in float64."""
    for split in data.splits:
        data = with_inputs(data, split, Tensor.double)
    return data


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def without_shares(values: dict[str, float]) -> dict[str, float]:
    """An epoch without the gradient shares, which neither a group nor a compiled trial measures."""
    return {name: value for name, value in values.items() if not name.startswith("gradient/")}


def job_of(config: TrialConfig, data: ResidentData) -> TrialJob:
    return TrialJob(
        study="study",
        arm="conr",
        cell='{"a":1}',
        replicate=2,
        config=config,
        trial_id=config.compute_trial_id(data.manifest.fingerprint),
        code_version="1+abc",
    )


def finish(trial: TrialRun) -> TrialRun:
    while trial.status is None:
        trial.step()
    return trial


def tables(study: Storage) -> Tables:
    return {name: read_table(study, name).to_pylist() for name in TABLES}


def lasting(found: Tables) -> Tables:
    """The tables without what differs from run to run."""
    trials = [{k: v for k, v in row.items() if k not in VARYING} for row in found["trials"]]
    return {**found, "trials": trials}


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
