"""In-memory data set of a worker: sample order per epoch, and batches.

Ids, labels and bins are always in memory; the inputs are tensors on the device (`ResidentSplit`) or are streamed batch by
batch (`dirtune.data.streaming`), behind one interface: `Split.read`. While a set is in memory, decoded or not, an epoch's
order is one seeded permutation, and every rank takes its slice of each global batch, so that 1, 2 and 4 workers see the
same global batches. A set of more than a few row groups that is read from disk in every epoch has an order that reads
each of them once (`make_windowed_order`); ranks still get equal, disjoint shares, and no two ranks read the same groups.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune import batch, randomness, recipe
from dirtune.data.views import SampleTransform, Transform, make_views
from dirtune.label_transform import transform_labels
from dirtune.manifest import LabelTransform, Manifest
from dirtune.reweighting.density import shot_regions

Rows = Int[Tensor, " batch"]
"""Positions in a split, on the CPU."""

WINDOW_GROUPS = 8
"""Row groups that are shuffled together in the order of a set on disk: with 16 MB each, 128 MB as stored."""


@dataclass(frozen=True, kw_only=True)
class Split(ABC):
    """Split with ids, labels and bins in memory; rows are sorted by sample id."""

    sample_ids: tuple[str, ...]
    labels: Float[Tensor, "rows *label"]
    label_bins: Int[Tensor, " rows"]
    exact_labels: np.typing.NDArray[np.float64]
    """As stored; `labels` is rounded to float32 for training."""
    groups: tuple[Rows, ...] | None = None
    """The rows of each row group if the set is on disk, else None."""
    sample_groups: np.typing.NDArray[np.object_] | None = None
    """Group of each row (such as the person), if the data set has groups; shape `(rows,)`."""
    transform: Transform = field(default_factory=SampleTransform)
    """From stored inputs to views. With per-pixel labels a view has the labels, and `labels` are the samples' means."""

    def __len__(self) -> int:
        return len(self.sample_ids)

    @property
    @abstractmethod
    def placement(self) -> str:
        """Place of the inputs: on the "device" (decoded), in "memory" of the host, or on "disk"."""

    @abstractmethod
    def read(self, batches: Iterable[Rows]) -> Iterator[batch.Inputs]:
        """Yield the inputs of each batch of rows, in that order, decoded, on the device; prefetched if they are streamed."""

    @property
    def reading_order(self) -> Int[Tensor, " rows"]:
        """All rows in the order of fastest reading, for an evaluation; shape `(rows,)`."""
        return torch.arange(len(self)) if self.groups is None else torch.cat(self.groups)

    @property
    def is_windowed(self) -> bool:
        """True if the set is read from disk in every epoch, in windows of its row groups."""
        return self.groups is not None and len(self.groups) > WINDOW_GROUPS

    def make_order(self, seed: int, epoch: int, *, batch_size: int, world: int) -> Int[Tensor, " rows"]:
        """Return the order of the samples in an epoch; it depends on (seed, epoch) alone if one window holds the set."""
        if self.groups is None or not self.is_windowed:
            return make_epoch_order(seed, epoch, len(self))
        return make_windowed_order(self.groups, seed, epoch, batch_size=batch_size, world=world)


@dataclass(frozen=True, kw_only=True)
class ResidentSplit(Split):
    """Split whose inputs are tensors on the device."""

    inputs: batch.Inputs

    @property
    def placement(self) -> str:
        return "device"

    def read(self, batches: Iterable[Rows]) -> Iterator[batch.Inputs]:
        batches = list(batches)
        if not batches:
            return
        # All at once: a copy of rows makes the host wait for a GPU.
        on_device = torch.cat(batches).to(self.labels.device)
        for local in on_device.split([len(rows) for rows in batches]):
            # Indexing with brackets takes ten times as long on a CPU.
            yield {name: column.index_select(0, local) for name, column in self.inputs.items()}


@dataclass
class DecodeCount:
    """Number of images that a worker decoded."""

    images: int = 0


@dataclass(frozen=True, kw_only=True)
class ResidentData:
    """Data set of a worker, kept for all its trials."""

    manifest: Manifest
    device: torch.device
    splits: dict[str, Split]
    decoded: DecodeCount = field(default_factory=DecodeCount)

    def get_regions(self, split: str, shot_rule: str) -> np.typing.NDArray[np.str_]:
        """Return the shot region of every sample of a split, by a rule of the manifest; shape `(rows,)`."""
        rule = self.manifest.shot_rules[shot_rule]
        per_bin = shot_regions(np.asarray(self.manifest.train_counts), rule)
        return np.asarray(per_bin[self.splits[split].label_bins.cpu().numpy()])


def transform_training_labels(data: ResidentData, transform: LabelTransform) -> ResidentData:
    """Return a data set whose training labels are in the unit of training; the exact labels, and inputs, are the same."""
    if transform == "none":
        return data
    train = data.splits["train"]
    labels = torch.from_numpy(transform_labels(train.exact_labels, transform)).to(train.labels)
    return replace(data, splits={**data.splits, "train": replace(train, labels=labels)})


def select_rows(split: Split, rows: Rows) -> ResidentSplit:
    """Return the selected rows as a split on the same device, sorted by sample id."""
    # Rows of a split are sorted by sample id.
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


def make_epoch_order(seed: int, epoch: int, rows: int) -> Int[Tensor, " rows"]:
    """Return the order of the samples in one epoch: a permutation that depends on (seed, epoch) alone."""
    return torch.randperm(rows, generator=_make_order_generator(seed, epoch))


