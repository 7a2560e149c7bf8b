"""Lines with bands over seeds, as in `training_curves`, `error_by_label`, `data_efficiency` and `anchors`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from dirtune.results.figures._style import MARKERS, assign_colors
from dirtune.results.statistics.paired import compute_sd, mean


@dataclass(frozen=True, kw_only=True)
class Band:
    """Mean and standard deviation over seeds at every x."""

    label: str
    x: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    """NaN for fewer than two seeds."""
    n: tuple[int, ...]
    """Numbers of seeds."""


def make_band(label: str, values: Mapping[float, Sequence[float]]) -> Band:
    """Return the band of the values of single seeds by x; an x without values is left out."""
    xs = sorted(x for x, found in values.items() if len(found))
    return Band(
        label=label,
        x=tuple(xs),
        means=tuple(mean(values[x]) for x in xs),
        sds=tuple(compute_sd(values[x]) for x in xs),
        n=tuple(len(values[x]) for x in xs),
    )


def draw_bands(axes: Axes, bands: Sequence[Band], reference: str | None, *, markers: bool) -> None:
    """Draw a line per band, and ± sd around it.

    Args:
        axes: to draw on.
        bands: of the arms.
        reference: label of the gray one.
        markers: also mark every x.
    """
    colors = assign_colors([one.label for one in bands], reference)
    for position, one in enumerate(bands):
        color = colors[one.label]
        marker = MARKERS[position % len(MARKERS)] if markers else None
        axes.plot(one.x, one.means, color=color, marker=marker, markersize=4, linewidth=1.2, label=one.label)
        low = [center - spread for center, spread in zip(one.means, one.sds, strict=True)]
        high = [center + spread for center, spread in zip(one.means, one.sds, strict=True)]
        # No band where the sd is NaN, for a single seed.
        axes.fill_between(one.x, low, high, color=color, alpha=0.18, linewidth=0)
