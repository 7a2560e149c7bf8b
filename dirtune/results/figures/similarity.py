"""Figure `similarity`: the joint density of cosine similarity and label distance over all pairs of test samples.

With Pearson's correlation of the two, as in Fig. 3b of Zhao et al., ACCon, AAAI 2025, which reports -0.735. The nearer the
pairs are to a falling line, the better the representation preserves the order of the labels.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dirtune.results.figures import _representations, _request, _style

CELLS = 40
"""Cells of the density in each direction."""


@dataclass(frozen=True, kw_only=True)
class Density:
    """Density of the pairs of one arm."""

    arm: str
    correlation: float
    """Pearson's r; NaN if one of the two is constant."""
    pairs: NDArray[np.int64]
    """(CELLS, CELLS), by label distance, then by cosine."""


@dataclass(frozen=True, kw_only=True)
class Densities:
    """A density per arm, with common cells."""

    densities: tuple[Density, ...]
    distances: NDArray[np.float64]
    """Edges of the cells, in the label's unit."""
    cosines: NDArray[np.float64]
    x_label: str
    caption: str


def build_similarity(request: _request.PlotRequest) -> Densities:
    """Count all pairs of different samples in cells.

    Raises:
        InputError: as `read_study_vectors`.
    """
    found = _representations.read_study_vectors(request, most=_style.MAX_PANELS)
    widest = max(float(np.ptp(arm.labels)) for arm in found.arms)
    # Equal labels have no range, and the edges of a histogram must increase.
    distances = np.linspace(0.0, widest or 1.0, CELLS + 1)
    cosines = np.linspace(-1.0, 1.0, CELLS + 1)
    unit = _style.format_unit(found.label.unit)
    return Densities(
        densities=tuple(_count_pairs(arm, distances, cosines) for arm in found.arms),
        distances=distances,
        cosines=cosines,
        x_label=f"{found.label.name} distance{unit}",
        caption=f"{found.caption} All pairs; r: Pearson's correlation of cosine and label distance; color: logarithm of "
        "the number of pairs in a cell.",
    )


def draw_similarity(data: Densities) -> Figure:
    """Draw a panel per arm, dark where there are many pairs."""
    titles = [f"{one.arm}, r = {one.correlation:.2f}" for one in data.densities]
    figure, axes = _style.make_panels(titles, height=1.9)
    for panel, one in zip(axes, data.densities, strict=True):
        # Rasterized: thousands of cells would make vector files large. Counts span orders of magnitude.
        panel.pcolormesh(data.distances, data.cosines, np.log1p(one.pairs.T), cmap="Blues", rasterized=True)
        panel.set_xlabel(data.x_label)
        panel.set_ylim(-1, 1)
    axes[0].set_ylabel("cosine similarity")
    _style.finish_figure(figure, data.caption)
    return figure


def _count_pairs(
    arm: _representations.ArmVectors, distances: NDArray[np.float64], cosines: NDArray[np.float64]
) -> Density:
    # Every pair once, and no sample with itself.
    first, second = np.triu_indices(len(arm.labels), k=1)
    label_distances = np.abs(arm.labels[first] - arm.labels[second])
    # Rounding may exceed 1, which would be outside of the cells.
    similarities = np.clip((arm.vectors @ arm.vectors.T)[first, second], -1.0, 1.0)
    pairs, _, _ = np.histogram2d(label_distances, similarities, bins=(distances, cosines))
    return Density(
        arm=arm.arm, correlation=compute_correlation(label_distances, similarities), pairs=pairs.astype(np.int64)
    )


def compute_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return Pearson's r of two vectors, or NaN if one of them is constant."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
