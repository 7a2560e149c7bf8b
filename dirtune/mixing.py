"""Mixtures of training samples: partners and shares that turn a batch into convex combinations of two samples.

A mixing is fitted to the labels of the training split and then draws, for the rows of each global batch, a partner for every
row and the row's share of the mixture: `x = share * x_i + (1 - share) * x_j`, and the same for labels and weights; x is the
input or, with `place: embedding`, e. The training loop (`dirtune.training.mixed_batches`) reads the partners and mixes;
evaluation is never mixed.

To add one: write its class, add its line here; from outside of the package, see `dirtune.plugins`.

Sources: mixup: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. C-Mixup: Yao et al., "C-Mixup: Improving
Generalization in Regression", NeurIPS 2022 (huaxiuyao/C-Mixup); of embeddings: Verma et al., "Manifold Mixup", ICML 2019.
Departures: 1. partners of equal labels are drawn from a table of distinct labels, which needs no table of all pairs of
samples; the distribution is the same; 2. two partners of plain mixup may be equal, where its code shuffles the batch;
3. embeddings are those of the whole encoder, where C-Mixup's code mixes after its first block.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from dirtune.frozen import Added, Frozen
from dirtune.part_errors import make_part_error, name_part
from dirtune.registry import Registry
from dirtune.signatures import describe_value

Labels = NDArray[np.float64]
"""Labels of the training split in the unit of training, shape `(rows,)` or `(rows, L)`."""
Rows = NDArray[np.int64]
"""Positions in the training split."""

# Kernel values that are computed at a time
_BLOCK_ENTRIES = 1 << 22


class Mixtures(NamedTuple):
    """Partner and share of each row of a batch."""

    partners: Rows
    """Position of the partner in the training split."""
    shares: NDArray[np.float64]
    """Share of the row itself, in [0, 1]; its partner has the rest."""


DrawMixtures = Callable[[Rows, np.random.Generator], Mixtures]
"""Function of the rows of a global batch and the batch's own random generator."""


class Mixing(Protocol):
    """Batch transformation that combines each sample with another one."""

    @property
    def name(self) -> str: ...

    def fit(self, labels: Labels) -> DrawMixtures:
        """Return the function that draws the mixtures of a batch."""
        ...


def fit_mixing(mixing: Mixing, labels: Labels) -> DrawMixtures:
    """Return the function that draws the mixtures of a batch.

    Raises:
        InputError: the mixing of a plug-in raises, now or later, or draws something else.
    """

    def draw_checked(rows: Rows, generator: np.random.Generator) -> Mixtures:
        with name_part("mixing", mixing.name, mixing):
            partners, shares = draw(rows, generator)
            partners, shares = np.asarray(partners), np.asarray(shares, dtype=np.float64)
        got = ""
        if partners.shape != rows.shape or not np.issubdtype(partners.dtype, np.integer):
            got = f"partners of shape {partners.shape} and type {partners.dtype}"
        elif shares.shape != rows.shape:
            got = f"shares of shape {shares.shape}"
        elif len(wrong := partners[(partners < 0) | (partners >= len(labels))]):
            got = f"a partner of row {wrong[0]}"
        elif len(far := shares[~((shares >= 0) & (shares <= 1))]):
            got = f"a share of {far[0]:g}"
        if got:
            rule = "must draw a partner and a share in [0, 1] for every row"
            raise make_part_error("mixing", mixing.name, mixing, rule, got)
        return Mixtures(partners, shares)

    with name_part("mixing", mixing.name, mixing):
        draw = mixing.fit(labels)
    if not callable(draw):
        rule = "`fit` must return a function of rows and a generator"
        raise make_part_error("mixing", mixing.name, mixing, rule, describe_value(draw))
    return draw_checked


