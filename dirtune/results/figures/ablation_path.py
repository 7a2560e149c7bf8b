"""Figure `ablation_path`: from the reference to an arm of several parts, or back, by the best part first.

At every step the arms that are one part away and were trained are compared on *validation* data, so that the differences
shown of the test split were not picked by themselves. Which arms could not be compared, because nobody trained them, is
said: a greedy path through half of the arms is not the greedy path. The order depends on the path, which is the point and
the limit of it: a part that helps late may have helped more at first. `interactions` shows by how much.

Source: as `dirtune.results.statistics.greedy`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dirtune.results.analysis.parts import Lattice, State, lattice
from dirtune.results.analysis.selection import as_loss
from dirtune.results.figures._effects import COLORS_SAY, NO_EFFECT, Effect, draw_effects, effect_of, limits_of
from dirtune.results.figures._parts import Composed, Values, composed, values_of
from dirtune.results.figures._request import PlotRequest, source_of
from dirtune.results.figures._style import COLUMN, PALE, ROW, finish, new_figure
from dirtune.results.statistics.greedy import Step, greedy_path
from dirtune.results.statistics.paired import PairedDifference, holm, mean, paired_difference
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import check_known

ADD, REMOVE = "add", "remove"
SIGNS = {ADD: "+", REMOVE: "\N{MINUS SIGN}"}
LABEL_CHARACTERS, TITLE_CHARACTERS = 22, 54
# Arms to be trained that a caption has room for
MOST_NAMED = 6


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One arm of the path, and how it came there."""

    label: str
    """What was added or removed; of the first, the arm."""
    values: Values
    effect: Effect
    """Against the stage before; none for the first."""


@dataclass(frozen=True, kw_only=True)
class AblationPath:
    """The path from its first arm."""

    stages: tuple[Stage, ...]
    whole: Effect
    """The last stage against the first."""
    untrained: tuple[str, ...]
    """Arms that would have to be trained for a full comparison."""
    title: str
    label: str
    caption: str


def ablation_path_data(request: PlotRequest) -> AblationPath:
    """The greedy path of parts, with each step's paired difference and Student t interval.

    Args:
        request: `arms` has the target, by default the arm of most parts; `each` is add (from the reference to it) or remove
            (from it to the reference).

    Raises:
        InputError: `each` or the arm is unknown, the arm has no parts or none has two, or no arm on the way has a seed in
            common with the first; and as `composed`.
    """
    direction = request.one_of((ADD, REMOVE))
    found = composed(request)
    arms = _target(request, found)
    start, end = (State(), arms.top) if direction == ADD else (arms.top, State())
    steps = greedy_path(_validation_losses(request, found, arms), start, end)
    values = _by_state(arms, values_of(found.table, request.region))
    differences = [paired_difference(values[step.after], values[step.before]) for step in steps]
    if not any(difference.n for difference in differences):
        raise request.nothing(f"has no two arms on the way to {arms.target} with a seed in common")
    whole = paired_difference(values[steps[-1].after], values[start])
    effects = _effects([*differences, whole], found.table.metric)
    first = Stage(label=_arm(arms, start), values=values[start], effect=NO_EFFECT)
    later = (
        Stage(label=_label(step, arms, direction), values=values[step.after], effect=effect)
        for step, effect in zip(steps, effects, strict=False)
    )
    untrained = dict.fromkeys(arms.named(state) for step in steps for state in step.untrained)
    path = AblationPath(
        stages=(first, *later),
        whole=effects[-1],
        untrained=tuple(untrained),
        caption="",
        title=f"{request.region}: from {' to '.join(_arm(arms, state) for state in (start, end))}",
        label=metric_label(found.table.metric, found.table.unit),
    )
    stop = "" if steps[-1].after == end else f" Stops before {_arm(arms, end)}: no seed in common."
    return replace(path, caption=_caption(request, found, path, direction) + stop)


