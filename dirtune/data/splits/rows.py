"""`Rows`: the rows of a data set before they are split, and how a random order is tied to their ids.

Every draw ranks the rows: the ids are sorted, then ranked by a permutation of (seed, purpose). What is drawn therefore
depends on the set of ids and the seed, never on the order in which the rows were read; the first `k` ranks of one
purpose are contained in the first `k + 1`, which makes subsets nested.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dirtune.errors import Fault, InputError
from dirtune.manifest import SPLITS, LabelSpec
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins

# The name of a row that no split holds
LEFT_OUT = "left_out"
TRAIN, VAL, TEST = SPLITS

Ids = NDArray[Any]
"""Unique texts; shape `(rows,)`, as objects or as numpy strings."""
SplitNames = NDArray[np.str_]
"""`train`, `val`, `test` or `left_out`, one per row."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """The rows of a data set, in any order; all arrays have one entry per row."""

    name: str
    """Of the data set, for messages."""
    label: LabelSpec
    ids: Ids
    labels: NDArray[np.float64]
    """In the label's unit."""
    groups: NDArray[Any] | None = None
    """Texts: what must not cross splits, such as the person."""
    published: NDArray[Any] | None = None
    """Split names of the raw files."""

    def __post_init__(self) -> None:
        lengths = {len(each) for each in (self.ids, self.labels, self.groups, self.published) if each is not None}
        if lengths in ({0}, set()) or len(lengths) > 1:
            raise ValueError(f"all columns must have one entry per row, got lengths {lengths}")
        if len(np.unique(self.ids)) < len(self.ids):
            rule = "every sample id must stand once; rows beyond the first of an id"
            repeated = len(self.ids) - len(np.unique(self.ids))
            raise InputError(Fault(where=self.name, rule=rule, got=repeated))

    @property
    def bins(self) -> NDArray[np.int64]:
        """The label bin of each row."""
        return label_bins(self.labels, self.label)

    def bins_of_width(self, width: float | None) -> NDArray[np.int64]:
        """The bin of each row if bins were this wide; none: the label bins.

        Raises:
            InputError: the label has several dimensions, whose bins are cells of a grid.
        """
        if width is None:
            return self.bins
        if len(self.label.axes) > 1:
            rule = "the cells of a label of several dimensions have no one width"
            raise InputError(Fault(where=self.name, key="bin_width", rule=rule, got=width))
        number = int(np.ceil(self.label.range / width - 1e-9))
        wider = {"bin_width": width, "num_bins": number}
        return label_bins(self.labels, self.label.model_copy(update=wider))


def seeded_ranks(ids: Ids, seed: int, *purpose: str) -> NDArray[np.int64]:
    """The rank of each row in a random order of all, 0 first; a permutation that goes with the ids, whatever their order."""
    ranks = np.empty(len(ids), dtype=np.int64)
    generator = np.random.default_rng(derive_seed(seed, "split", *purpose))
    ranks[np.argsort(ids)] = generator.permutation(len(ids))
    return ranks


def places_in_bins(bins: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each row among the rows of its bin, 0 for the smallest rank."""
    order = np.lexsort((ranks, bins))
    starts = np.searchsorted(bins[order], bins[order])
    places = np.empty(len(bins), dtype=np.int64)
    places[order] = np.arange(len(bins)) - starts
    return places
