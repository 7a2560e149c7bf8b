"""Figure `training_curves`: a value of the epochs table per epoch, a line per arm with its spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis.arms import ArmRuns, study_runs
from dirtune.results.analysis.selection import selection_named
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._bands import Band, band, draw_bands
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, MOST_LINES, finish, new_figure
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.tables.render.formats import metric_label
from dirtune.results.tables.table import check_known


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """A band per arm over the epochs, counted from 1."""

    bands: tuple[Band, ...]
    reference: str | None
    label: str
    caption: str


def training_curves_data(request: PlotRequest) -> TrainingCurves:
    """The epochs of the trials that stand for each arm; `y` names the value, by default the metric on validation data.

    Raises:
        InputError: a name is unknown, or no epoch is recorded.
    """
    storage = open_study(request.root, request.study)
    info, rule = read_study(storage), selection_named(request.selection)
    epochs = read_table(storage, "epochs")
    if not epochs.num_rows:
        raise request.nothing("has no recorded epochs yet")
    name = request.y or f"val/{request.region}/{request.metric or info.metric}"
    check_known("value of the epochs", name, sorted(pc.unique(epochs["name"]).to_pylist()))
    values = _values(epochs, name)
    runs = study_runs(storage, info, rule)
    having = [arm for arm in runs.arms if any(c.trial_id in values for c in arm.chosen.values())]
    if not having:
        raise request.nothing(f"has no complete trial with {name} yet")
    reference = request.reference or info.reference
    shown = shown_arms(having, request.arms, reference=reference, most=MOST_LINES)
    without = len(runs.arms) - len(having)
    return TrainingCurves(
        bands=tuple(_band(arm, values) for arm in _in_order(having, shown.arms)),
        reference=reference,
        label=_label(name, info),
        caption=f"{request.study}: {name} after every epoch, mean over seeds ± sd; trials: {rule.description}."
        + (f" Without this value or a complete trial: {without} of {len(runs.arms)} arms." if without else "")
        + shown.note,
    )


def draw_training_curves(data: TrainingCurves) -> Figure:
    """Lines with bands."""
    figure = new_figure(COLUMN, 2.2)
    axes = figure.add_subplot()
    draw_bands(axes, data.bands, data.reference, markers=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(data.label)
    axes.grid()
    finish(figure, data.caption, axes)
    return figure


def _values(epochs: pa.Table, name: str) -> dict[str, dict[int, float]]:
    """By trial and epoch; what is undefined is left out."""
    rows = epochs.filter(pc.equal(epochs["name"], name))
    found: dict[str, dict[int, float]] = {}
    columns = (rows[column].to_pylist() for column in ("trial_id", "epoch", "value"))
    for trial_id, epoch, value in zip(*columns, strict=True):
        if value is not None:
            found.setdefault(trial_id, {})[epoch] = value
    return found


def _band(arm: ArmRuns, values: Mapping[str, Mapping[int, float]]) -> Band:
    by_epoch: dict[float, list[float]] = {}
    for chosen in arm.chosen.values():
        for epoch, value in values.get(chosen.trial_id, {}).items():
            by_epoch.setdefault(epoch, []).append(value)
    return band(arm.arm, by_epoch)


def _in_order(arms: list[ArmRuns], names: tuple[str, ...]) -> list[ArmRuns]:
    by_name = {arm.arm: arm for arm in arms}
    return [by_name[name] for name in names]


def _label(name: str, info: StudyInfo) -> str:
    """`val/few/mae` as papers print it; other values by their name."""
    parts = name.split("/")
    if len(parts) != 3 or parts[0] != "val":
        return name
    return f"validation {metric_label(parts[2], info.unit)}, {parts[1]}"
