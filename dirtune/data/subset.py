"""A part of a training set, for studies of data efficiency: every arm trains on the same rows, a smaller share on some of them.

The rows are those that `fraction` keeps at ingest with seed 0: every label bin gives its share, and the smaller share is
part of the larger one. Only training sees the part. Shot regions stay those of the whole training set, so that a column
of a table holds the same test samples at every share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.cache import ResidentData, Rows, Split
from dirtune.data.splits.thinning import select_stratified

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Part(Split):
    """Some rows of a split, numbered anew in their order."""

    whole: Split
    kept: Rows

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        return self.whole.read(self.kept[rows] for rows in batches)


def limited(data: ResidentData, fraction: float) -> ResidentData:
    """The data set with that share of its training rows, rounded, at least one."""
    if fraction == 1.0:
        return data
    train = data.splits["train"]
    bins = train.label_bins.cpu().numpy()
    size = max(1, round(fraction * len(train)))
    kept = select_stratified(np.asarray(train.sample_ids), bins, size, seed=_SEED)
    part = _part(train, torch.from_numpy(kept).nonzero()[:, 0])
    return replace(data, splits={**data.splits, "train": part})


def _part(whole: Split, kept: Rows) -> Part:
    on_device = kept.to(whole.labels.device)
    return Part(
        whole=whole,
        kept=kept,
        sample_ids=tuple(whole.sample_ids[row] for row in kept.tolist()),
        labels=whole.labels[on_device],
        label_bins=whole.label_bins[on_device],
        exact_labels=whole.exact_labels[kept.numpy()],
        transform=whole.transform,
        groups=None if whole.groups is None else _groups_of(whole.groups, kept, len(whole)),
    )


def _groups_of(groups: tuple[Rows, ...], kept: Rows, rows: int) -> tuple[Int[Tensor, " rows"], ...]:
    """The row groups that hold a kept row, with the part's numbers of these rows."""
    number = torch.full((rows,), -1)
    number[kept] = torch.arange(len(kept))
    parts = (number[group] for group in groups)
    found = (part[part >= 0] for part in parts)
    return tuple(part for part in found if len(part))
