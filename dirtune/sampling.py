"""Sampling of training rows: the order of a pass by label bins, in place of a plain permutation.

An order has as many rows as the split. It is drawn for all ranks together from a stream of (seed, pass), so that 1, 2 and 4
ranks see the same global batches and a resumed run needs no state. To add one: write its class, add its line here; from
outside of the package, see `dirtune.plugins`.

Sources: inverse: class-balanced and square-root sampling of Kang et al., "Decoupling Representation and Classifier", ICLR 2020,
with label bins as classes. stratified: CISIR (arXiv 2509.16339) for labels with a heavy tail. Departure: CISIR cuts the sorted
labels into strata; here strata are the label bins, whose samples are spread evenly over the pass.
"""

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dirtune.frozen import Frozen
from dirtune.part_errors import make_part_error, name_part
from dirtune.registry import Registry
from dirtune.signatures import describe_value

Rows = NDArray[np.int64]
"""Positions in the training split."""


class Sampling(Protocol):
    """Order of the training rows in a pass."""

    @property
    def name(self) -> str: ...

    def make_order(self, bins: NDArray[np.int64], generator: np.random.Generator) -> Rows:
        """Return as many rows as there are bins, which are those of the training labels."""
        ...


class Inverse(Frozen):
    """Draw rows with replacement, those of rare label bins more often."""

    name: Literal["inverse"] = "inverse"
    power: float = Field(default=1.0, ge=0)
    """A row is drawn with a probability proportional to `count ** -power` of its label bin. 1: all bins that have rows are
    equally frequent; 0.5: as often as the roots of their counts; 0: all rows alike."""

    def make_order(self, bins: NDArray[np.int64], generator: np.random.Generator) -> Rows:
        """Return as many rows as there are bins."""
        cumulative = np.cumsum(np.bincount(bins)[bins] ** -self.power)
        drawn = np.searchsorted(cumulative, generator.random(len(bins)) * cumulative[-1], side="right")
        # Rounding may reach past the last row.
        return np.asarray(np.minimum(drawn, len(bins) - 1), dtype=np.int64)


class Stratified(Frozen):
    """Order every row once so that each batch has the label bins in the proportions of the whole split, up to rounding."""

    name: Literal["stratified"] = "stratified"

    def make_order(self, bins: NDArray[np.int64], generator: np.random.Generator) -> Rows:
        """Return a permutation of the rows."""
        shuffled = generator.permutation(len(bins))
        by_bin = shuffled[np.argsort(bins[shuffled], kind="stable")]
        counts = np.bincount(bins)
        in_bin = np.arange(len(bins)) - np.repeat(np.cumsum(counts) - counts, counts)
        # The rows of a bin are spread over the pass at equal distances, from a start of their own.
        positions = (in_bin + np.repeat(generator.random(len(counts)), counts)) / np.repeat(counts, counts)
        return by_bin[np.argsort(positions, kind="stable")]


def draw_order(sampling: Sampling, bins: NDArray[np.int64], generator: np.random.Generator) -> Rows:
    """Return the order of a sampling.

    Raises:
        InputError: the sampling of a plug-in raises, or returns no order of the rows.
    """
    with name_part("sampling", sampling.name, sampling):
        order = sampling.make_order(bins, generator)
    got = ""
    if not isinstance(order, np.ndarray):
        got = describe_value(order)
    elif order.shape != bins.shape:
        got = f"shape {order.shape}"
    elif not np.issubdtype(order.dtype, np.integer):
        got = str(order.dtype)
    elif len(wrong := order[(order < 0) | (order >= len(bins))]):
        got = f"row {wrong[0]}"
    if got:
        rule = "must return an order of as many rows as the training split has, whole numbers from 0"
        raise make_part_error("sampling", sampling.name, sampling, rule, got)
    return np.asarray(order, dtype=np.int64)


SAMPLING = Registry("sampling", {"inverse": Inverse, "stratified": Stratified})
