"""Figure `anchors`: cosine similarity to the samples of one label, against the label distance from it.

As in Fig. 5 of Zhao et al., ACCon, AAAI 2025, for three anchor labels: those nearest to the 10th, 50th and 90th percentile
of the test labels. Lines are arms, bands the standard deviation over pairs; the dotted line is ACCon's target
`cos(pi |y - y_anchor| / range)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from dirtune.diagnostics import compute_anchor_curve
from dirtune.results.figures import _bands, _representations, _request, _style, error_by_label

PERCENTILES = (10, 50, 90)
POINTS = 100
"""Points of the target's line."""


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One anchor label, with a band per arm."""

    label: float
    """In the label's unit."""
    bands: tuple[_bands.Band, ...]


@dataclass(frozen=True, kw_only=True)
class Anchors:
    """A panel per anchor."""

    anchors: tuple[Anchor, ...]
    reference: str | None
    target: tuple[tuple[float, ...], tuple[float, ...]]
    """Label distances and ACCon's target cosines."""
    title: str
    """Title of a panel, without its label."""
    x_label: str
    caption: str


def build_anchors(request: _request.PlotRequest) -> Anchors:
    """Compute the curve of every arm from each anchor label.

    Raises:
        InputError: as `read_study_vectors`.
    """
    found = _representations.read_study_vectors(request, most=_style.MAX_LINES)
    width, label = error_by_label.choose_bin_width(found.label), found.label
    labels = select_anchor_labels(found.arms[0].labels)
    unit = _style.format_unit(label.unit)
    distances = np.linspace(0.0, max(float(np.ptp(arm.labels)) for arm in found.arms), POINTS)
    # Test labels may span more than the range of the manifest; the target angle ends at pi.
    cosines = np.cos(np.pi * np.minimum(distances / label.label_range, 1.0))
    return Anchors(
        anchors=tuple(
            Anchor(label=anchor, bands=tuple(_make_anchor_band(arm, anchor, width) for arm in found.arms))
            for anchor in labels
        ),
        reference=found.reference,
        target=(tuple(distances.tolist()), tuple(cosines.tolist())),
        title=label.name,
        x_label=f"{label.name} distance{unit}",
        caption=f"{found.caption} Mean cosine to the samples within {width / 2:g} of the anchor, ± sd over pairs, in steps "
        f"of {width:g}; dotted: ACCon's target.",
    )


def draw_anchors(data: Anchors) -> Figure:
    """Draw a panel per anchor with a line per arm."""
    figure, axes = _style.make_panels([f"{data.title} {one.label:.3g}" for one in data.anchors], height=1.9)
    for panel, anchor in zip(axes, data.anchors, strict=True):
        _bands.draw_bands(panel, anchor.bands, data.reference, markers=False)
        panel.plot(*data.target, color="black", linestyle=":", linewidth=0.8)
        panel.set_xlabel(data.x_label)
        # Beyond ±1, so that a line at the end of the range is not cut in half.
        panel.set_ylim(-1.05, 1.05)
        panel.grid()
    axes[0].set_ylabel("cosine similarity")
    _style.finish_figure(figure, data.caption, axes[0])
    return figure


def select_anchor_labels(labels: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    """Return the distinct labels of the data that are nearest to the percentiles."""
    # A percentile may be between two labels, where there is no sample to start from.
    occurring = np.unique(np.asarray(labels, dtype=np.float64))
    wanted = np.percentile(labels, PERCENTILES)
    return tuple(dict.fromkeys(float(occurring[np.abs(occurring - at).argmin()]) for at in wanted))


def _make_anchor_band(arm: _representations.ArmVectors, anchor: float, width: float) -> _bands.Band:
    curve = compute_anchor_curve(arm.vectors, arm.labels, anchor, bin_width=width)
    return _bands.Band(
        label=arm.arm,
        x=tuple(curve.distances.tolist()),
        means=tuple(curve.means.tolist()),
        sds=tuple(curve.deviations.tolist()),
        n=tuple(curve.pairs.tolist()),
    )
