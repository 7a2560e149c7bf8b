"""Figure `similarity`: the joint density of cosine similarity and label distance over all pairs of test samples.

With Pearson's correlation of the two, as in Fig. 3b of Zhao et al., ACCon, AAAI 2025, which reports -0.735. The nearer to a
falling line, the more the representation knows of the label's order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dirtune.results.figures._panels import MOST_PANELS, panels
from dirtune.results.figures._representations import ArmVectors, study_vectors
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import finish, unit_after

# Of the density, in each direction
CELLS = 40


@dataclass(frozen=True, kw_only=True)
class Density:
    """The pairs of one arm."""

    arm: str
    correlation: float
    """Pearson's, NaN where one of the two does not vary."""
    pairs: NDArray[np.int64]
    """(CELLS, CELLS): by label distance, then by cosine."""


@dataclass(frozen=True, kw_only=True)
class Densities:
    """A density per arm, all on the same cells."""

    densities: tuple[Density, ...]
    distances: NDArray[np.float64]
    """Edges of the cells, in the label's unit."""
    cosines: NDArray[np.float64]
    x_label: str
    caption: str


def similarity_data(request: PlotRequest) -> Densities:
    """All pairs of different samples, counted in cells.

    Raises:
        InputError: as `study_vectors`.
    """
    found = study_vectors(request, most=MOST_PANELS)
    widest = max(float(np.ptp(arm.labels)) for arm in found.arms)
    distances = np.linspace(0.0, widest or 1.0, CELLS + 1)
    cosines = np.linspace(-1.0, 1.0, CELLS + 1)
    unit = unit_after(found.label.unit)
    return Densities(
        densities=tuple(_density(arm, distances, cosines) for arm in found.arms),
        distances=distances,
        cosines=cosines,
        x_label=f"{found.label.name} distance{unit}",
        caption=f"{found.caption} All pairs; r: Pearson's correlation of cosine and label distance; colour: logarithm of "
        "the pairs in a cell.",
    )


def draw_similarity(data: Densities) -> Figure:
    """A panel per arm, dark where there are many pairs."""
    titles = [f"{one.arm}, r = {one.correlation:.2f}" for one in data.densities]
    figure, axes = panels(titles, height=1.9)
    for panel, one in zip(axes, data.densities, strict=True):
        panel.pcolormesh(data.distances, data.cosines, np.log1p(one.pairs.T), cmap="Blues", rasterized=True)
        panel.set_xlabel(data.x_label)
        panel.set_ylim(-1, 1)
    axes[0].set_ylabel("cosine similarity")
    finish(figure, data.caption)
    return figure


def _density(arm: ArmVectors, distances: NDArray[np.float64], cosines: NDArray[np.float64]) -> Density:
    first, second = np.triu_indices(len(arm.labels), k=1)
    apart = np.abs(arm.labels[first] - arm.labels[second])
    alike = np.clip((arm.vectors @ arm.vectors.T)[first, second], -1.0, 1.0)
    pairs, _, _ = np.histogram2d(apart, alike, bins=(distances, cosines))
    return Density(arm=arm.arm, correlation=_correlation(apart, alike), pairs=pairs.astype(np.int64))


def _correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])
