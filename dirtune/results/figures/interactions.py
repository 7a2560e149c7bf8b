"""Figure `interactions`: the effect of two parts together minus the sum of their single effects.

A row needs four trained arms: without the two parts, with each and with both, all else equal. Parts that all four have are
listed below the pair; of several such squares of arms, the one nearest to the reference is shown. A part that another
requires, such as the projection of a contrastive term, has no row with it, because no arm has the term alone.
"""

import itertools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.arms import expand_patterns
from dirtune.results.analysis.parts import Change, Lattice, make_lattice
from dirtune.results.figures import _arms, _effects, _request, _style
from dirtune.results.statistics.paired import PairedDifference, apply_holm, compute_interaction
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.cells import format_metric

TIMES = "\N{MULTIPLICATION SIGN}"
LABEL_CHARACTERS = 26
MAX_SQUARES = _style.MAX_ROWS // 2
"""A row has two lines or more."""
Pair = frozenset[frozenset[Change]]


@dataclass(frozen=True, kw_only=True)
class Square:
    """Four arms that differ in two parts."""

    parts: tuple[str, str]
    given: tuple[str, ...]
    """The parts that all four have."""
    arms: tuple[str, str, str, str]
    """With both, the first, the second, neither."""
    interaction: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Interactions, the largest first."""

    squares: tuple[Square, ...]
    effects: tuple[_effects.Effect, ...]
    """By square."""
    label: str
    caption: str


def build_interactions(request: _request.PlotRequest) -> Interactions:
    """Compute every two-factor interaction of the trained arms, with Student's t interval and Holm's correction.

    Args:
        request: `arms` selects squares by their arm with both parts.

    Raises:
        InputError: an arm is unknown, or no four arms with a common seed form a square; and as `read_composed_arms`.
    """
    found = _arms.read_composed_arms(request)
    values = _arms.get_values(found.table, request.region)
    targets = expand_patterns(request.arms, tuple(found.configs))
    lattices = (make_lattice(found.configs, found.reference, target) for target in targets)
    squares = _select_nearest(pair for arms in lattices for pair in _find_squares(arms, values))
    if not squares:
        raise request.make_error(
            "has no four arms with a common seed: without two parts, with each and with both (`derive: pairs` makes them)"
        )
    # Corrected over all interactions, not only those that are shown.
    corrected = apply_holm({str(row): square.interaction.p for row, square in enumerate(squares)})
    effects = [
        _effects.make_effect(square.interaction, corrected[str(row)], found.table.metric)
        for row, square in enumerate(squares)
    ]
    order = sorted(range(len(squares)), key=lambda row: -abs(squares[row].interaction.mean))
    shown = order[:MAX_SQUARES]
    note = f" The {len(shown)} largest of {len(order)}." if len(shown) < len(order) else ""
    return Interactions(
        squares=tuple(squares[row] for row in shown),
        effects=tuple(effects[row] for row in shown),
        label=f"interaction, {format_metric(found.table.metric, found.table.unit)}, {request.region}",
        caption=f"{_request.format_source(found.table)} Effect of both parts minus the effect of each alone, paired by seed: mean and 95 % "
        f"interval (Student's t); zero where effects add up. Blue: better than the sum, orange: worse; filled: "
        f"p < {SIGNIFICANT:g}, Holm-corrected (interactions: {len(order)}).{note}",
    )


def draw_interactions(data: Interactions) -> Figure:
    """Draw a row per pair of parts, the largest interaction on top."""
    labels = []
    for square in data.squares:
        lines = textwrap.wrap(f" {TIMES} ".join(square.parts), LABEL_CHARACTERS)
        if square.given:
            lines += textwrap.wrap(f"given {' + '.join(square.given)}", LABEL_CHARACTERS)
        labels.append("\n".join(lines))
    height = sum(label.count("\n") + 2 for label in labels)
    figure = _style.make_figure(_style.COLUMN, 0.5 + 0.75 * _style.ROW * height)
    axes = figure.subplots()
    _effects.draw_effects(axes, data.effects, _effects.compute_limits(data.effects))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(data.label)
    _style.finish_figure(figure, data.caption)
    return figure


def _find_squares(arms: Lattice, values: Mapping[str, _arms.Values]) -> Iterator[tuple[Pair, int, Square]]:
    """Find the square of arms of every two parts of the target, with the number of settings that its arms share."""
    for first, second in itertools.combinations(arms.parts, 2):
        # Only below the target itself: squares of smaller arms come from those arms as targets.
        neither = arms.top - {first, second}
        states = (arms.top, neither | {first}, neither | {second}, neither)
        if not all(state in arms.arms for state in states):
            continue
        both, with_first, with_second, without = (arms.arms[state] for state in states)
        interaction = compute_interaction(
            both=values[both], first=values[with_first], second=values[with_second], neither=values[without]
        )
        if interaction.n:
            pair = frozenset({arms.parts[first], arms.parts[second]})
            shared = sum(len(arms.parts[part]) for part in neither)
            given = tuple(arms.sort_parts(neither))
            square = Square(
                parts=(first, second),
                given=given,
                arms=(both, with_first, with_second, without),
                interaction=interaction,
            )
            yield pair, shared, square


def _select_nearest(squares: Iterator[tuple[Pair, int, Square]]) -> list[Square]:
    """Return for every pair of parts the square whose arms share the fewest settings beyond the reference."""
    best: dict[Pair, tuple[int, Square]] = {}
    for pair, shared, square in squares:
        if pair not in best or shared < best[pair][0]:
            best[pair] = (shared, square)
    return [square for _, square in best.values()]
