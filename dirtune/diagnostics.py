"""Diagnostics of representations: agreement of angles on the hypersphere with label distances.

A diagnostic is a function of `PairSums`, sums over all pairs of samples in one pass: at ten thousand samples the pass over
fifty million pairs takes the time, the functions of the sums do not. Pairs are evaluated a block of rows at a time, so that
memory is linear in the number of samples, in float64.

Representations are normalized here; a row without length has cosine zero to every other. Undefined values (no pair, constant
input) are NaN, never an exception or a warning.

Source: Wang and Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere", ICML 2020, for alignment and uniformity; Wang and Liu, CVPR 2021 (arXiv 2012.09740), for tolerance; Zhao et
al., "ACCon", AAAI 2025, for the correlation, the target angles and the curve of cosines. Departures: 1. the samples of one
label bin replace two views of a sample (alignment) and a class (tolerance); 2. tolerance is the mean over the pairs of one
bin, not that over all pairs with zeros for the others; 3. every pair counts once and no sample is its own partner.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dirtune.metrics import RegionMetric
from dirtune.metrics.sums import Array, Moments, compute_moments
from dirtune.registry import Registry

BLOCK_ENTRIES = 1 << 20
"""Maximum number of pair-matrix entries of a block."""

# The paper's t of the uniformity
_SHARPNESS = 2.0
# A vector shorter than this has no direction.
_SHORTEST = 1e-6
# Tolerance for the rounding of a label distance at the edge of a bin, in bins
_EDGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class EmbeddedSamples:
    """Representations of a set of samples, with their labels.

    Raises:
        ValueError: the shapes do not agree, or the label range is not positive.
    """

    representations: NDArray[np.floating[Any]]
    """Shape (n, dim)."""
    labels: NDArray[np.floating[Any]]
    """Shape (n,), or (n, L) for labels of L dimensions."""
    bins: NDArray[np.integer[Any]]
    """Label bins, shape (n,)."""
    label_range: float
    """Width of the label's range, from the manifest."""

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.representations, self.labels, self.bins)]
        dimensions = [len(shape) for shape in shapes]
        if dimensions not in ([2, 1, 1], [2, 2, 1]) or len({shape[0] for shape in shapes}) > 1:
            raise ValueError(f"shapes must be (n, dim), (n,) or (n, L), and (n,), but got {shapes}")
        if not self.label_range > 0:
            raise ValueError(f"label_range must be positive, but got {self.label_range}")


@dataclass(frozen=True, kw_only=True)
class PairSums:
    """Sums over a set of pairs; `a + b` holds those of both sets together."""

    repulsion: float
    """Sum of exp(-2 |z_i - z_j|^2)."""
    deviation: float
    """Sum of | angle - pi |y_i - y_j| / range |, in degrees."""
    neighbors: int
    """Number of pairs of one label bin."""
    neighbor_cosines: float
    """Sum of the cosines of these pairs."""
    neighbor_squares: float
    """Sum of |z_i - z_j|^2 of these pairs."""
    moments: Moments
    """Moments of (label distance, cosine)."""

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return self.moments.n

    def __add__(self, other: "PairSums") -> "PairSums":
        return PairSums(
            repulsion=self.repulsion + other.repulsion,
            deviation=self.deviation + other.deviation,
            neighbors=self.neighbors + other.neighbors,
            neighbor_cosines=self.neighbor_cosines + other.neighbor_cosines,
            neighbor_squares=self.neighbor_squares + other.neighbor_squares,
            moments=self.moments + other.moments,
        )


def sum_pairs(embedded: EmbeddedSamples) -> PairSums:
    """Sum over all pairs of different samples."""
    # Representations that are not finite give NaN, without a warning.
    with np.errstate(invalid="ignore", over="ignore"):
        return reduce(add, (_sum_block(block, embedded.label_range) for block in _iter_pairs(embedded)))


def alignment(sums: PairSums) -> float:
    """Compute the mean of `|z_i - z_j|^2` over the pairs of one label bin, in 0..4; low: a bin is one point."""
    return _divide(sums.neighbor_squares, sums.neighbors)


def uniformity(sums: PairSums) -> float:
    """Compute `log mean exp(-2 |z_i - z_j|^2)` over all pairs, in -8..0; low: spread over the whole sphere."""
    return math.log(_divide(sums.repulsion, sums.pairs))


def tolerance(sums: PairSums) -> float:
    """Compute the mean cosine of the pairs of one label bin, in -1..1; high: similar labels are close."""
    return _divide(sums.neighbor_cosines, sums.neighbors)


def cosine_correlation(sums: PairSums) -> float:
    """Compute Pearson's correlation of cosine and label distance over all pairs, in -1..1; low: far labels, low cosines."""
    return sums.moments.correlation


def angle_deviation(sums: PairSums) -> float:
    """Compute the mean of `|theta_ij - pi min(|y_i - y_j| / range, 1)|`, in degrees; low: at ACCon's target angles."""
    return _divide(sums.deviation, sums.pairs)


DIAGNOSTICS: Registry[Callable[[PairSums], float]] = Registry(
    "diagnostic",
    {
        "alignment": alignment,
        "uniformity": uniformity,
        "tolerance": tolerance,
        "cosine_correlation": cosine_correlation,
        "angle_deviation": angle_deviation,
    },
    is_open=False,
)


def compute_representation_metrics(embedded: EmbeddedSamples) -> list[RegionMetric]:
    """Compute every diagnostic as a row of the table `metrics`, region "all"; `n` counts samples."""
    sums, n = sum_pairs(embedded), len(embedded.bins)
    return [
        RegionMetric(region="all", metric=name, value=diagnostic(sums), n=n) for name, diagnostic in DIAGNOSTICS.items()
    ]


