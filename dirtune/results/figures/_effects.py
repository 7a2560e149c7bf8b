"""Effects with their intervals around a line at zero, as in `forest`, `ablation_path` and `interactions`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.figures._style import BAD, GOOD
from dirtune.results.statistics import joint, paired
from dirtune.results.tables.marks import SIGNIFICANT

EXTENT = 3.0
"""Maximum reach of an axis, as a multiple of the median distance from zero to an interval's far end."""
COLOR_KEY = "Blue is better, orange worse; filled:"
CLAIM_KEY = "Blue is better, orange worse; filled: the word helps or hurts, which only the claim's column has"
INTERVALS = (
    "95 % intervals one by one, the larger of two t intervals: over seeds, and over seeds and test samples (where predictions "
    "are stored)"
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A difference of arms, in the metric's unit."""

    mean: float
    """NaN without a pair of seeds."""
    low: float
    """Ends of the 95 % interval; NaN for fewer than two pairs."""
    high: float
    significant: bool
    """After the correction over the comparisons, which a table makes in the claim's column alone."""
    good: bool
    """The mean is an improvement."""


NO_EFFECT = Effect(mean=math.nan, low=math.nan, high=math.nan, significant=False, good=False)


def make_effect(found: paired.PairedDifference | joint.JointDifference | None, p_holm: float, metric: str) -> Effect:
    """Return a paired difference of a metric as an effect."""
    if found is None or not found.n:
        return NO_EFFECT
    return Effect(
        mean=found.mean,
        low=found.low,
        high=found.high,
        significant=p_holm < SIGNIFICANT,
        good=(found.mean > 0) == (metric in HIGHER_IS_BETTER) and found.mean != 0,
    )


def compute_limits(effects: Sequence[Effect]) -> tuple[float, float]:
    """Return the limits of an axis: all interval ends and zero, up to `EXTENT`."""
    ends = np.array([[e.mean, e.low, e.high] for e in effects if math.isfinite(e.mean)])
    if not ends.size or not np.nanmax(np.abs(ends)):
        return -1.0, 1.0
    # The median, because a single diverged arm would otherwise determine the axis.
    far = np.nanmax(np.abs(ends), axis=1)
    # A median of zero, where most arms equal the reference, gives no scale; then nothing is cut.
    reach = min(EXTENT * float(np.median(far)) or math.inf, float(far.max()))
    low, high = np.clip([min(np.nanmin(ends), 0.0), max(np.nanmax(ends), 0.0)], -reach, reach)
    # A margin, or markers at the limits would be cut.
    free = 0.06 * (high - low)
    return float(low - free), float(high + free)


def draw_effects(axes: Axes, effects: Sequence[Effect], limits: tuple[float, float]) -> None:
    """Draw one row per effect, from the top, around a line at zero.

    An interval that leaves the axis ends in an arrow. A mean that does is written there as a number.
    """
    axes.axvline(0.0, color="black", linewidth=0.8, zorder=1)
    for row, effect in enumerate(effects):
        if not math.isnan(effect.mean):
            _draw_effect(axes, row, effect, limits)
    axes.set_xlim(*limits)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    # Three ticks, because four panels share the width of a page
    axes.xaxis.set_major_locator(MaxNLocator(3))


def _draw_effect(axes: Axes, row: int, effect: Effect, limits: tuple[float, float]) -> None:
    color = GOOD if effect.good else BAD
    # One pair of seeds has a mean without an interval.
    ends = np.nan_to_num([effect.low, effect.high], nan=effect.mean)
    axes.plot(np.clip(ends, *limits), [row, row], color=color, linewidth=1.1, solid_capstyle="butt")
    if limits[0] < effect.mean < limits[1]:
        face = color if effect.significant else "white"
        axes.scatter(effect.mean, row, s=14, color=face, edgecolors=color, linewidths=0.9, zorder=3)
    else:
        is_low = effect.mean < 0
        axes.annotate(
            f"{effect.mean:+.3g}",
            (limits[0 if is_low else 1], row),
            # Inside the axis, above the interval's line
            xytext=(4 if is_low else -4, 1.5),
            textcoords="offset points",
            ha="left" if is_low else "right",
            va="bottom",
            fontsize=6,
            color=color,
        )
    for is_beyond, limit, arrow in zip((ends[0] < limits[0], ends[1] > limits[1]), limits, "<>", strict=True):
        if is_beyond:
            # Not clipped, because the arrow is centered on the edge of the axes.
            axes.scatter(limit, row, s=12, color=color, marker=arrow, clip_on=False, zorder=3)
