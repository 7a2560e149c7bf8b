"""Figure `parallel`: parallel coordinates of a search, a line per trial through its settings to its objective.

Axes span the search space, not the values that were tried, so that a search that keeps to one side is seen to; they are
logarithmic where the space is. Complete trials are coloured by their objective, dark is good; pruned ones are grey and
end before the objective, since they never reached one that could be compared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.searches import EndedTrial, searched_arm
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, PAGE, PALE, finish, new_figure
from dirtune.results.tables.render.formats import metric_label

# Its lightness alone tells the order
COLORMAP = "viridis"
# Axes that a column has room for
NARROW = 4
# Characters of a value that the space between two axes has room for
LONGEST_LABEL = 10
# Share of an axis that stays free at each end
INSIDE = 0.03


@dataclass(frozen=True, kw_only=True)
class Coordinate:
    """One axis: where the values of a setting lie between 0 and 1."""

    name: str
    ticks: tuple[tuple[float, str], ...]
    """Place and text."""


@dataclass(frozen=True, kw_only=True)
class Parallel:
    """Trials by coordinates; complete ones from worst to best, so that the best are drawn on top."""

    coordinates: tuple[Coordinate, ...]
    """The last is the objective."""
    complete: tuple[tuple[float, ...], ...]
    """Places by coordinate."""
    pruned: tuple[tuple[float, ...], ...]
    """Without the objective."""
    good_is: float
    """The end of the objective's axis that is good, 0 or 1."""
    caption: str


def parallel_data(request: PlotRequest) -> Parallel:
    """The trials of one searched arm; `arms` names it, by default the one with the most settings.

    Raises:
        InputError: nothing was searched, the arm is unknown, or no trial of it is complete.
    """
    search = searched_arm(request.root, request.study, request.one_arm())
    metric, unit = search.info.metric, search.info.unit
    complete = [trial for trial in search.trials if _is_complete(trial)]
    if not complete:
        raise request.nothing(f"has no complete trial in arm {search.arm} yet")
    objectives = {"low": min(t.objective for t in complete), "high": max(t.objective for t in complete)}
    higher = metric in HIGHER_IS_BETTER
    best_last = sorted(complete, key=lambda trial: trial.objective, reverse=not higher)
    pruned = [trial for trial in search.trials if trial.status == "pruned"]
    missing = len(search.trials) - len(complete) - len(pruned)
    return Parallel(
        coordinates=(
            *(_coordinate(path, knob) for path, knob in search.space.items()),
            Coordinate(name=f"validation\n{metric_label(metric, unit)}", ticks=_ticks(objectives)),
        ),
        complete=tuple((*_places(trial, search.space), place(trial.objective, objectives)) for trial in best_last),
        pruned=tuple(_places(trial, search.space) for trial in pruned),
        good_is=1.0 if higher else 0.0,
        caption=f"{request.study}, arm {search.arm}: complete trials ({len(complete)}), coloured by the validation objective "
        f"({metric}, {search.info.region}; dark is good); grey: {len(pruned)} pruned."
        + (f" Left out: {missing} failed." if missing else "")
        + (f" Other searched arms: {', '.join(search.others)}." if search.others else ""),
    )


def draw_parallel(data: Parallel) -> Figure:
    """A vertical line per coordinate, a polyline per trial."""
    count = len(data.coordinates)
    figure = new_figure(COLUMN if count <= NARROW else PAGE, 2.3)
    axes = figure.add_subplot()
    for places in data.pruned:
        axes.plot(range(count - 1), places, color=PALE, linewidth=0.7, zorder=1)
    colormap = mpl.colormaps[COLORMAP]
    for places in data.complete:
        badness = abs(places[-1] - data.good_is)
        axes.plot(range(count), places, color=colormap(0.92 * badness), linewidth=1.1, zorder=2)
    for position, coordinate in enumerate(data.coordinates):
        _draw_axis(axes, position, coordinate)
    axes.set_xticks(range(count), [coordinate.name for coordinate in data.coordinates])
    axes.tick_params(length=0)
    axes.set_xlim(-0.15, count - 1 + 0.45)
    axes.set_ylim(-INSIDE, 1 + INSIDE)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    finish(figure, data.caption)
    return figure


def place(value: Any, knob: Mapping[str, Any]) -> float:
    """Where a value lies on its axis, 0 at the low end: linear, logarithmic, or by its position among the values."""
    if "values" in knob:
        values = list(knob["values"])
        return values.index(value) / max(len(values) - 1, 1) if value in values else math.nan
    if value is None:
        return math.nan
    low, high, value = float(knob["low"]), float(knob["high"]), float(value)
    if _is_logarithmic(knob):
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.5


def _is_complete(trial: EndedTrial) -> bool:
    return trial.status == "complete" and not math.isnan(trial.objective)


def _is_logarithmic(knob: Mapping[str, Any]) -> bool:
    return knob.get("distribution") == "loguniform" or bool(knob.get("log"))


def _places(trial: EndedTrial, space: Mapping[str, Mapping[str, Any]]) -> tuple[float, ...]:
    return tuple(place(trial.settings[path], knob) for path, knob in space.items())


def _coordinate(path: str, knob: Mapping[str, Any]) -> Coordinate:
    return Coordinate(name="\n".join(path.rsplit(".", 1)), ticks=_ticks(knob))


def _ticks(knob: Mapping[str, Any]) -> tuple[tuple[float, str], ...]:
    """Every listed value; of an interval both ends and the middle."""
    if "values" in knob:
        return tuple((place(value, knob), _text(value)) for value in knob["values"])
    low, high = float(knob["low"]), float(knob["high"])
    middle = math.sqrt(low * high) if _is_logarithmic(knob) else (low + high) / 2
    values: Sequence[float] = np.unique([low, middle, high]).tolist()
    return tuple((place(value, knob), f"{value:.3g}") for value in values)


def _text(value: object) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = "none" if value is None else f"{value:g}" if is_number else str(value)
    return text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"


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
