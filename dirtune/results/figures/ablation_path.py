"""Figure `ablation_path`: the greedy path from the reference to an arm of several parts, or back, best part first.

Every step is selected on *validation* data of one half of the seeds, and its difference shown on test data of the other half:
validation and test errors of one run go together, so a step that was selected by the same runs would look too large. The caption names the arms that were not trained: a greedy path through
half of the arms is not the greedy path. The effect of a part depends on the parts before it; `interactions` shows by how
much.

Source: as `dirtune.results.statistics.greedy`.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from dirtune.results.analysis.parts import Lattice, State, make_lattice
from dirtune.results.analysis.selection import to_loss
from dirtune.results.figures import _arms, _effects, _request, _style
from dirtune.results.records.names import check_known
from dirtune.results.statistics.greedy import find_greedy_path
from dirtune.results.statistics.paired import apply_holm, compare_by_seed, mean
from dirtune.results.tables.marks import SIGNIFICANT
from dirtune.results.tables.render.cells import format_metric

ADD, REMOVE = "add", "remove"
SIGNS = {ADD: "+", REMOVE: "\N{MINUS SIGN}"}
LABEL_CHARACTERS, TITLE_CHARACTERS = 22, 54
MAX_NAMED = 6
"""Untrained arms that a caption has room for."""


@dataclass(frozen=True, kw_only=True)
class PathStage:
    """One arm of the path, and its step."""

    label: str
    """The parts that were added or removed; the name of the arm for the first stage."""
    values: _arms.Values
    """Of the seeds that did not select the path."""
    effect: _effects.Effect
    """Difference to the stage before; `NO_EFFECT` for the first."""


@dataclass(frozen=True, kw_only=True)
class AblationPath:
    """The stages of the path, and their sum."""

    stages: tuple[PathStage, ...]
    whole: _effects.Effect
    """Difference of the last stage to the first."""
    untrained: tuple[str, ...]
    """Arms that would have to be trained for a comparison of all."""
    title: str
    label: str
    caption: str


def build_ablation_path(request: _request.PlotRequest) -> AblationPath:
    """Find the greedy path of parts, with the paired difference and Student's t interval of every step.

    Args:
        request: `arms` has the target, by default the arm with the most parts; `each` is add, for a path from the
            reference to it, or remove, for the path back.

    Raises:
        InputError: `each` or the arm is unknown, the arm has no parts, no arm has two, or no two arms of the path share a
            seed; and as `read_composed_arms`.
    """
    direction = request.choose_each((ADD, REMOVE))
    found = _arms.read_composed_arms(request)
    arms = _find_target(request, found)
    start, end = (State(), arms.top) if direction == ADD else (arms.top, State())
    # Steps are selected on validation data, whichever split is shown.
    validation = found.table if request.split == "val" else replace(request, split="val").build_table()
    recorded = _group_by_state(arms, _arms.get_values(validation, request.region))
    seeds = sorted({seed for values in recorded.values() for seed in values})
    # The smaller half selects the path, the other is shown.
    selecting = seeds[: len(seeds) // 2]
    losses = {
        state: {seed: to_loss(value, validation.metric) for seed, value in values.items() if seed in selecting}
        for state, values in recorded.items()
    }
    steps = find_greedy_path(losses, start, end)
    values = {
        state: {seed: value for seed, value in of_state.items() if seed not in selecting}
        for state, of_state in _group_by_state(arms, _arms.get_values(found.table, request.region)).items()
    }
    differences = [compare_by_seed(values[step.after], values[step.before]) for step in steps]
    if not any(difference.n for difference in differences):
        rule = f"needs two common seeds of arms on the path to {arms.target}: one half selects it, the other is shown"
        raise request.make_error(rule)
    whole = compare_by_seed(values[steps[-1].after], values[start])
    rows = [*differences, whole]
    corrected = apply_holm({str(row): difference.p for row, difference in enumerate(rows)})
    effects = [
        _effects.make_effect(difference, corrected[str(row)], found.table.metric) for row, difference in enumerate(rows)
    ]
    first = PathStage(label=arms.arms[start], values=values[start], effect=_effects.NO_EFFECT)
    later = (
        PathStage(
            label=", ".join(f"{SIGNS[direction]} {part}" for part in arms.sort_parts(step.parts)),
            values=values[step.after],
            effect=effect,
        )
        # `effects` has one more, that of all steps together.
        for step, effect in zip(steps, effects, strict=False)
    )
    # Each once, because several steps may lack the same arm.
    untrained = dict.fromkeys(arms.format_state(state) for step in steps for state in step.untrained)
    path = AblationPath(
        stages=(first, *later),
        whole=effects[-1],
        untrained=tuple(untrained),
        caption="",
        title=f"{request.region}: from {' to '.join(arms.arms[state] for state in (start, end))}",
        label=format_metric(found.table.metric, found.table.unit),
    )
    stop = "" if steps[-1].after == end else f" Stops before {arms.arms[end]}: no common seed."
    return replace(path, caption=_format_caption(found, path, direction, selecting) + stop)


def draw_ablation_path(data: AblationPath) -> Figure:
    """Draw every arm's mean and seeds on the left and the change of every step on the right, from top to bottom."""
    labels = ["\n".join(textwrap.wrap(stage.label, LABEL_CHARACTERS)) for stage in data.stages]
    lines = sum(label.count("\n") + 2 for label in labels)
    # Labels of several parts take several lines.
    figure = _style.make_figure(_style.COLUMN, 0.8 + 0.75 * _style.ROW * lines)
    left, right = figure.subplots(1, 2, sharey=True)
    for row, stage in enumerate(data.stages):
        left.scatter([*stage.values.values()], [row] * len(stage.values), s=8, color=_style.PALE, zorder=2)
    means = [mean(stage.values.values()) for stage in data.stages]
    left.plot(means, range(len(means)), color="black", marker="o", markersize=3.5, linewidth=0.9)
    left.grid(axis="y")
    left.tick_params(axis="y", length=0)
    effects = [*(stage.effect for stage in data.stages), data.whole]
    _effects.draw_effects(right, effects, _effects.compute_limits(effects))
    left.set_yticks(range(len(labels) + 1), [*labels, "all steps"])
    left.set_ylim(len(labels) + 0.5, -0.5)
    left.set_xlabel(data.label)
    right.set_xlabel("change")
    figure.suptitle(textwrap.fill(data.title, TITLE_CHARACTERS), fontsize=8)
    _style.finish_figure(figure, data.caption)
    return figure


