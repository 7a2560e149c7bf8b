"""Figures of a study. Every figure is a file with a build function, which has all logic, and a draw function, which has none.

    regions                       arms by shot region
    heatmap, forest               differences to the reference, as a colored table and with intervals
    critical_difference           mean ranks of the arms
    ablation_path, interactions   parts of arms: the greedy path, and effects of pairs beyond their sum
    pareto                        two quantities against each other
    curve                         a metric against a setting
    data_efficiency               a metric against the share of the training data
    error_by_label                the error against the label, over the histogram of the training labels
    reliability                   coverage of prediction intervals against their level
    training_curves               a value of the epochs table by epoch
    tsne, similarity, anchors     representations: embedding, cosine against label distance, from single labels
    history, parallel, importance a search: by trial, by setting, importance of the settings

A new figure is a file and an entry of `FIGURES`. Common to all: `_request` (options), `_arms` (selection of arms),
`_style` (appearance), `_bands` and `_effects` (elements).
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import matplotlib as mpl
from matplotlib.figure import Figure

from dirtune import part_errors
from dirtune.errors import Fault, InputError
from dirtune.plugins import load_entry_points, load_files
from dirtune.registry import Registry
from dirtune.results.figures._plugins import load_figures
from dirtune.results.figures._request import PlotRequest, TrackedRequest
from dirtune.results.figures._style import COLORS, FILE_TYPES, PAGE, REFERENCE_COLOR, STYLE, show_names_literally
from dirtune.results.figures._writing import check_drawable, write_figure
from dirtune.results.figures.ablation_path import build_ablation_path, draw_ablation_path
from dirtune.results.figures.anchors import build_anchors, draw_anchors
from dirtune.results.figures.critical_difference import build_critical_difference, draw_critical_difference
from dirtune.results.figures.curve import build_curve, draw_curve
from dirtune.results.figures.data_efficiency import build_data_efficiency, draw_data_efficiency
from dirtune.results.figures.error_by_label import build_error_by_label, draw_error_by_label
from dirtune.results.figures.forest import build_forest, draw_forest
from dirtune.results.figures.heatmap import build_heatmap, draw_heatmap
from dirtune.results.figures.history import build_history, draw_history
from dirtune.results.figures.importance import build_importance, draw_importance
from dirtune.results.figures.interactions import build_interactions, draw_interactions
from dirtune.results.figures.parallel import build_parallel, draw_parallel
from dirtune.results.figures.pareto import build_pareto, draw_pareto
from dirtune.results.figures.regions import RegionBars, build_regions, draw_regions
from dirtune.results.figures.reliability import build_reliability, draw_reliability
from dirtune.results.figures.similarity import build_similarity, draw_similarity
from dirtune.results.figures.training_curves import build_training_curves, draw_training_curves
from dirtune.results.figures.tsne import build_tsne, draw_tsne
from dirtune.results.records.names import check_known
from dirtune.results.records.store import read_once
from dirtune.results.records.studies import open_study
from dirtune.signatures import describe_value

__all__ = [
    "COLORS",
    "FIGURES",
    "FILE_TYPES",
    "PAGE",
    "REFERENCE_COLOR",
    "STYLE",
    "FigureKind",
    "PlotRequest",
    "RegionBars",
    "build_regions",
    "check_drawable",
    "draw_curve",
    "draw_regions",
    "plot",
    "show_names_literally",
    "write_figure",
]

Data = TypeVar("Data")


@dataclass(frozen=True)
class FigureKind(Generic[Data]):
    """The two functions of a figure."""

    build: Callable[[PlotRequest], Data]
    draw: Callable[[Data], Figure]


FIGURES: Registry[FigureKind[Any]] = Registry(
    "figure",
    {
        "regions": FigureKind(build_regions, draw_regions),
        "curve": FigureKind(build_curve, draw_curve),
        "heatmap": FigureKind(build_heatmap, draw_heatmap),
        "forest": FigureKind(build_forest, draw_forest),
        "critical_difference": FigureKind(build_critical_difference, draw_critical_difference),
        "ablation_path": FigureKind(build_ablation_path, draw_ablation_path),
        "interactions": FigureKind(build_interactions, draw_interactions),
        "pareto": FigureKind(build_pareto, draw_pareto),
        "error_by_label": FigureKind(build_error_by_label, draw_error_by_label),
        "reliability": FigureKind(build_reliability, draw_reliability),
        "training_curves": FigureKind(build_training_curves, draw_training_curves),
        "data_efficiency": FigureKind(build_data_efficiency, draw_data_efficiency),
        "tsne": FigureKind(build_tsne, draw_tsne),
        "similarity": FigureKind(build_similarity, draw_similarity),
        "anchors": FigureKind(build_anchors, draw_anchors),
        "history": FigureKind(build_history, draw_history),
        "parallel": FigureKind(build_parallel, draw_parallel),
        "importance": FigureKind(build_importance, draw_importance),
    },
)


@read_once()
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
    plugins: Sequence[str | Path] = (),
    allow_plugins: bool = False,
) -> Path:
    """Draw a figure of a study into a file, and return its path.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        kind: a name of `FIGURES`.
        x: curve, data_efficiency: setting of the x axis, such as `terms.conr.omega`; pareto: a region, or
            `region/metric`.
        y: pareto: as x; training_curves: a name of the epochs table, such as `train/conr`.
        output: a .png, .pdf or .svg file.
        metric: None means the metric of the study's objective.
        region: shot region of figures that show one.
        split: test or val.
        selection: a name of `SELECTIONS`; curve, data_efficiency: best_val or last.
        reference: arm to compare with; None means the study's.
        arms: names or patterns such as `conr*`; empty means as many as the figure has room for. ablation_path: the target;
            interactions: the arms with both parts.
        each: pareto: a point per arm or trial; critical_difference: a block of ranks per seed, or per seed and region;
            ablation_path: steps add or remove parts.
        method: importance: ped_anova or fanova.
        relative: heatmap: differences in percent of the reference.
        plugins: files with figures of your own.
        allow_plugins: run the code of the plug-ins that the sweep has recorded, which may have figures.

    An option that the figure does not use is a warning.

    Raises:
        InputError: a name is unknown, there is nothing to draw, a file is damaged, or the output cannot be written.
    """
    # Checked before any data is read.
    given = load_files(plugins)
    load_entry_points("figure")
    if kind not in FIGURES:
        # An unknown study is reported below
        hidden = ""
        with suppress(InputError):
            hidden = load_figures(open_study(root, study), given, allow=allow_plugins)
        if kind not in FIGURES and hidden:
            raise InputError(Fault(where="plot", rule=f"unknown plot; {hidden}", got=kind))
    check_known("plot", kind, tuple(FIGURES))
    check_known("type of file", output.suffix, FILE_TYPES)
    request = TrackedRequest(
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
    # A context, so that the settings of a caller's own figures stay as they are.
    with mpl.rc_context(STYLE):
        with part_errors.name_part("figure", kind, FIGURES[kind]):
            data = FIGURES[kind].build(request)
        if unused := request.list_unused():
            warnings.warn(f"the figure {kind} does not use {' and '.join(unused)}", stacklevel=2)
        check_drawable(kind, data)
        # 300 dpi is what journals ask of images.
        write_figure(lambda: _draw(kind, data), output, dpi=300)
    return output


def _draw(kind: str, data: Any) -> Figure:
    with part_errors.name_part("figure", kind, FIGURES[kind]):
        figure = FIGURES[kind].draw(data)
    if not isinstance(figure, Figure):
        rule = "`draw` must return a matplotlib Figure"
        raise part_errors.make_part_error("figure", kind, FIGURES[kind], rule, describe_value(figure))
    show_names_literally(figure)
    return figure
