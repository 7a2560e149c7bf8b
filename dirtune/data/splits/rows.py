"""`Rows`: the rows of a data set before the split, and random orders that are tied to their ids.

Every draw ranks the rows: the ids are sorted, then ranked by a permutation of (seed, purpose). A draw therefore depends on
the set of ids and the seed, never on the order in which the rows were read. The first `k` ranks of one purpose are
contained in the first `k + 1`, which makes subsets nested.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune import manifest, randomness
from dirtune.errors import Fault, InputError
from dirtune.label_transform import compute_binned_range
from dirtune.reweighting.density import label_bins

LEFT_OUT = "left_out"
"""Split name of a row that is in no split."""
TRAIN, VAL, TEST = manifest.SPLITS

Ids = NDArray[Any]
"""Unique strings; shape `(rows,)`, as objects or as numpy strings, which take less memory."""
SplitNames = NDArray[np.str_]
"""`train`, `val`, `test` or `left_out`, one per row."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a data set, in any order; all arrays have one entry per row."""

    name: str
    """The data set, for messages."""
    label: manifest.LabelSpec
    ids: Ids
    labels: NDArray[np.float64]
    """In the label's unit."""
    groups: NDArray[Any] | None = None
    """Strings: the unit that must not cross splits, such as the person."""
    published: NDArray[Any] | None = None
    """Split names of the raw files."""

    def __post_init__(self) -> None:
        lengths = {len(each) for each in (self.ids, self.labels, self.groups, self.published) if each is not None}
        if lengths in ({0}, set()) or len(lengths) > 1:
            raise ValueError(f"all columns must have one entry per row, got lengths {lengths}")
        if repeated := count_repeated(self.ids):
            rule = "sample ids must be unique; rows that repeat an id"
            raise InputError(Fault(where=self.name, rule=rule, got=repeated))

    @property
    def bins(self) -> NDArray[np.int64]:
        """The label bin of each row."""
        return label_bins(self.labels, self.label)

    def compute_bins(self, width: float | None) -> NDArray[np.int64]:
        """Return the bin of each row for bins of this width; the label bins if the width is None.

        Raises:
            InputError: the label has several dimensions, whose bins are cells of a grid.
        """
        if width is None:
            return self.bins
        if len(self.label.axes) > 1:
            rule = "the cells of a label of several dimensions have no single width"
            raise InputError(Fault(where=self.name, key="bin_width", rule=rule, got=width))
        # The subtrahend absorbs the rounding error of a range that is a multiple of the width.
        number = int(np.ceil(compute_binned_range(self.label) / width - 1e-9))
        return label_bins(self.labels, self.label.model_copy(update={"bin_width": width, "num_bins": number}))


def count_repeated(texts: NDArray[Any]) -> int:
    """Return the number of texts that repeat another one."""
    # Numbers of rows are in order. A set of millions of texts takes hundreds of bytes for each of them.
    if bool((texts[1:] > texts[:-1]).all()):
        return 0
    return len(texts) - int(pc.count_distinct(pa.array(texts, pa.string())).as_py())


def rank_by_seed(ids: Ids, seed: int, *purpose: str) -> NDArray[np.int64]:
    """Return the rank of each row in a random order of all rows, 0 first; the rank depends on the id, not on the position."""
    ranks = np.empty(len(ids), dtype=np.int64)
    generator = np.random.default_rng(randomness.derive_seed(seed, "split", *purpose))
    # Sorted ids: the permutation belongs to the set of ids, not to the order in which they were read.
    ranks[np.argsort(ids)] = generator.permutation(len(ids))
    return ranks


def rank_within_bins(bins: NDArray[np.int64], ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rank of each row among the rows of its bin, 0 for the smallest of `ranks`."""
    order = np.lexsort((ranks, bins))
    starts = np.searchsorted(bins[order], bins[order])
    within = np.empty(len(bins), dtype=np.int64)
    within[order] = np.arange(len(bins)) - starts
    return within