def _find_target(request: _request.PlotRequest, found: _arms.ComposedArms) -> Lattice:
    asked = request.get_arm()
    if asked is not None:
        check_known("arm", asked, tuple(found.configs))
        arms = make_lattice(found.configs, found.reference, asked)
        if arms.parts:
            return arms
        raise request.make_error(f"has the same settings in {asked} and {found.reference}")
    known = [make_lattice(found.configs, found.reference, arm) for arm in found.configs]
    # The first of several arms with as many parts, in the order of the study.
    largest = max(known, key=lambda arms: len(arms.parts))
    if len(largest.parts) < 2:
        raise request.make_error("has no arm of two parts of which another arm has one")
    return largest


def _group_by_state(arms: Lattice, values: Mapping[str, _arms.Values]) -> dict[State, _arms.Values]:
    return {state: values[arm] for state, arm in arms.arms.items()}


def _format_caption(found: _arms.ComposedArms, path: AblationPath, direction: str, selecting: list[int]) -> str:
    verb = "adds" if direction == ADD else "removes"
    text = (
        f"{_request.format_source(found.table)} Each step {verb} the part after which the metric is best, selected among the nearest trained "
        f"arms on validation data of seeds {', '.join(map(str, selecting))}; shown are the other seeds. Left: means, and seeds; "
        "right: difference to the arm before, paired by seed, mean and 95 % interval (Student's t over seeds, on these test "
        f"samples). {_effects.COLOR_KEY} p < {SIGNIFICANT:g}, paired t test, Holm-corrected over the {len(path.stages)} rows."
    )
    if not path.untrained:
        return f"{text} All arms that are one part away are trained."
    beyond = len(path.untrained) - MAX_NAMED
    more = f"; and {beyond} more" if beyond > 0 else ""
    return f"{text} Not compared, because not trained: {'; '.join(path.untrained[:MAX_NAMED])}{more}."
