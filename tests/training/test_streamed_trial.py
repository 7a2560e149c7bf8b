"""Run with `pytest tests/training/test_streamed_trial.py`: trials on sets that are not on the device."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dirtune.data.blocks import read_without_ray
from dirtune.data.cache import ResidentData
from dirtune.data.memory_budget import MemoryBudget
from dirtune.data.store import read_manifest
from dirtune.data.streaming import StreamedSplit
from dirtune.io.storage import Storage
from dirtune.training.evaluation import predict
from tests.training.runs import TERMS, Configure, same, trained, weights_of

SETTINGS = {
    "terms": TERMS,
    "model": {"encoder": {"name": "cnn", "channels": 2}, "projection_dim": 4},
    "recipe": {"batch_size": 67, "views": {"count": 2, "augmentation": "light"}},
    "reweighting": {"fds": {"size": 3}},
}


def streamed(data_root: Path, host_bytes: int) -> ResidentData:
    storage = Storage.open(data_root)
    budget = MemoryBudget(device_bytes=0, host_bytes=host_bytes, threads=2)
    data = read_without_ray(storage, read_manifest(storage, "toy"), torch.device("cpu"), budget)
    assert all(isinstance(split, StreamedSplit) for split in data.splits.values())
    return data


@pytest.mark.parametrize("host_bytes", [10**9, 0], ids=["in memory", "on disk"])
def test_a_trial_on_a_set_that_is_not_on_the_device_is_bitwise_the_same(
    configuration: Configure, toy: ResidentData, data_root: Path, host_bytes: int
) -> None:
    # The toy's splits have one row group each, so that even from disk their order is one permutation.
    config = configuration(**SETTINGS)
    resident = trained(config, toy)
    other = trained(config, streamed(data_root, host_bytes))
    assert other.data.splits["train"].placement == ("memory" if host_bytes else "disk")
    assert other.history == resident.history
    assert other.order_digest == resident.order_digest
    assert same(weights_of(other), weights_of(resident))
    assert np.array_equal(predict(other, "test"), predict(resident, "test"))


@pytest.mark.parametrize("host_bytes", [10**9, 0], ids=["in memory", "on disk"])
def test_a_share_of_a_set_that_is_not_on_the_device_is_the_same_share(
    configuration: Configure, toy: ResidentData, data_root: Path, host_bytes: int
) -> None:
    config = configuration(**SETTINGS, data={"fraction": 0.4})
    resident = trained(config, toy)
    other = trained(config, streamed(data_root, host_bytes))
    assert other.data.splits["train"].placement == ("memory" if host_bytes else "disk")
    assert other.data.splits["train"].sample_ids == resident.data.splits["train"].sample_ids
    assert other.order_digest == resident.order_digest
    assert same(weights_of(other), weights_of(resident))
