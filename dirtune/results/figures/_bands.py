"""Lines with bands over seeds: what `training_curves`, `error_by_label` and `data_efficiency` have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from dirtune.results.figures._style import MARKERS, arm_colors
from dirtune.results.statistics.paired import mean, sd


@dataclass(frozen=True, kw_only=True)
class Band:
    """A mean over seeds and its spread at every place on the x axis."""

    label: str
    x: tuple[float, ...]
    means: tuple[float, ...]
    sds: tuple[float, ...]
    """NaN where there are fewer than two seeds."""
    n: tuple[int, ...]
    """Seeds."""


def band(label: str, values: Mapping[float, Sequence[float]]) -> Band:
    """From the values of the single seeds by place; places without any are left out."""
    places = sorted(place for place, found in values.items() if len(found))
    return Band(
        label=label,
        x=tuple(places),
        means=tuple(mean(values[place]) for place in places),
        sds=tuple(sd(values[place]) for place in places),
        n=tuple(len(values[place]) for place in places),
    )


def draw_bands(axes: Axes, bands: Sequence[Band], reference: str | None, *, markers: bool) -> None:
    """A line per band, and ± sd around it."""
    colors = arm_colors([one.label for one in bands], reference)
    for position, one in enumerate(bands):
        color = colors[one.label]
        marker = MARKERS[position % len(MARKERS)] if markers else None
        axes.plot(one.x, one.means, color=color, marker=marker, markersize=4, linewidth=1.2, label=one.label)
        low = [centre - spread for centre, spread in zip(one.means, one.sds, strict=True)]
        high = [centre + spread for centre, spread in zip(one.means, one.sds, strict=True)]
        axes.fill_between(one.x, low, high, color=color, alpha=0.18, linewidth=0)