class AnchorCurve(NamedTuple):
    """Cosine by label distance from the samples of one label; one entry per distance that occurs."""

    distances: Array
    """Multiples of the bin width, in the label's unit."""
    means: Array
    """Means of the cosines."""
    deviations: Array
    """Standard deviations of the cosines, of the population of pairs."""
    pairs: NDArray[np.int64]
    """Numbers of pairs."""


def compute_anchor_curve(
    representations: ArrayLike, labels: ArrayLike, anchor_label: float, *, bin_width: float
) -> AnchorCurve:
    """Compute the mean cosine to the samples of one label by the label distance from them.

    Args:
        representations: shape `(n, dim)`.
        labels: shape `(n,)`.
        anchor_label: a sample is an anchor if its label rounds to this one, in steps of the bin width.
        bin_width: label distances are rounded to multiples of it, halves upwards.
    """
    z, y = _normalize_rows(representations), np.asarray(labels, dtype=np.float64)
    anchors = np.flatnonzero(_round_to_steps(np.abs(y - anchor_label), bin_width) == 0)
    steps = int(_round_to_steps(y.max() - y.min(), bin_width)) + 1 if len(y) else 0
    sums, counts = np.zeros(steps), np.zeros(steps, dtype=np.int64)
    for at, cosines in _iter_curve_points(z, y, anchors, bin_width):
        sums += np.bincount(at, cosines, steps)
        counts += np.bincount(at, minlength=steps)
    # A second pass, around the means: sums of squares would lose the digits of small deviations.
    means, squares = sums / np.maximum(counts, 1), np.zeros(steps)
    for at, cosines in _iter_curve_points(z, y, anchors, bin_width):
        squares += np.bincount(at, np.square(cosines - means[at]), steps)
    seen = np.flatnonzero(counts)
    deviations = np.sqrt(squares[seen] / counts[seen])
    distances = np.multiply(seen, bin_width, dtype=np.float64)
    return AnchorCurve(distances, means[seen], deviations, counts[seen])


class _PairBlock(NamedTuple):
    """Pairs of samples, one entry each."""

    cosines: Array
    squares: Array
    """Squared distances on the sphere."""
    distances: Array
    """Label distances."""
    neighbors: NDArray[np.bool_]
    """True for pairs of one label bin."""


def _iter_pairs(embedded: EmbeddedSamples) -> Iterator[_PairBlock]:
    """Yield all pairs `i < j`, in blocks of rows `i`; at least one block, which may be empty."""
    z = _normalize_rows(embedded.representations)
    n = len(z)
    lengths = np.einsum("nd,nd->n", z, z)
    labels = np.asarray(embedded.labels, dtype=np.float64)
    labels = labels[:, None] if labels.ndim == 1 else labels
    for rows in _iter_blocks(n):
        # Columns from the block's first row on: half of the matrix, since every pair counts once.
        rest = slice(rows.start, n)
        later = np.arange(n)[None, rest] > np.arange(n)[rows, None]
        # Rounding takes products of equal directions beyond one, where the arccosine is NaN.
        cosines = np.clip(z[rows] @ z[rest].T, -1.0, 1.0)
        yield _PairBlock(
            cosines=cosines[later],
            squares=(lengths[rows, None] + lengths[None, rest] - 2 * cosines)[later],
            distances=np.linalg.norm(labels[rows, None] - labels[None, rest], axis=2)[later],
            neighbors=(embedded.bins[rows, None] == embedded.bins[None, rest])[later],
        )


def _sum_block(pairs: _PairBlock, label_range: float) -> PairSums:
    targets = np.pi * np.minimum(pairs.distances / label_range, 1.0)
    return PairSums(
        repulsion=float(np.exp(-_SHARPNESS * pairs.squares).sum()),
        deviation=float(np.degrees(np.abs(np.arccos(pairs.cosines) - targets)).sum()),
        neighbors=int(np.count_nonzero(pairs.neighbors)),
        neighbor_cosines=float(pairs.cosines[pairs.neighbors].sum()),
        neighbor_squares=float(pairs.squares[pairs.neighbors].sum()),
        moments=compute_moments(np.stack([pairs.distances, pairs.cosines])),
    )


def _iter_curve_points(
    z: Array, y: Array, anchors: NDArray[np.int64], bin_width: float
) -> Iterator[tuple[NDArray[np.int64], Array]]:
    """Yield step of the label distance and cosine of every pair of an anchor and another sample, in blocks of anchors."""
    for block in _iter_blocks(len(z)):
        rows = anchors[block]
        others = np.arange(len(z))[None, :] != rows[:, None]
        cosines = np.clip(z[rows] @ z.T, -1.0, 1.0)
        yield _round_to_steps(np.abs(y[rows, None] - y[None, :]), bin_width)[others], cosines[others]


def _iter_blocks(n: int) -> Iterator[slice]:
    size = max(1, BLOCK_ENTRIES // max(n, 1))
    for start in range(0, max(n, 1), size):
        yield slice(start, min(start + size, n))


def _normalize_rows(representations: ArrayLike) -> Array:
    """Return each row divided by its length; zero for a row without length."""
    z = np.asarray(representations, dtype=np.float64)
    lengths = np.linalg.norm(z, axis=1, keepdims=True)
    directions: Array = np.divide(z, lengths, out=np.zeros_like(z), where=~(lengths <= _SHORTEST))
    return directions


def _round_to_steps(distances: ArrayLike, bin_width: float) -> NDArray[np.int64]:
    steps = np.asarray(distances, dtype=np.float64) / bin_width
    return np.floor(steps + 0.5 + _EDGE).astype(np.int64)


def _divide(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else math.nan
