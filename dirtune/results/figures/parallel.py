"""Figure `parallel`: parallel coordinates of a search, with a line per trial through its settings to its objective.

Axes span the search space, not the sampled values, so that a search that samples only a part of it is visible; they are
logarithmic where the space is. Complete trials are colored by their objective, dark is good. Pruned trials are gray and end
before the objective, because theirs is not comparable.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.searches import EndedTrial, read_search_history
from dirtune.results.figures import _request, _style
from dirtune.results.tables.render.cells import format_metric

COLORMAP = "viridis"
"""Its order is visible by lightness alone."""
MAX_COLUMN_AXES = 4
"""Axes that the width of a column has room for."""
MAX_LABEL_CHARACTERS = 10
"""Characters that fit between two axes."""
MARGIN = 0.03
"""Free share of an axis at each end."""


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One axis, from 0 to 1, of a setting or of the objective."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    """Positions and texts."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Trials as positions on the axes."""

    coordinates: tuple[Coordinate, ...]
    """The last is the objective."""
    complete: tuple[tuple[float, ...], ...]
    """Positions by coordinate, from the worst to the best trial, so that the best are drawn on top."""
    pruned: tuple[tuple[float, ...], ...]
    """As `complete`, without the objective."""
    good_end: float
    """The better end of the objective's axis, 0 or 1."""
    caption: str


def build_parallel(request: _request.PlotRequest) -> Parallel:
    """Read the trials of one searched arm.

    Args:
        request: `arms` has the arm, by default the one with the most settings.

    Raises:
        InputError: no arm was searched, the arm is unknown, or it has no complete trial.
    """
    search = read_search_history(request.root, request.study, request.get_arm())
    metric, unit = search.info.metric, search.info.unit
    complete = [t for t in search.trials if t.status == "complete" and not math.isnan(t.objective)]
    if not complete:
        raise request.make_error(f"has no complete trial in arm {search.arm} yet")
    objectives = {"low": min(t.objective for t in complete), "high": max(t.objective for t in complete)}
    higher = metric in HIGHER_IS_BETTER
    best_last = sorted(complete, key=lambda trial: trial.objective, reverse=not higher)
    pruned = [trial for trial in search.trials if trial.status == "pruned"]
    missing = len(search.trials) - len(complete) - len(pruned)
    return Parallel(
        coordinates=(
            *(
                Coordinate(name="\n".join(path.rsplit(".", 1)), ticks=_make_ticks(knob))
                for path, knob in search.space.items()
            ),
            Coordinate(name=f"validation\n{format_metric(metric, unit)}", ticks=_make_ticks(objectives)),
        ),
        complete=tuple(
            (*_compute_positions(trial, search.space), compute_position(trial.objective, objectives))
            for trial in best_last
        ),
        pruned=tuple(_compute_positions(trial, search.space) for trial in pruned),
        good_end=1.0 if higher else 0.0,
        caption=f"{request.study}, arm {search.arm}: complete trials ({len(complete)}), colored by the validation objective "
        f"({metric}, {search.info.region}; dark is good); gray: {len(pruned)} pruned."
        + (f" Left out: {missing} failed." if missing else "")
        + (f" Other searched arms: {', '.join(search.others)}." if search.others else ""),
    )


def draw_parallel(data: Parallel) -> Figure:
    """Draw a vertical line per coordinate and a polyline per trial."""
    count = len(data.coordinates)
    figure = _style.make_figure(_style.COLUMN if count <= MAX_COLUMN_AXES else _style.PAGE, 2.3)
    axes = figure.add_subplot()
    # Pruned trials first, so that they are behind the complete ones.
    for positions in data.pruned:
        axes.plot(range(count - 1), positions, color=_style.PALE, linewidth=0.7, zorder=1)
    colormap = mpl.colormaps[COLORMAP]
    for positions in data.complete:
        # Up to 0.92, because the light end of the color map is hard to see on white.
        badness = abs(positions[-1] - data.good_end)
        axes.plot(range(count), positions, color=colormap(0.92 * badness), linewidth=1.1, zorder=2)
    for position, coordinate in enumerate(data.coordinates):
        _draw_axis(axes, position, coordinate)
    axes.set_xticks(range(count), [coordinate.name for coordinate in data.coordinates])
    axes.tick_params(length=0)
    axes.set_xlim(-0.15, count - 1 + 0.45)
    axes.set_ylim(-MARGIN, 1 + MARGIN)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    _style.finish_figure(figure, data.caption)
    return figure


def compute_position(value: Any, knob: Mapping[str, Any]) -> float:
    """Return the position of a value on its axis in [0, 1]: linear, logarithmic, or by its index among listed values."""
    if "values" in knob:
        # A study that was changed may no longer list the value of an earlier trial.
        values = list(knob["values"])
        return values.index(value) / max(len(values) - 1, 1) if value in values else math.nan
    if value is None:
        return math.nan
    low, high, value = float(knob["low"]), float(knob["high"]), float(value)
    if _is_logarithmic(knob):
        low, high, value = math.log(low), math.log(high), math.log(value)
    # A space of a single value has no length to divide by.
    return (value - low) / (high - low) if high > low else 0.5


def _is_logarithmic(knob: Mapping[str, Any]) -> bool:
    return knob.get("distribution") == "loguniform" or bool(knob.get("log"))


def _compute_positions(trial: EndedTrial, space: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(compute_position(trial.settings[path], knob) for path, knob in space.items())


def _make_ticks(knob: Mapping[str, Any]) -> tuple[tuple[float, str], ...]:
    """Return a tick at every listed value, or at both ends and the middle of an interval."""
    if "values" in knob:
        return tuple((compute_position(value, knob), _format_value(value)) for value in knob["values"])
    low, high = float(knob["low"]), float(knob["high"])
    # The middle of a logarithmic axis is the geometric mean of its ends.
    middle = math.sqrt(low * high) if _is_logarithmic(knob) else (low + high) / 2
    values: Sequence[float] = np.unique([low, middle, high]).tolist()
    return tuple((compute_position(value, knob), f"{value:.3g}") for value in values)


def _format_value(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "none" if value is None else f"{value:g}" if is_number else str(value)
    return text if len(text) <= MAX_LABEL_CHARACTERS else text[: MAX_LABEL_CHARACTERS - 1] + "…"


def _draw_axis(axes: Axes, position: int, coordinate: Coordinate) -> None:
    axes.plot([position, position], [0, 1], color="black", linewidth=0.8, zorder=3)
    for height, text in coordinate.ticks:
        axes.plot([position, position + 0.03], [height] * 2, color="black", linewidth=0.8, zorder=3)
        axes.text(
            position + 0.05,
            height,
            text,
            va="center",
            zorder=4,
            bbox={"facecolor": "white", "alpha": 0.75, "linewidth": 0, "pad": 0.6},
        )
