"""Decoded data held as tensors on a worker's device, and the batches cut from them.

A data set is decoded once; a resident worker keeps its tensors for all its trials. The order of an epoch is one seeded
permutation of the samples, and every rank takes its slice of each global batch, so that 1, 2 and 4 workers see the same
global batches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dirtune.batch import Batch, Inputs
from dirtune.config import Views
from dirtune.data.views import make_views
from dirtune.manifest import Manifest
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins, shot_regions


@dataclass(frozen=True, kw_only=True)
class ResidentSplit:
    """One split as tensors, rows sorted by sample id."""

    sample_ids: tuple[str, ...]
    inputs: Inputs
    labels: Float[Tensor, " rows"]
    label_bins: Int[Tensor, " rows"]
    exact_labels: NDArray[np.float64]  # as stored; `labels` is rounded to float32 for training

    def __len__(self) -> int:
        return len(self.sample_ids)


@dataclass(frozen=True, kw_only=True)
class ResidentData:
    """A whole data set on one device."""

    manifest: Manifest
    device: torch.device
    splits: dict[str, ResidentSplit]

    def regions(self, split: str, shot_rule: str) -> NDArray[np.str_]:
        """The shot region of every sample of a split, by a rule of the manifest; shape `(rows,)`."""
        rule = self.manifest.shot_rules[shot_rule]
        per_bin = shot_regions(np.asarray(self.manifest.train_counts), rule)
        return np.asarray(per_bin[self.splits[split].label_bins.cpu().numpy()])


def resident(
    manifest: Manifest,
    arrays: Mapping[str, Mapping[str, NDArray[np.generic]]],
    device: torch.device,
) -> ResidentData:
    """Place decoded arrays (by split, then by column) on a device."""
    splits = {name: _resident_split(manifest, columns, device) for name, columns in arrays.items()}
    return ResidentData(manifest=manifest, device=device, splits=splits)


def _resident_split(
    manifest: Manifest, columns: Mapping[str, NDArray[np.generic]], device: torch.device
) -> ResidentSplit:
    order = np.argsort(columns["sample_id"])
    labels = columns["label"][order].astype(np.float64)
    bins = label_bins(labels, manifest.label)
    return ResidentSplit(
        sample_ids=tuple(columns["sample_id"][order].tolist()),
        inputs={
            name: torch.from_numpy(columns[name][order]).to(device) for name in manifest.inputs
        },
        labels=torch.from_numpy(labels).to(device, torch.float32),
        label_bins=torch.from_numpy(bins).to(device),
        exact_labels=labels,
    )


def epoch_order(seed: int, epoch: int, rows: int) -> Int[Tensor, " rows"]:
    """The order of the samples in one epoch: a permutation that depends on (seed, epoch) alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(rows, generator=generator)


def extend_digest(previous: str, order: Int[Tensor, " rows"]) -> str:
    """The digest of all sample orders so far, given that of the epochs before."""
    return hashlib.sha256(previous.encode() + order.numpy().tobytes()).hexdigest()[:16]


def train_batches(
    split: ResidentSplit,
    weights: Float[Tensor, " rows"],
    order: Int[Tensor, " rows"],
    *,
    batch_size: int,
    views: Views,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """One rank's part of every global batch of an epoch; the last batch may be smaller.

    Args:
        weights: re-weighting of every row of the split.
        order: the epoch's permutation.
        batch_size: samples in a global batch.
    """
    device = split.labels.device
    for step, rows in enumerate(order.split(batch_size)):
        start, stop = share(len(rows), rank, world)
        local = rows[start:stop].to(device)
        yield Batch(
            views=make_views(
                {name: column[local] for name, column in split.inputs.items()},
                count=views.count, augmentation=views.augmentation,
                stream=(seed, epoch, step), total=len(rows), rows=slice(start, stop),
            ),
            labels=split.labels[local], label_bins=split.label_bins[local],
            weights=weights[local], rows=local,
        )  # fmt: skip


def share(total: int, rank: int, world: int) -> tuple[int, int]:
    """Start and stop of a rank's contiguous share; shares differ by at most one."""
    return total * rank // world, total * (rank + 1) // world