def make_windowed_order(
    groups: Sequence[Rows], seed: int, epoch: int, *, batch_size: int, world: int
) -> Int[Tensor, " rows"]:
    """Return a permutation that needs few row groups at a time: shuffled groups, and rows shuffled within windows of them.

    Each of `world` ranks shuffles and reads its own section of the groups, from which its slices of the global batches are
    taken; the order therefore depends on the number of ranks. Trade-off: two samples of one group are never further apart
    than a window, so a set that was written sorted by label is shuffled less than by a full permutation.

    Args:
        groups: the rows of each row group.
        seed: of the trial.
        epoch: counted from 1.
        batch_size: samples in a global batch.
        world: number of ranks.
    """
    generator = _make_order_generator(seed, epoch)
    shuffled = torch.cat([groups[group] for group in torch.randperm(len(groups), generator=generator).tolist()])
    window = WINDOW_GROUPS * max(len(rows) for rows in groups)
    # Sizes of the ranks' slices of every global batch, by batch.
    sizes = [
        [stop - start for start, stop in (get_rank_share(len(rows), rank, world) for rank in range(world))]
        for rows in shuffled.split(batch_size)
    ]
    rank_sizes = list(zip(*sizes, strict=True))
    by_rank = []
    for section, steps in zip(shuffled.split([sum(steps) for steps in rank_sizes]), rank_sizes, strict=True):
        windows = [part[torch.randperm(len(part), generator=generator)] for part in section.split(window)]
        by_rank.append(torch.cat(windows).split(list(steps)))
    # Each global batch holds the ranks' parts one after the other, as `get_rank_share` slices it.
    return torch.cat([part for step in zip(*by_rank, strict=True) for part in step])


def _make_order_generator(seed: int, epoch: int) -> torch.Generator:
    return torch.Generator().manual_seed(randomness.derive_seed(seed, "order", epoch))


def update_digest(previous: str, order: Int[Tensor, " rows"]) -> str:
    """Return the digest of all sample orders so far, given that of the previous epochs."""
    return hashlib.sha256(previous.encode() + order.numpy().tobytes()).hexdigest()[:16]


def make_train_batches(
    split: Split,
    weights: Float[Tensor, " rows"],
    order: Int[Tensor, " rows"],
    *,
    batch_size: int,
    views: recipe.Views,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    accumulation: int = 1,
    steps: range | None = None,
) -> Iterator[batch.Batch]:
    """Yield one rank's part of the global batches of a pass over the rows; the last batch may be smaller.

    Args:
        split: of the samples.
        weights: re-weighting of every row of the split.
        order: the pass's order, of `Split.make_order`, without rows that no batch has.
        batch_size: samples in a global batch.
        views: number of views, and their augmentation.
        seed: of the trial.
        epoch: number of the pass, from 1.
        rank: of this process.
        world: number of ranks.
        accumulation: micro-batches of a global batch, each of them shared by the ranks. A sample has the same views as in
            the whole batch. The last batch may have fewer.
        steps: consecutive batches to yield, from 0; None means all.
    """
    size = batch_size // accumulation
    parts = slice_order(len(order), size, rank=rank, world=world)
    begin, end = (0, len(parts)) if steps is None else (steps.start * accumulation, steps.stop * accumulation)
    chosen = parts[begin:end]
    if not chosen:
        return
    of_rank = torch.cat([order[part] for part in chosen])
    sizes = [part.stop - part.start for part in chosen]
    # Once for all steps, as in `ResidentSplit.read`
    on_device = of_rank.to(split.labels.device)
    columns = [column.index_select(0, on_device) for column in (split.labels, split.label_bins, weights)]
    by_batch = [column.split(sizes) for column in (*columns, on_device)]
    for at, (inputs, labels, bins, row_weights, rows) in enumerate(
        zip(split.read(of_rank.split(sizes)), *by_batch, strict=True), start=begin
    ):
        step, piece = divmod(at, accumulation)
        first = step * batch_size
        total = min(batch_size, len(order) - first)
        # The views are drawn for the whole global batch, so that ranks and micro-batches have the same ones.
        yield batch.Batch(
            views=make_views(
                inputs,
                split.transform,
                count=views.count,
                augmentation=views.augmentation,
                stream=(seed, epoch, step),
                total=total,
                rows=slice(parts[at].start - first, parts[at].stop - first),
            ),
            labels=labels,
            label_bins=bins,
            weights=row_weights,
            rows=rows,
            share=min(size, total - piece * size) / total,
            ends_step=(piece + 1) * size >= total,
            counts=count_by_rank(min(size, total - piece * size), world),
            draws=(seed, "draws", epoch, at),
        )


def slice_order(rows: int, size: int, *, rank: int, world: int) -> list[slice]:
    """Return a rank's slices of an order of rows, one for each micro-batch of this size."""
    shares = [(start, get_rank_share(min(size, rows - start), rank, world)) for start in range(0, rows, size)]
    return [slice(start + first, start + stop) for start, (first, stop) in shares]


def count_by_rank(total: int, world: int) -> tuple[int, ...]:
    """Return the number of rows in each rank's share of `total` rows."""
    if world == 1:
        return (total,)
    shares = [get_rank_share(total, rank, world) for rank in range(world)]
    return tuple(stop - start for start, stop in shares)


def get_rank_share(total: int, rank: int, world: int) -> tuple[int, int]:
    """Return start and stop of a rank's contiguous share of `total` rows; shares differ by at most one row."""
    return total * rank // world, total * (rank + 1) // world
