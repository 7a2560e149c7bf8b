"""Figure `anchors`: how the cosine to the samples of one label falls with the label distance from them.

As in Fig. 5 of Zhao et al., ACCon, AAAI 2025, for three anchor labels: those nearest to the tenth, the middle and the
ninetieth percentile of the test labels. Lines are the arms, bands the spread over pairs; the dotted line is ACCon's target
`cos(pi |y - y_anchor| / range)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dirtune.diagnostics import anchor_curve
from dirtune.manifest import LabelSpec
from dirtune.results.figures._bands import Band, draw_bands
from dirtune.results.figures._panels import panels
from dirtune.results.figures._representations import ArmVectors, study_vectors
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import MOST_LINES, finish, unit_after
from dirtune.results.figures.error_by_label import bin_width

PERCENTILES = (10, 50, 90)
# Of the target's line
POINTS = 100


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One anchor label, with a band per arm."""

    label: float
    """In the label's unit."""
    bands: tuple[Band, ...]


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """A panel per anchor."""

    anchors: tuple[Anchor, ...]
    reference: str | None
    target: tuple[tuple[float, ...], tuple[float, ...]]
    """Label distances and the cosines ACCon asks for."""
    title: str
    """Of a panel, before its label."""
    x_label: str
    caption: str


def anchors_data(request: PlotRequest) -> Anchors:
    """The curves of every arm from each anchor label.

    Raises:
        InputError: as `study_vectors`.
    """
    found = study_vectors(request, most=MOST_LINES)
    width, label = bin_width(found.label), found.label
    labels = anchor_labels(found.arms[0].labels)
    unit = unit_after(label.unit)
    return Anchors(
        anchors=tuple(
            Anchor(label=anchor, bands=tuple(_band(arm, anchor, width) for arm in found.arms)) for anchor in labels
        ),
        reference=found.reference,
        target=_target(label, found.arms),
        title=label.name,
        x_label=f"{label.name} distance{unit}",
        caption=f"{found.caption} Mean cosine to the samples within {width / 2:g} of the anchor, ± sd over pairs, in steps "
        f"of {width:g}; dotted: ACCon's target.",
    )


def draw_anchors(data: Anchors) -> Figure:
    """A panel per anchor, the arms' lines in each."""
    figure, axes = panels([f"{data.title} {one.label:.3g}" for one in data.anchors], height=1.9)
    for panel, anchor in zip(axes, data.anchors, strict=True):
        draw_bands(panel, anchor.bands, data.reference, markers=False)
        panel.plot(*data.target, color="black", linestyle=":", linewidth=0.8)
        panel.set_xlabel(data.x_label)
        panel.set_ylim(-1.05, 1.05)
        panel.grid()
    axes[0].set_ylabel("cosine similarity")
    finish(figure, data.caption, axes[0])
    return figure


def anchor_labels(labels: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """Labels that occur, nearest to the percentiles; each once."""
    occurring = np.unique(np.asarray(labels, dtype=np.float64))
    wanted = np.percentile(labels, PERCENTILES)
    return tuple(dict.fromkeys(float(occurring[np.abs(occurring - at).argmin()]) for at in wanted))


def _band(arm: ArmVectors, anchor: float, width: float) -> Band:
    curve = anchor_curve(arm.vectors, arm.labels, anchor, bin_width=width)
    return Band(
        label=arm.arm,
        x=tuple(curve.distances.tolist()),
        means=tuple(curve.means.tolist()),
        sds=tuple(curve.deviations.tolist()),
        n=tuple(curve.pairs.tolist()),
    )


def _target(label: LabelSpec, arms: Sequence[ArmVectors]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    widest = max(float(np.ptp(arm.labels)) for arm in arms)
    distances = np.linspace(0.0, widest, POINTS)
    cosines = np.cos(np.pi * np.minimum(distances / label.label_range, 1.0))
    return tuple(distances.tolist()), tuple(cosines.tolist())
