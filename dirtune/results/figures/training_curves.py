"""Figure `training_curves`: a value of the epochs table by epoch, with a line per arm and its spread over seeds."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from dirtune.results.analysis import arms, selection
from dirtune.results.figures import _arms, _bands, _request, _style
from dirtune.results.records import names, store, studies
from dirtune.results.tables.render.cells import format_metric

_ENDS_NOTE = " Some trials of an arm end earlier than others; later means are over those that go on."


@dataclass(frozen=True, kw_only=True)
class TrainingCurves:
    """A band per arm over the epochs, counted from 1."""

    bands: tuple[_bands.Band, ...]
    reference: str | None
    label: str
    caption: str


def build_training_curves(request: _request.PlotRequest) -> TrainingCurves:
    """Read the epochs of the selected trials of every arm.

    Args:
        request: `y` has the value, by default the metric on validation data.

    Raises:
        InputError: a name is unknown, or no epoch is recorded.
    """
    storage = studies.open_study(request.root, request.study)
    info, rule = studies.read_study(storage), selection.get_selection(request.selection)
    epochs = store.read_table(storage, "epochs")
    if not epochs.num_rows:
        raise request.make_error("has no recorded epochs yet")
    name = request.y or f"val/{request.region}/{request.metric or info.metric}"
    names.check_known("value of the epochs", name, sorted(pc.unique(epochs["name"]).to_pylist()))
    values = _read_values(epochs, name)
    runs = arms.read_study_runs(storage, info, rule)
    # Selected before the best arms are, so that arms without the value take no places.
    having = [arm for arm in runs.arms if any(c.trial_id in values for c in arm.chosen.values())]
    if not having:
        raise request.make_error(f"has no complete trial with {name} yet")
    reference = request.reference or info.reference
    shown = _arms.select_arms(having, request.arms, reference=reference, most=_style.MAX_LINES)
    by_name = {arm.arm: arm for arm in having}
    without = len(runs.arms) - len(having)
    bands, have_other_ends = [], False
    for arm in shown.arms:
        curves = [values[chosen.trial_id] for chosen in by_name[arm].chosen.values() if chosen.trial_id in values]
        by_epoch: dict[float, list[float]] = {}
        for curve in curves:
            for epoch, value in curve.items():
                by_epoch.setdefault(epoch, []).append(value)
        bands.append(_bands.make_band(arm, by_epoch))
        have_other_ends |= len({max(curve) for curve in curves}) > 1
    label, parts = name, name.split("/")
    if len(parts) == 3 and parts[0] == "val":
        label = f"validation {format_metric(parts[2], info.unit)}, {parts[1]}"
    return TrainingCurves(
        bands=tuple(bands),
        reference=reference,
        label=label,
        caption=f"{request.study}: {name} after every epoch, mean over seeds ± sd; trials: {rule.description}."
        + (f" Without this value or a complete trial: {without} of {len(runs.arms)} arms." if without else "")
        + (_ENDS_NOTE if have_other_ends else "")
        + shown.note,
    )


def draw_training_curves(data: TrainingCurves) -> Figure:
    """Draw lines with bands."""
    figure = _style.make_figure(_style.COLUMN, 2.2)
    axes = figure.add_subplot()
    _bands.draw_bands(axes, data.bands, data.reference, markers=False)
    # Epochs are whole numbers.
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel(data.label)
    axes.grid()
    _style.finish_figure(figure, data.caption, axes)
    return figure


def _read_values(epochs: pa.Table, name: str) -> dict[str, dict[int, float]]:
    """Return the defined values of a name by trial and epoch."""
    rows = epochs.filter(pc.equal(epochs["name"], name))
    found: dict[str, dict[int, float]] = {}
    columns = (rows[column].to_pylist() for column in ("trial_id", "epoch", "value"))
    for trial_id, epoch, value in zip(*columns, strict=True):
        if value is not None:
            found.setdefault(trial_id, {})[epoch] = value
    return found
