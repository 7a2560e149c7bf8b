"""A data set in the hands of a worker, the order of its samples in an epoch, and the batches cut from it.

Ids, labels and bins are always in memory; the inputs are tensors on the device (`ResidentSplit`) or come from elsewhere
batch by batch (`dirtune.data.streaming`), behind one interface: `Split.read`. While a set is in memory, decoded or not, an
epoch's order is one seeded permutation, and every rank takes its slice of each global batch, so that 1, 2 and 4 workers
see the same global batches. A set of more than a few row groups that is read from disk in every epoch has an order that
reads each of them once (`windowed_order`); ranks still get equal, disjoint shares, and no rank reads what another one
needs.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dirtune.batch import Batch, Inputs
from dirtune.config import Views
from dirtune.data.views import SampleTransform, Transform, make_views
from dirtune.manifest import Manifest
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import shot_regions

Rows = Int[Tensor, " batch"]
"""Positions in a split, on the CPU."""

WINDOW_GROUPS = 8
"""Row groups that are mixed at a time in the order of a set on disk: with 16 MB each, 128 MB as stored."""


@dataclass(frozen=True, kw_only=True)
class Split(ABC):
    """What is known of every row of a split; rows are sorted by sample id."""

    sample_ids: tuple[str, ...]
    labels: Float[Tensor, "rows *label"]
    label_bins: Int[Tensor, " rows"]
    exact_labels: NDArray[np.float64]
    """As stored; `labels` is rounded to float32 for training."""
    groups: tuple[Rows, ...] | None = None
    """Of a set on disk: the rows of each row group."""
    transform: Transform = SampleTransform()
    """From stored inputs to views. With per-pixel labels a view has the labels, and `labels` are the samples' means."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    @abstractmethod
    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        """The inputs of each batch of rows, in that order, decoded, on the device; ahead of time where that helps."""

    @property
    def reading_order(self) -> Int[Tensor, " rows"]:
        """All rows, in the order in which they are best read once; for an evaluation."""
        return torch.arange(len(self)) if self.groups is None else torch.cat(self.groups)

    def order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> Int[Tensor, " rows"]:
        """The order of the samples in an epoch; it depends on (seed, epoch) alone if one window holds the whole set."""
        if self.groups is None or len(self.groups) <= WINDOW_GROUPS:
            return epoch_order(seed, epoch, len(self))
        return windowed_order(self.groups, seed, epoch, batch_size=batch_size, world=world)


@dataclass(frozen=True, kw_only=True)
class ResidentSplit(Split):
    """A split whose inputs are tensors on the device."""

    inputs: Inputs

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        for rows in batches:
            local = rows.to(self.labels.device)
            # Indexing with brackets takes ten times as long on a CPU.
            yield {name: column.index_select(0, local) for name, column in self.inputs.items()}


@dataclass
class DecodeCount:
    """How many images this worker has decoded."""

    images: int = 0


@dataclass(frozen=True, kw_only=True)
class ResidentData:
    """A whole data set as a worker keeps it for all its trials."""

    manifest: Manifest
    device: torch.device
    splits: dict[str, Split]
    decoded: DecodeCount = field(default_factory=DecodeCount)

    def regions(self, split: str, shot_rule: str) -> NDArray[np.str_]:
        """The shot region of every sample of a split, by a rule of the manifest; shape `(rows,)`."""
        rule = self.manifest.shot_rules[shot_rule]
        per_bin = shot_regions(np.asarray(self.manifest.train_counts), rule)
        return np.asarray(per_bin[self.splits[split].label_bins.cpu().numpy()])


def cut_out(split: Split, rows: Rows) -> ResidentSplit:
    """Some rows of a split as a split of its own, on its device; sorted as the split is."""
    rows, _ = rows.sort()
    local = rows.to(split.labels.device)
    (inputs,) = split.read([rows])
    return ResidentSplit(
        sample_ids=tuple(split.sample_ids[row] for row in rows.tolist()),
        inputs=inputs,
        labels=split.labels[local],
        label_bins=split.label_bins[local],
        exact_labels=split.exact_labels[rows.numpy()],
        transform=split.transform,
    )


