"""Subset of a training set for studies of data efficiency: all arms train on the same rows; smaller subsets are nested.

The rows are those that `fraction` keeps at ingest with seed 0: a share of every label bin, and smaller subsets are
contained in larger ones. Only training uses the subset. Shot regions stay those of the whole training set, so that a
column of a table contains the same test samples at every fraction.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from dirtune.batch import Inputs
from dirtune.data.cache import ResidentData, Rows, Split
from dirtune.data.splits.thinning import select_stratified

_SEED = 0


@dataclass(frozen=True, kw_only=True)
class SubsetSplit(Split):
    """Selected rows of a split, renumbered in their order."""

    whole: Split
    selected: Rows

    @property
    def placement(self) -> str:
        return self.whole.placement

    def read(self, batches: Iterable[Rows]) -> Iterator[Inputs]:
        return self.whole.read(self.selected[rows] for rows in batches)


def count_rows(rows: int, fraction: float) -> int:
    """Return the number of rows of the subset of a training split: this share, rounded, at least one row."""
    return max(1, round(fraction * rows))


def select_training_subset(data: ResidentData, fraction: float) -> ResidentData:
    """Return the data set with this share of its training rows."""
    if fraction == 1.0:
        return data
    train = data.splits["train"]
    size = count_rows(len(train), fraction)
    ids, bins = np.asarray(train.sample_ids), train.label_bins.cpu().numpy()
    selected = torch.from_numpy(select_stratified(ids, bins, size, seed=_SEED)).nonzero()[:, 0]
    groups = None
    if train.groups is not None:
        # Row groups hold the numbers of rows in the whole split; the subset has its own.
        number = torch.full((len(train),), -1)
        number[selected] = torch.arange(len(selected))
        renumbered = (number[group] for group in train.groups)
        groups = tuple(group[group >= 0] for group in renumbered if (group >= 0).any())
    on_device = selected.to(train.labels.device)
    subset = SubsetSplit(
        whole=train,
        selected=selected,
        sample_ids=tuple(train.sample_ids[row] for row in selected.tolist()),
        labels=train.labels[on_device],
        label_bins=train.label_bins[on_device],
        exact_labels=train.exact_labels[selected.numpy()],
        transform=train.transform,
        groups=groups,
    )
    return replace(data, splits={**data.splits, "train": subset})
