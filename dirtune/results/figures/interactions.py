"""Figure `interactions`: what two parts do together beyond the sum of what each does alone.

Four trained arms make a row: without the two parts, with each, with both, and all else equal. What else they all have is said
below the pair; of several such squares of arms the one nearest to the reference is shown. A part that another needs, such as
the projection under a contrastive term, has no row with it: there is no arm with the term alone.
"""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.parts import Change, Lattice, lattice
from dirtune.results.figures._arms import asked_arms
from dirtune.results.figures._effects import Effect, draw_effects, effect_of, limits_of
from dirtune.results.figures._parts import Values, composed, values_of
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import COLUMN, MOST_ROWS, ROW, finish, new_figure
from dirtune.results.statistics.interactions import interaction
from dirtune.results.statistics.paired import PairedDifference, holm
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.formats import metric_label

TIMES = "\N{MULTIPLICATION SIGN}"
LABEL_CHARACTERS = 26
# Each takes two lines or more
MOST_SQUARES = MOST_ROWS // 2
Pair = frozenset[frozenset[Change]]


@dataclass(frozen=True, kw_only=True)
class Square:
    """Four arms that differ in two parts."""

    parts: tuple[str, str]
    given: tuple[str, ...]
    """The parts that all four have."""
    arms: tuple[str, str, str, str]
    """With both, the first, the second, neither."""
    found: PairedDifference


@dataclass(frozen=True, kw_only=True)
class Interactions:
    """Interactions, the largest first."""

    squares: tuple[Square, ...]
    effects: tuple[Effect, ...]
    """Of the squares."""
    label: str
    caption: str


def interactions_data(request: PlotRequest) -> Interactions:
    """Every two-factor interaction that the trained arms can tell, with Student's t interval and Holm's correction.

    Args:
        request: `arms` narrows to squares whose arm with both parts is one of them.

    Raises:
        InputError: an arm is unknown, or no four arms with a seed in common differ in two parts alone; and as `composed`.
    """
    found = composed(request)
    values = values_of(found.table, request.region)
    targets = asked_arms(request.arms, tuple(found.configs))
    lattices = (lattice(found.configs, found.reference, target) for target in targets)
    squares = _nearest(pair for arms in lattices for pair in _squares(arms, values))
    if not squares:
        raise request.nothing(
            "has no four arms with a seed in common that are without two parts, with each and with both (`derive: pairs` makes them)"
        )
    corrected = holm({str(row): square.found.p for row, square in enumerate(squares)})
    effects = [effect_of(square.found, corrected[str(row)], found.table.metric) for row, square in enumerate(squares)]
    order = sorted(range(len(squares)), key=lambda row: -abs(squares[row].found.mean))
    shown = order[:MOST_SQUARES]
    note = f" The {len(shown)} largest of {len(order)}." if len(shown) < len(order) else ""
    return Interactions(
        squares=tuple(squares[row] for row in shown),
        effects=tuple(effects[row] for row in shown),
        label=f"interaction, {metric_label(found.table.metric, found.table.unit)}, {request.region}",
        caption=f"{source_of(found.table)} Effect of both parts minus the effect of each alone, paired by seed: mean and 95 % "
        f"interval (Student's t); zero where effects add up. Blue: better than the sum, orange: worse; filled: "
        f"p < {SIGNIFICANT:g}, Holm-corrected (interactions: {len(order)}).{note}",
    )


def draw_interactions(data: Interactions) -> Figure:
    """A line per pair of parts, the largest interaction on top."""
    labels = [_label(square) for square in data.squares]
    lines = sum(label.count("\n") + 2 for label in labels)
    figure = new_figure(COLUMN, 0.5 + 0.75 * ROW * lines)
    axes = figure.subplots()
    draw_effects(axes, data.effects, limits_of(data.effects))
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(data.label)
    finish(figure, data.caption)
    return figure


def _squares(arms: Lattice, values: Mapping[str, Values]) -> Iterator[tuple[Pair, int, Square]]:
    """Of every two parts of the target the square of arms under it, and how many settings its arms share."""
    for first, second in itertools.combinations(arms.parts, 2):
        neither = arms.top - {first, second}
        states = (arms.top, neither | {first}, neither | {second}, neither)
        if not all(state in arms.arms for state in states):
            continue
        both, with_first, with_second, without = (arms.arms[state] for state in states)
        found = interaction(
            both=values[both], first=values[with_first], second=values[with_second], neither=values[without]
        )
        if found.n:
            pair = frozenset({arms.parts[first], arms.parts[second]})
            shared = sum(len(arms.parts[part]) for part in neither)
            given = tuple(arms.ordered(neither))
            square = Square(
                parts=(first, second), given=given, arms=(both, with_first, with_second, without), found=found
            )
            yield pair, shared, square


def _nearest(found: Iterator[tuple[Pair, int, Square]]) -> list[Square]:
    """Of every pair of parts the square whose arms share the fewest settings beyond the reference's."""
    best: dict[Pair, tuple[int, Square]] = {}
    for pair, shared, square in found:
        if pair not in best or shared < best[pair][0]:
            best[pair] = (shared, square)
    return [square for _, square in best.values()]


def _label(square: Square) -> str:
    lines = textwrap.wrap(f" {TIMES} ".join(square.parts), LABEL_CHARACTERS)
    if square.given:
        lines += textwrap.wrap(f"given {' + '.join(square.given)}", LABEL_CHARACTERS)
    return "\n".join(lines)
