"""Figure `error_by_label`: the absolute error against the label, before the density of the training labels.

The classic figure of deep imbalanced regression: where training labels are rare, errors are large, and a method is worth
its price if it lowers them there without raising them where labels are frequent. Errors come from the stored predictions,
densities from the manifest in the study's folder (`dirtune.results.analysis.recompute`). Label bins are put together until there
are about thirty, so that rare labels have some samples in each; a bin without samples leaves a gap to its neighbours
that the line bridges.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec
from dirtune.results.analysis.arms import ArmRuns, study_runs
from dirtune.results.analysis.recompute import BinErrors, errors_by_bin, own_manifest
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures._arms import shown_arms
from dirtune.results.figures._bands import Band, band, draw_bands
from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLUMN, MOST_LINES, PALE, finish, new_figure, unit_after
from dirtune.results.records.studies import open_study, read_study

MOST_BINS = 30
NICE = (1, 2, 5)


@dataclass(frozen=True, kw_only=True)
class ErrorByLabel:
    """A band per arm over the centres of the bins, and the training samples in each bin."""

    bands: tuple[Band, ...]
    reference: str | None
    centres: tuple[float, ...]
    """Of the bins, in the label's unit."""
    width: float
    train: tuple[int, ...]
    """Training samples."""
    x_label: str
    y_label: str
    caption: str


def error_by_label_data(request: PlotRequest) -> ErrorByLabel:
    """Mean absolute error per label bin, averaged over the seeds of every arm.

    Raises:
        InputError: a name is unknown, no predictions or no manifest are there, or labels have several dimensions.
    """
    if request.selection != "best_val":
        rule = "must be best_val: predictions are kept at the best validation epoch only"
        raise InputError(Fault(where="selection", rule=rule, got=request.selection))
    storage = open_study(request.root, request.study)
    info, label = read_study(storage), own_manifest(storage).label
    runs = study_runs(storage, info, SELECTIONS["best_val"])
    reference = request.reference or info.reference
    shown = shown_arms(runs.arms, request.arms, reference=reference, most=MOST_LINES)
    arms = [arm for name in shown.arms for arm in runs.arms if arm.arm == name]
    width = bin_width(label)
    errors = errors_by_bin(
        request.root,
        request.study,
        split=request.split,
        bin_width=width,
        trials={chosen.trial_id for arm in arms for chosen in arm.chosen.values()},
    )
    if not errors:
        raise request.nothing(f"has no predictions of the {request.split} split yet")
    bins = next(iter(errors.values()))
    bands = [_band(arm, errors) for arm in arms]
    unit = unit_after(label.unit)
    return ErrorByLabel(
        bands=tuple(one for one in bands if one.x),
        reference=reference,
        centres=tuple(_centre(one) for one in bins),
        width=width,
        train=tuple(one.train for one in bins),
        x_label=f"{label.name}{unit}",
        y_label=f"absolute error{unit}",
        caption=f"{request.study}, {request.split} split, {SELECTIONS['best_val'].description}. Lines: mean absolute error in "
        f"label bins of width {width:g}, mean over seeds ± sd; bars: training samples in the bin; bins without "
        f"{request.split} samples are bridged.{_without(bands)}{shown.note}",
    )


def draw_error_by_label(data: ErrorByLabel) -> Figure:
    """Lines with bands on the left axis before the histogram on the right one."""
    figure = new_figure(COLUMN, 2.1)
    behind = figure.add_subplot()
    behind.bar(data.centres, data.train, data.width, color="#E2E2E2")
    behind.set_xlabel(data.x_label)
    behind.set_ylabel("training samples", color="#6E6E6E")
    front = behind.twinx()
    behind.yaxis.tick_right()
    behind.yaxis.set_label_position("right")
    behind.tick_params(axis="y", colors="#6E6E6E")
    front.yaxis.tick_left()
    front.yaxis.set_label_position("left")
    draw_bands(front, data.bands, data.reference, markers=False)
    front.set_ylabel(data.y_label)
    front.set_ylim(bottom=0)
    behind.spines["right"].set(visible=True, color=PALE)
    finish(figure, data.caption, front)
    return figure


def bin_width(label: LabelSpec) -> float:
    """The smallest of 1, 2, 5, 10, 20, ... times the data set's own width that leaves at most thirty bins."""
    factors = (int(nice * 10**power) for power in range(12) for nice in NICE)
    return next(f for f in factors if math.ceil(label.num_bins / f) <= MOST_BINS) * label.bin_width


def _band(arm: ArmRuns, errors: Mapping[str, Sequence[BinErrors]]) -> Band:
    by_label: dict[float, list[float]] = {}
    for chosen in arm.chosen.values():
        for one in errors.get(chosen.trial_id, ()):
            if one.n:
                by_label.setdefault(_centre(one), []).append(one.absolute)
    return band(arm.arm, by_label)


def _centre(one: BinErrors) -> float:
    return (one.low + one.high) / 2


def _without(bands: Sequence[Band]) -> str:
    names = [one.label for one in bands if not one.x]
    return f" Without predictions: {', '.join(names)}." if names else ""