def epoch_order(seed: int, epoch: int, rows: int) -> Int[Tensor, " rows"]:
    """The order of the samples in one epoch: a permutation that depends on (seed, epoch) alone."""
    return torch.randperm(rows, generator=_order_generator(seed, epoch))


def windowed_order(
    groups: Sequence[Rows], seed: int, epoch: int, *, batch_size: int, world: int
) -> Int[Tensor, " rows"]:
    """A permutation that needs few row groups at a time: groups in random order, rows mixed inside of a window of them.

    Each of `world` ranks mixes and reads a stretch of its own of the groups, so that its slices of the global batches
    come from there; the order therefore depends on the number of ranks. Trade-off: two samples of one group are never
    further apart than a window, so a set that was written sorted by label is mixed less than by a permutation.
    """
    generator = _order_generator(seed, epoch)
    drawn = torch.randperm(len(groups), generator=generator).tolist()
    one_by_one = torch.cat([groups[group] for group in drawn])
    window = WINDOW_GROUPS * max(len(rows) for rows in groups)
    sizes = [
        [stop - start for start, stop in (share(len(rows), rank, world) for rank in range(world))]
        for rows in one_by_one.split(batch_size)
    ]
    stretches = one_by_one.split([sum(of_rank) for of_rank in zip(*sizes, strict=True)])
    mixed = [_mixed(stretch, window, generator) for stretch in stretches]
    # Rank by rank inside of each global batch, as `share` cuts it.
    by_rank = [rows.split(list(of_rank)) for rows, of_rank in zip(mixed, zip(*sizes, strict=True), strict=True)]
    return torch.cat([part for step in zip(*by_rank, strict=True) for part in step])


def _mixed(rows: Rows, window: int, generator: torch.Generator) -> Rows:
    parts = [part[torch.randperm(len(part), generator=generator)] for part in rows.split(window)]
    return torch.cat(parts)


def _order_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "order", epoch))


def extend_digest(previous: str, order: Int[Tensor, " rows"]) -> str:
    """The digest of all sample orders so far, given that of the epochs before."""
    return hashlib.sha256(previous.encode() + order.numpy().tobytes()).hexdigest()[:16]


def train_batches(
    split: Split,
    weights: Float[Tensor, " rows"],
    order: Int[Tensor, " rows"],
    *,
    batch_size: int,
    views: Views,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
) -> Iterator[Batch]:
    """One rank's part of every global batch of an epoch; the last batch may be smaller.

    Args:
        weights: re-weighting of every row of the split.
        order: the epoch's order, of `Split.order`.
        batch_size: samples in a global batch.
        accumulation: micro-batches that a global batch is cut into, each of them shared by the ranks. A sample has the
            same views as in the whole batch. The last batch may have fewer.
    """
    size = batch_size // accumulation
    parts = [
        slice(start + own[0], start + own[1])
        for start, rows in zip(range(0, len(order), size), order.split(size), strict=True)
        for own in [share(len(rows), rank, world)]
    ]
    local = [order[part] for part in parts]
    for at, inputs in enumerate(split.read(local)):
        step, piece = divmod(at, accumulation)
        first, total = step * batch_size, len(order[step * batch_size :][:batch_size])
        rows = local[at].to(split.labels.device)
        yield Batch(
            views=make_views(
                inputs,
                split.transform,
                count=views.count,
                augmentation=views.augmentation,
                stream=(seed, epoch, step),
                total=total,
                rows=slice(parts[at].start - first, parts[at].stop - first),
            ),
            labels=split.labels[rows],
            label_bins=split.label_bins[rows],
            weights=weights[rows],
            rows=rows,
            share=min(size, total - piece * size) / total,
            ends_step=(piece + 1) * size >= total,
        )


def share(total: int, rank: int, world: int) -> tuple[int, int]:
    """Start and stop of a rank's contiguous share; shares differ by at most one."""
    return total * rank // world, total * (rank + 1) // world
