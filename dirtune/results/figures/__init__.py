"""Figures of a study: every one is a file with a data function, which has all the logic, and a draw function, which has none.

    regions              arms per shot region
    heatmap, forest      differences to the reference as a coloured table, with intervals
    critical_difference  mean ranks of the arms
    ablation_path, interactions      parts of arms: the best first, and what two do beyond the sum of each
    pareto               two numbers against each other
    curve                a metric against a setting that was swept
    data_efficiency      a metric against the share of the training data
    error_by_label       the error against the label, before the training labels' density
    training_curves      a value of the epochs per epoch
    tsne, similarity, anchors     the representations: a map, cosine against label distance, from single labels
    history, parallel, importance      a search: trial by trial, setting by setting, what decides

A new figure is a file and a line of `PLOTS`. What all share: `request` (what is asked for), `shown` (which arms there is
room for), `style` (how it looks).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from dirtune.results.figures._request import PlotRequest
from dirtune.results.figures._style import COLORS, FILE_TYPES, PAGE, REFERENCE_COLOR, STYLE
from dirtune.results.figures.ablation_path import ablation_path_data, draw_ablation_path
from dirtune.results.figures.anchors import anchors_data, draw_anchors
from dirtune.results.figures.critical_difference import critical_difference_data, draw_critical_difference
from dirtune.results.figures.curve import curve_of, draw_curve
from dirtune.results.figures.data_efficiency import data_efficiency_data, draw_data_efficiency
from dirtune.results.figures.error_by_label import draw_error_by_label, error_by_label_data
from dirtune.results.figures.forest import draw_forest, forest_data
from dirtune.results.figures.heatmap import draw_heatmap, heatmap_data
from dirtune.results.figures.history import draw_history, history_data
from dirtune.results.figures.importance import draw_importance, importance_data
from dirtune.results.figures.interactions import draw_interactions, interactions_data
from dirtune.results.figures.parallel import draw_parallel, parallel_data
from dirtune.results.figures.pareto import draw_pareto, pareto_data
from dirtune.results.figures.regions import RegionBars, draw_regions, region_bars, region_bars_of
from dirtune.results.figures.similarity import draw_similarity, similarity_data
from dirtune.results.figures.training_curves import draw_training_curves, training_curves_data
from dirtune.results.figures.tsne import draw_tsne, tsne_data
from dirtune.results.tables.table import check_known

__all__ = [
    "COLORS",
    "FILE_TYPES",
    "PAGE",
    "PLOTS",
    "REFERENCE_COLOR",
    "STYLE",
    "Kind",
    "PlotRequest",
    "RegionBars",
    "draw_curve",
    "draw_regions",
    "plot",
    "region_bars",
]

Data = TypeVar("Data")


@dataclass(frozen=True)
class Kind(Generic[Data]):
    """The two halves of a figure."""

    data: Callable[[PlotRequest], Data]
    draw: Callable[[Data], Figure]


PLOTS: dict[str, Kind[Any]] = {
    "regions": Kind(region_bars_of, draw_regions),
    "curve": Kind(curve_of, draw_curve),
    "heatmap": Kind(heatmap_data, draw_heatmap),
    "forest": Kind(forest_data, draw_forest),
    "critical_difference": Kind(critical_difference_data, draw_critical_difference),
    "ablation_path": Kind(ablation_path_data, draw_ablation_path),
    "interactions": Kind(interactions_data, draw_interactions),
    "pareto": Kind(pareto_data, draw_pareto),
    "error_by_label": Kind(error_by_label_data, draw_error_by_label),
    "training_curves": Kind(training_curves_data, draw_training_curves),
    "data_efficiency": Kind(data_efficiency_data, draw_data_efficiency),
    "tsne": Kind(tsne_data, draw_tsne),
    "similarity": Kind(similarity_data, draw_similarity),
    "anchors": Kind(anchors_data, draw_anchors),
    "history": Kind(history_data, draw_history),
    "parallel": Kind(parallel_data, draw_parallel),
    "importance": Kind(importance_data, draw_importance),
}


def plot(
    root: str | Path,
    study: str,
    kind: str,
    *,
    x: str | None = None,
    y: str | None = None,
    output: Path,
    metric: str | None = None,
    region: str = "all",
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    arms: Sequence[str] = (),
    each: str | None = None,
    method: str = "ped_anova",
    relative: bool = False,
) -> Path:
    """Draw a figure of a study into a file, and return its path.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        kind: a name of `PLOTS`.
        x: curve, data_efficiency: the setting on the x axis, such as `terms.conr.omega`; pareto: a region, or
            `region/metric`.
        y: pareto: as x; training_curves: a value of the epochs, such as `train/conr`.
        output: a .png, .pdf or .svg file.
        metric: none: the metric of the study's objective.
        region: of the figures that show one shot region.
        split: test or val.
        selection: a rule of `SELECTIONS`; curve, data_efficiency: best_val or last.
        reference: the arm that others are compared with; none: the study's.
        arms: only these, names or patterns such as `conr*`; none: all that there is room for. ablation_path: the arm at
            its other end; interactions: the arms with both parts.
        each: pareto: arm or trial is a point; critical_difference: seed or region (of every seed) is a block of ranks;
            ablation_path: add or remove is what a step does.
        method: importance: ped_anova or fanova.
        relative: heatmap: differences in percent of the reference.

    Raises:
        InputError: a name is unknown, there is nothing to draw, or a file is damaged.
    """
    check_known("plot", kind, tuple(PLOTS))
    check_known("type of file", output.suffix, FILE_TYPES)
    request = PlotRequest(
        root=root,
        study=study,
        x=x,
        y=y,
        metric=metric,
        region=region,
        split=split,
        selection=selection,
        reference=reference,
        arms=tuple(arms),
        each=each,
        method=method,
        relative=relative,
    )
    with mpl.rc_context(STYLE):
        figure = PLOTS[kind].draw(PLOTS[kind].data(request))
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=300, bbox_inches="tight", pad_inches=0.03)
    return output
