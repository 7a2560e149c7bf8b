"""Figure `tsne`: the test samples of each arm in two dimensions, colored by label.

t-SNE of the representations by cosine distance (van der Maaten and Hinton, JMLR 2008; scikit-learn's), as in Fig. 4 of
Keramati et al., ConR, ICLR 2024, and Fig. 3a of Zhao et al., ACCon, AAAI 2025. Axes and distances
between clusters have no meaning; the figure shows whether neighbors have similar labels. `similarity` has the same
information as a number.
"""

from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dirtune.progress import show_progress
from dirtune.results.figures import _representations, _request, _style

MAX_PERPLEXITY = 30.0
MIN_SAMPLES = 8


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The samples of one arm in the plane."""

    arm: str
    positions: NDArray[np.float64]
    """(n, 2)."""
    labels: NDArray[np.float64]
    """(n,)."""


@dataclass(frozen=True, kw_only=True)
class Embeddings:
    """An embedding per arm, with a common scale of labels."""

    embeddings: tuple[Embedding, ...]
    label: str
    caption: str


def build_tsne(request: _request.PlotRequest) -> Embeddings:
    """Compute the embeddings; equal input gives equal ones on the same machine.

    Raises:
        InputError: there are fewer than eight samples, and as `read_study_vectors`.
    """
    found = _representations.read_study_vectors(request, most=_style.MAX_PANELS)
    fewest = min(len(arm.labels) for arm in found.arms)
    if fewest < MIN_SAMPLES:
        raise request.make_error(f"has {fewest} representations, too few for t-SNE (at least {MIN_SAMPLES})")
    unit = _style.format_unit(found.label.unit)
    embeddings = []
    with show_progress("t-SNE of arms", len(found.arms)) as advance:
        for arm in found.arms:
            embeddings.append(_compute_embedding(arm))
            advance(1)
    return Embeddings(
        embeddings=tuple(embeddings),
        label=f"{found.label.name}{unit}",
        caption=f"{found.caption} t-SNE by cosine distance; axes and distances between groups have no scale.",
    )


def draw_tsne(data: Embeddings) -> Figure:
    """Draw a panel per arm, and one color bar."""
    figure, axes = _style.make_panels([one.arm for one in data.embeddings], height=1.9)
    # One scale for all panels, so that colors are comparable.
    low = min(one.labels.min() for one in data.embeddings)
    high = max(one.labels.max() for one in data.embeddings)
    for panel, one in zip(axes, data.embeddings, strict=True):
        across, up = one.positions.T
        points = panel.scatter(across, up, c=one.labels, cmap="viridis", vmin=low, vmax=high, s=3, linewidths=0)
        panel.set_xticks([])
        panel.set_yticks([])
        panel.spines[["left", "bottom"]].set_visible(False)
    figure.colorbar(points, ax=axes, label=data.label, fraction=0.05)
    _style.finish_figure(figure, data.caption)
    return figure


def _compute_embedding(arm: _representations.ArmVectors) -> Embedding:
    # Imported here because it takes a second.
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # scikit-learn requires a perplexity below the number of samples.
    perplexity = min(MAX_PERPLEXITY, (len(arm.labels) - 1) / 3)
    # Rounding gives equal vectors a cosine distance of about -1e-16, which scikit-learn rejects.
    distances = np.clip(1.0 - arm.vectors @ arm.vectors.T, 0.0, None)
    np.fill_diagonal(distances, 0.0)
    # The default start, by principal components, needs vectors and not distances.
    tsne = TSNE(metric="precomputed", init="random", perplexity=perplexity, random_state=0)
    # Its threads wait for one another in busy loops: on cores that others use as well, two take eight times as long as one.
    with threadpool_limits(limits=1):
        return Embedding(arm=arm.arm, positions=tsne.fit_transform(distances), labels=arm.labels)