class Mixup(Frozen):
    """Convex combinations with a partner that is drawn uniformly."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(default=2.0, gt=0)
    """Shares are drawn from Beta(alpha, alpha): near 1/2 if it is large, near 0 and 1 if it is small. C-Mixup's configurations:
    2, 1.5 on the exchange rate, 0.2 as an option on EchoNet."""
    share_per: Literal["batch", "row"] = "batch"
    """batch: one share for all rows of a step, as in the official code; row: one for each."""
    partners: Literal["split", "batch"] = "split"
    """Samples among which a partner is drawn: the whole training split, or the batch (RCF-MNIST in C-Mixup)."""
    place: Annotated[Literal["input", "embedding"], Added()] = "input"
    """What is mixed. input: what the encoder reads; embedding: what it returns, which also fits tokens and doubles its passes
    (manifold mixup)."""

    def fit(self, labels: Labels) -> DrawMixtures:
        """Return the function that draws the mixtures of a batch."""
        draw_from_split = self.fit_partners(labels) if self.partners == "split" else None

        def draw(rows: Rows, generator: np.random.Generator) -> Mixtures:
            shares = generator.beta(self.alpha, self.alpha, size=1 if self.share_per == "batch" else len(rows))
            uniform = generator.random(len(rows))
            if draw_from_split is not None:
                partners = draw_from_split(rows, uniform)
            else:
                partners = rows[self.fit_partners(labels[rows])(np.arange(len(rows)), uniform)]
            return Mixtures(partners, np.broadcast_to(shares, len(rows)))

        return draw

    def fit_partners(self, labels: Labels) -> Callable[[Rows, NDArray[np.float64]], Rows]:
        """Return a function of rows and one uniform number in [0, 1) for each that returns their partners."""
        return lambda rows, uniform: (uniform * len(labels)).astype(np.int64)


class CMixup(Mixup):
    """Convex combinations with a partner of a similar label, by a kernel of the label distance."""

    name: Literal["c_mixup"] = "c_mixup"  # type: ignore[assignment]
    bandwidth: float | None = Field(default=None, gt=0)
    """Bandwidth h of the kernel, in the unit of training. None: a quarter of the standard deviation of the training labels,
    which is the published 1.75 dB on Airfoil. Published, in each data set's unit: Airfoil 1.75, NO2 1.2, exchange rate 0.05,
    electricity 0.5, Crime 4, SkillCraft 1, DTI 20, PovertyMap 0.5, EchoNet 50. It should be tuned."""
    kernel: Literal["gaussian", "tophat"] = "gaussian"
    """gaussian: `exp(-d^2 / (2 h^2))`; tophat: 1 if `d < h`, else 0, of the Euclidean distance d of the labels."""

    def fit_partners(self, labels: Labels) -> Callable[[Rows, NDArray[np.float64]], Rows]:
        """Return a function of rows and one uniform number in [0, 1) for each that returns their partners."""
        return KernelPartners(labels, bandwidth=self.bandwidth, kernel=self.kernel)


class KernelPartners:
    """Draws of partners with probabilities proportional to a kernel of the label distance; a row may draw itself.

    Args:
        labels: labels of the candidates.
        bandwidth: see `CMixup`.
        kernel: see `CMixup`.
    """

    def __init__(
        self, labels: Labels, *, bandwidth: float | None = None, kernel: Literal["gaussian", "tophat"] = "gaussian"
    ) -> None:
        by_row = labels.reshape(len(labels), -1)
        self.values, found, self.counts = np.unique(by_row, axis=0, return_inverse=True, return_counts=True)
        self.value_of_row = found.reshape(-1)
        self.rows_by_value = np.argsort(self.value_of_row, kind="stable")
        self.first = np.cumsum(self.counts) - self.counts
        spread = float(np.sqrt(by_row.var(axis=0).mean()))
        # Of equal labels every distance is zero, at any bandwidth.
        self.bandwidth = bandwidth or spread / 4 or 1.0
        self.kernel = kernel

    def compute_kernel(self, values: Rows) -> NDArray[np.float64]:
        """Return the kernel between distinct labels, by their numbers, and all of them; shape `(len(values), distinct)`."""
        differences = self.values[values][:, None] - self.values[None]
        squares = np.square(differences / self.bandwidth).sum(axis=-1)
        return np.asarray(np.exp(-squares / 2) if self.kernel == "gaussian" else squares < 1, dtype=np.float64)

    def __call__(self, rows: Rows, uniform: NDArray[np.float64]) -> Rows:
        size = max(1, _BLOCK_ENTRIES // self.values.size)
        blocks = range(0, len(rows), size)
        return np.concatenate([self._draw(rows[at : at + size], uniform[at : at + size]) for at in blocks])

    def _draw(self, rows: Rows, uniform: NDArray[np.float64]) -> Rows:
        """Invert the distribution function of the candidates in the order of their labels."""
        drawn, which = np.unique(self.value_of_row[rows], return_inverse=True)
        kernel = self.compute_kernel(drawn)
        cumulative = np.cumsum(kernel * self.counts, axis=1)
        partners = np.empty_like(rows)
        for at, (number, draw) in enumerate(zip(which.reshape(-1), uniform, strict=True)):
            mass = draw * cumulative[number, -1]
            value = np.searchsorted(cumulative[number], mass, side="right")
            # Rounding may leave the last place below the drawn mass, or reach past the rows of one label.
            value = min(value, len(self.counts) - 1)
            before = cumulative[number, value - 1] if value else 0.0
            place = int((mass - before) / kernel[number, value]) if kernel[number, value] else 0
            partners[at] = self.rows_by_value[self.first[value] + min(max(place, 0), self.counts[value] - 1)]
        return partners


MIXING = Registry("mixing", {"c_mixup": CMixup, "mixup": Mixup})
