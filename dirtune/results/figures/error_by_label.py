"""Figure `error_by_label`: the absolute error against the label, over a histogram of the training labels.

The classic figure of deep imbalanced regression: errors are large where training labels are rare, and a method should
lower them there without raising them where labels are frequent. Errors come from the stored predictions, the histogram
from the manifest in the study's folder (`dirtune.results.analysis.recompute`). Label bins are merged to at most thirty, so
that bins of rare labels have some samples; a line connects the neighbors of a bin without samples.
"""

import math
from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.errors import Fault, InputError
from dirtune.manifest import LabelSpec
from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.recompute import BinErrors, compute_bin_errors, read_stored_manifest
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures import _arms, _bands, _request, _style
from dirtune.results.records.studies import open_study, read_study

MAX_BINS = 30
NICE = (1, 2, 5)
"""Leading digits of bin widths."""


@dataclass(frozen=True, kw_only=True)
class ErrorByLabel:
    """A band per arm over the centers of the bins, and the number of training samples in each bin."""

    bands: tuple[_bands.Band, ...]
    reference: str | None
    centers: tuple[float, ...]
    """Centers of the bins, in the label's unit."""
    widths: tuple[float, ...]
    """Widths of the bins, in the label's unit."""
    is_logarithmic: bool
    """True if bins are of equal width in the logarithm of the label."""
    train: tuple[int, ...]
    """Number of training samples by bin."""
    x_label: str
    y_label: str
    caption: str


def build_error_by_label(request: _request.PlotRequest) -> ErrorByLabel:
    """Compute the mean absolute error by label bin, averaged over the seeds of every arm.

    Raises:
        InputError: a name is unknown, no predictions or no manifest are there, or labels have several dimensions.
    """
    if request.selection != "best_val":
        rule = "must be best_val: predictions are recorded at the best validation epoch only"
        raise InputError(Fault(where="selection", rule=rule, got=request.selection))
    storage = open_study(request.root, request.study)
    info, label = read_study(storage), read_stored_manifest(storage).label
    runs = read_study_runs(storage, info, SELECTIONS["best_val"])
    reference = request.reference or info.reference
    shown = _arms.select_arms(runs.arms, request.arms, reference=reference, most=_style.MAX_LINES)
    arms = [arm for name in shown.arms for arm in runs.arms if arm.arm == name]
    width = choose_bin_width(label)
    errors = compute_bin_errors(
        request.root,
        request.study,
        split=request.split,
        bin_width=width,
        trials={chosen.trial_id for arm in arms for chosen in arm.chosen.values()},
    )
    if not errors:
        raise request.make_error(f"has no predictions of the {request.split} split yet")
    bins = next(iter(errors.values()))
    bands = []
    for arm in arms:
        by_center: dict[float, list[float]] = {}
        for chosen in arm.chosen.values():
            for one in errors.get(chosen.trial_id, ()):
                if one.n:
                    by_center.setdefault(_get_center(one), []).append(one.absolute)
        bands.append(_bands.make_band(arm.arm, by_center))
    names = [one.label for one in bands if not one.x]
    missing = f" Without predictions: {', '.join(names)}." if names else ""
    unit = _style.format_unit(label.unit)
    transformed = "" if label.transform == "none" else f" in {label.transform}(label)"
    return ErrorByLabel(
        bands=tuple(one for one in bands if one.x),
        reference=reference,
        centers=tuple(_get_center(one) for one in bins),
        widths=tuple(one.high - one.low for one in bins),
        is_logarithmic=label.transform == "log",
        train=tuple(one.train for one in bins),
        x_label=f"{label.name}{unit}",
        y_label=f"absolute error{unit}",
        caption=f"{request.study}, {request.split} split, {SELECTIONS['best_val'].description}. Lines: mean absolute error in "
        f"label bins of width {width:g}{transformed}, mean over seeds ± sd; bars: training samples in the bin; lines connect the "
        f"neighbors of bins without {request.split} samples.{missing}{shown.note}",
    )


def draw_error_by_label(data: ErrorByLabel) -> Figure:
    """Draw lines with bands on the left axis, in front of the histogram on the right one."""
    figure = _style.make_figure(_style.COLUMN, 2.1)
    behind = figure.add_subplot()
    behind.bar(data.centers, data.train, data.widths, color="#E2E2E2")
    if data.is_logarithmic:
        behind.set_xscale("log")
    behind.set_xlabel(data.x_label)
    behind.set_ylabel("training samples", color="#6E6E6E")
    # The error needs the left axis, where readers look first, and must be in front: matplotlib draws twin axes last.
    front = behind.twinx()
    behind.yaxis.tick_right()
    behind.yaxis.set_label_position("right")
    behind.tick_params(axis="y", colors="#6E6E6E")
    front.yaxis.tick_left()
    front.yaxis.set_label_position("left")
    _bands.draw_bands(front, data.bands, data.reference, markers=False)
    front.set_ylabel(data.y_label)
    # From zero, because a cut axis would exaggerate the differences between the arms.
    front.set_ylim(bottom=0)
    behind.spines["right"].set(visible=True, color=_style.PALE)
    _style.finish_figure(figure, data.caption, front)
    return figure


def choose_bin_width(label: LabelSpec) -> float:
    """Return the smallest of 1, 2, 5, 10, 20, ... times the bin width of the data set that gives at most thirty bins."""
    # Multiples of the data set's own bins, so that a merged bin contains whole bins.
    factors = (int(nice * 10**power) for power in range(12) for nice in NICE)
    return next(f for f in factors if math.ceil(label.num_bins / f) <= MAX_BINS) * label.bin_width


def _get_center(one: BinErrors) -> float:
    return (one.low + one.high) / 2