def draw_ablation_path(data: AblationPath) -> Figure:
    """Left every arm's mean and seeds, right what each step changed; the steps from the top."""
    labels = ["\n".join(textwrap.wrap(stage.label, LABEL_CHARACTERS)) for stage in data.stages]
    lines = sum(label.count("\n") + 2 for label in labels)
    figure = new_figure(COLUMN, 0.8 + 0.75 * ROW * lines)
    left, right = figure.subplots(1, 2, sharey=True)
    _draw_levels(left, [stage.values for stage in data.stages])
    effects = [*(stage.effect for stage in data.stages), data.whole]
    draw_effects(right, effects, limits_of(effects))
    left.set_yticks(range(len(labels) + 1), [*labels, "all steps"])
    left.set_ylim(len(labels) + 0.5, -0.5)
    left.set_xlabel(data.label)
    right.set_xlabel("change")
    figure.suptitle(textwrap.fill(data.title, TITLE_CHARACTERS), fontsize=8)
    finish(figure, data.caption)
    return figure


def _target(request: PlotRequest, found: Composed) -> Lattice:
    asked = request.one_arm()
    if asked is not None:
        check_known("arm", asked, tuple(found.configs))
        arms = lattice(found.configs, found.reference, asked)
        if arms.parts:
            return arms
        raise request.nothing(f"trains {asked} with the settings of {found.reference}")
    known = [lattice(found.configs, found.reference, arm) for arm in found.configs]
    largest = max(known, key=lambda arms: len(arms.parts))
    if len(largest.parts) < 2:
        raise request.nothing("has no arm of two parts of which another arm has one")
    return largest


def _validation_losses(request: PlotRequest, found: Composed, arms: Lattice) -> dict[State, dict[int, float]]:
    table = found.table if request.split == "val" else replace(request, split="val").table()
    by_state = _by_state(arms, values_of(table, request.region))
    return {
        state: {seed: as_loss(value, table.metric) for seed, value in values.items()}
        for state, values in by_state.items()
    }


def _by_state(arms: Lattice, values: Mapping[str, Values]) -> dict[State, Values]:
    return {state: values[arm] for state, arm in arms.arms.items()}


def _effects(differences: Sequence[PairedDifference], metric: str) -> list[Effect]:
    corrected = holm({str(row): found.p for row, found in enumerate(differences)})
    return [effect_of(found, corrected[str(row)], metric) for row, found in enumerate(differences)]


def _label(step: Step, arms: Lattice, direction: str) -> str:
    return ", ".join(f"{SIGNS[direction]} {part}" for part in arms.ordered(step.parts))


def _arm(arms: Lattice, state: State) -> str:
    return arms.arms[state]


def _caption(request: PlotRequest, found: Composed, path: AblationPath, direction: str) -> str:
    same = "the same numbers, which flatters the intervals" if request.split == "val" else "validation data"
    verb = "adds" if direction == ADD else "removes"
    text = (
        f"{source_of(found.table)} Each step {verb} a part: that after which the metric is best, chosen on {same}, of the nearest arms that were "
        "trained. Left: means, and seeds; right: difference to the arm before, paired by seed, mean and 95 % interval "
        f"(Student's t). {COLORS_SAY} p < {SIGNIFICANT:g}, paired t test, Holm-corrected over the {len(path.stages)} rows."
    )
    if not path.untrained:
        return f"{text} Every arm that is one part away was trained."
    beyond = len(path.untrained) - MOST_NAMED
    more = f"; and {beyond} more" if beyond > 0 else ""
    return f"{text} Not compared, because not trained: {'; '.join(path.untrained[:MOST_NAMED])}{more}."


def _draw_levels(axes: Axes, values: Sequence[Values]) -> None:
    for row, by_seed in enumerate(values):
        axes.scatter([*by_seed.values()], [row] * len(by_seed), s=8, color=PALE, zorder=2)
    means = [mean(by_seed.values()) for by_seed in values]
    axes.plot(means, range(len(values)), color="black", marker="o", markersize=3.5, linewidth=0.9)
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
