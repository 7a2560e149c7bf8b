"""Figure `tsne`: where each arm puts the test samples, in two dimensions, coloured by label.

t-SNE of the representations by cosine distance (van der Maaten and Hinton, JMLR 2008; scikit-learn's), as in Fig. 4 of
Keramati et al., ConR, ICLR 2024, and Fig. 3a of Zhao et al., ACCon, AAAI 2025. Its distances between clusters and its
axes mean nothing: what is to be seen is whether colours follow one another. `similarity` says the same in a number.
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

LARGEST_PERPLEXITY = 30.0
# Samples
FEWEST = 8


@dataclass(frozen=True, kw_only=True)
class Map:
    """The samples of one arm in the plane."""

    arm: str
    places: NDArray[np.float64]
    """(n, 2)."""
    labels: NDArray[np.float64]
    """(n,)."""


@dataclass(frozen=True, kw_only=True)
class Maps:
    """A map per arm, with one scale of labels."""

    maps: tuple[Map, ...]
    label: str
    caption: str


def tsne_data(request: PlotRequest) -> Maps:
    """The maps; equal input gives equal maps on one machine.

    Raises:
        InputError: there are fewer than eight samples, and as `study_vectors`.
    """
    found = study_vectors(request, most=MOST_PANELS)
    fewest = min(len(arm.labels) for arm in found.arms)
    if fewest < FEWEST:
        raise request.nothing(f"keeps {fewest} representations, too few for a map (at least {FEWEST})")
    unit = unit_after(found.label.unit)
    return Maps(
        maps=tuple(_map(arm) for arm in found.arms),
        label=f"{found.label.name}{unit}",
        caption=f"{found.caption} t-SNE by cosine distance; axes and distances between groups have no scale.",
    )


def draw_tsne(data: Maps) -> Figure:
    """A panel per arm, one colour bar."""
    figure, axes = panels([one.arm for one in data.maps], height=1.9)
    low = min(one.labels.min() for one in data.maps)
    high = max(one.labels.max() for one in data.maps)
    for panel, one in zip(axes, data.maps, strict=True):
        across, up = one.places.T
        points = panel.scatter(across, up, c=one.labels, cmap="viridis", vmin=low, vmax=high, s=3, linewidths=0)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(points, ax=axes, label=data.label, fraction=0.05)
    finish(figure, data.caption)
    return figure


def _map(arm: ArmVectors) -> Map:
    # A second to import
    from sklearn.manifold import TSNE

    perplexity = min(LARGEST_PERPLEXITY, (len(arm.labels) - 1) / 3)
    # Equal vectors have a cosine distance of some -1e-16, which scikit-learn refuses.
    distances = np.clip(1.0 - arm.vectors @ arm.vectors.T, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    flat = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0)
    return Map(arm=arm.arm, places=flat.fit_transform(distances), labels=arm.labels)
