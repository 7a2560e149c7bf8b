"""Reliability of prediction intervals: the share of test labels within them against the level that they are to have.

Intervals are split-conformal, calibrated on the validation split (`dirtune.results.analysis.conformal`): of one width, or
proportional to the predicted deviation of an arm that predicts one. Over all labels the lines lie near the diagonal; in a region of
rare labels, one width for all covers fewer of them.
"""

from dataclasses import dataclass

from matplotlib.figure import Figure

from dirtune.results.analysis.arms import read_study_runs
from dirtune.results.analysis.conformal import compute_coverages
from dirtune.results.analysis.selection import SELECTIONS
from dirtune.results.figures import _arms, _bands, _request, _style
from dirtune.results.records.studies import open_study, read_study

LEVELS = tuple(step / 20 for step in range(1, 20))


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Lines of the arms, mean over seeds by level."""

    bands: tuple[_bands.Band, ...]
    reference: str | None
    y_label: str
    caption: str


def build_reliability(request: _request.PlotRequest) -> Reliability:
    """Compute the coverage by level of every arm.

    Raises:
        InputError: a name is unknown, no predictions are there, or labels have several dimensions.
    """
    storage = open_study(request.root, request.study)
    info = read_study(storage)
    runs = read_study_runs(storage, info, SELECTIONS["best_val"])
    reference = request.reference or info.reference
    shown = _arms.select_arms(runs.arms, request.arms, reference=reference, most=_style.MAX_LINES)
    found = compute_coverages(request.root, request.study, levels=LEVELS, region=request.region, arms=shown.arms)
    bands = [_bands.make_band(arm, found[arm]) for arm in shown.arms]
    if not any(band.x for band in bands):
        raise request.make_error("has no predictions to compute intervals from yet")
    return Reliability(
        bands=tuple(band for band in bands if band.x),
        reference=reference,
        y_label=f"coverage, {request.region}",
        caption=f"{request.study}, test split, labels of region {request.region}. Lines: share of the labels within split-conformal "
        f"intervals calibrated on the validation split, mean over seeds ± sd; gray: equal to the level. Intervals are proportional to the "
        f"predicted deviation where an arm predicts one, else of one width.{shown.note}",
    )


def draw_reliability(data: Reliability) -> Figure:
    """Draw a line per arm and the diagonal."""
    figure = _style.make_figure(_style.COLUMN, 2.1)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=_style.PALE, linewidth=1.0)
    _bands.draw_bands(axes, data.bands, data.reference, markers=False)
    axes.set_xlabel("level")
    axes.set_ylabel(data.y_label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    _style.finish_figure(figure, data.caption, axes)
    return figure
