"""The figure of a data set: how the labels of every split are distributed, and images of every shot region.

What is shown comes from an `Inspection` and from `dirtune.data.region_samples`, which have the logic; the draw functions have
none. Counts stand on a logarithmic axis: on a linear one the few-shot bins, which this field is about, are invisible.
Regions are told apart by tint and by name. Nothing uses pyplot (see `dirtune.results.figures`).
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from dirtune.data.inspection import Inspection
from dirtune.data.region_samples import RegionSamples, sample_images
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec
from dirtune.metrics import SHOT_REGIONS
from dirtune.results.figures import FILE_TYPES, PAGE, STYLE

# Okabe and Ito's, lightened
TINTS = {"many": "#BFDCEC", "medium": "#EFEFEF", "few": "#FAE3B4"}
BARS, DENSITY = "#6E6E6E", "#B22B00"
NO_IMAGES = "No images: none of the inputs is one."
# Where the bars begin, so that a bin with one sample has one
_LOWEST = 0.5


def save_figure(seen: Inspection, *, root: str | Path, output: Path, count: int = 10) -> Path:
    """Draw a data set into a file, and return its path.

    Args:
        seen: what `inspect` has found.
        root: the data root, a path or URL; the images are read from it.
        output: a .png, .pdf or .svg file.
        count: images of each shot region.

    Raises:
        InputError: another type of file, labels of more than two dimensions, or a shard that cannot be read.
    """
    if output.suffix not in FILE_TYPES:
        rule = "unknown type of file"
        raise InputError(Fault(where=str(output), rule=rule, got=output.suffix, known=FILE_TYPES))
    samples = sample_images(Storage.open(root), seen, count=count)
    with mpl.rc_context(STYLE):
        figure = draw(seen, samples)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=200, bbox_inches="tight", pad_inches=0.03)
    return output


def draw(seen: Inspection, samples: Sequence[RegionSamples]) -> Figure:
    """Histograms of all splits above, images below.

    Raises:
        InputError: labels of more than two dimensions.
    """
    axes = seen.manifest.label.axes
    if len(axes) > 2:
        rule = "a histogram can be drawn of labels of one or two dimensions"
        raise InputError(Fault(where=seen.manifest.name, key="label", rule=rule, got=len(axes)))
    heights = [1.1 * len(seen.manifest.splits) + 0.5 if len(axes) == 1 else 2.2]
    heights += [(0.72 + 0.1 * len(axes)) * len(samples)] if samples else []
    figure = Figure(figsize=(PAGE, sum(heights) + 0.3), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    (_draw_histograms if len(axes) == 1 else _draw_maps)(parts[0], seen)
    if samples:
        _draw_samples(parts[1], samples, seen.manifest.label)
    caption = textwrap.wrap(_caption(seen, samples), int(PAGE * 22))
    figure.supxlabel("\n".join(caption), fontsize=6, color="#555555")
    return figure


def _draw_histograms(part: FigureBase, seen: Inspection) -> None:
    """A panel per split over the same labels; the density is the training split's."""
    splits, label = seen.manifest.splits, seen.manifest.label
    edges = label.low + np.arange(label.num_bins + 1) * label.bin_width
    panels = part.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (split, info) in zip(panels, splits.items(), strict=True):
        _shade(axes, seen.regions, edges)
        axes.stairs(info.bin_counts, edges, baseline=_LOWEST, fill=True, color=BARS)
        if split == "train" and seen.density is not None:
            centers = (edges[:-1] + edges[1:]) / 2
            axes.plot(centers, seen.density, color=DENSITY, linewidth=1.2, label="effective density")
        axes.set_yscale("log")
        _as_plain_numbers(axes.yaxis)
        axes.set_ylim(_LOWEST, 2 * max(info.bin_counts))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel(f"{split}\n{info.rows:,} samples")
    panels[-1].set_xlabel(f"{label.name} [{label.unit}]")
    handles = [Patch(color=TINTS[region], label=f"{region}-shot bins") for region in SHOT_REGIONS]
    handles += [Patch(color=BARS, label="samples")]
    handles += [line for axes in panels for line in axes.get_legend_handles_labels()[0]]
    part.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _as_plain_numbers(axis: Axis) -> None:
    """100 instead of a power of ten; where less than a decade is shown, also what is between."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def _shade(axes: Axes, regions: NDArray[np.str_], edges: NDArray[np.floating]) -> None:
    start = 0
    for region, run in groupby(regions.tolist()):
        stop = start + len(list(run))
        axes.axvspan(edges[start], edges[stop], color=TINTS[region], linewidth=0, zorder=0)
        start = stop


def _draw_maps(part: FigureBase, seen: Inspection) -> None:
    """Labels of two dimensions: the shot regions, then the samples of every split as a heat map."""
    splits, (first, second) = seen.manifest.splits, seen.manifest.label.axes
    shape = (first.num_bins, second.num_bins)
    panels = part.subplots(1, 1 + len(splits), sharex=True, sharey=True, squeeze=False)[0]
    extent = (second.low, _end(second), first.low, _end(first))
    codes = np.select([seen.regions == region for region in SHOT_REGIONS], range(len(SHOT_REGIONS)))
    colors = ListedColormap([TINTS[region] for region in SHOT_REGIONS])
    panels[0].imshow(
        codes.reshape(shape),
        cmap=colors,
        norm=BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3),
        extent=extent,
        origin="lower",
        aspect="auto",
    )
    panels[0].set_title("shot regions", fontsize=8)
    tallest = max(max(info.bin_counts) for info in splits.values())
    for axes, (split, info) in zip(panels[1:], splits.items(), strict=True):
        counts = np.ma.masked_equal(np.reshape(info.bin_counts, shape), 0)
        drawn = axes.imshow(
            counts, cmap="cividis", norm=LogNorm(1, max(tallest, 2)), extent=extent, origin="lower", aspect="auto"
        )
        axes.set_title(f"{split}: {info.rows:,}", fontsize=8)
    bar = part.colorbar(drawn, ax=panels, label="samples per bin")
    _as_plain_numbers(bar.ax.yaxis)
    panels[0].set_ylabel(f"{first.name} [{first.unit}]")
    part.supxlabel(f"{second.name} [{second.unit}]", fontsize=8)
    handles = [Patch(color=TINTS[region], label=f"{region}-shot bins") for region in SHOT_REGIONS]
    part.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _end(axis: LabelSpec) -> float:
    return axis.low + axis.num_bins * axis.bin_width


def _draw_samples(part: FigureBase, samples: Sequence[RegionSamples], label: LabelSpec) -> None:
    """A row per shot region, every image under its label."""
    columns = max(len(found.images) for found in samples)
    grid = part.subplots(len(samples), columns, squeeze=False)
    for row, found in zip(grid, samples, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, image, value in zip(row, found.images, found.labels, strict=False):
            axes.imshow(image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title(_value_text(value), fontsize=6, pad=2)
        row[0].text(
            -0.25,
            0.5,
            found.region,
            transform=row[0].transAxes,
            rotation=90,
            ha="right",
            va="center",
            bbox={"facecolor": TINTS[found.region], "linewidth": 0},
        )


def _value_text(value: NDArray[np.float64]) -> str:
    return "\n".join(f"{part:.4g}" for part in np.atleast_1d(value))


def _caption(seen: Inspection, samples: Sequence[RegionSamples]) -> str:
    manifest, lds = seen.manifest, seen.lds
    parts = [
        f"{manifest.name}, content {manifest.fingerprint}, shot rule {seen.shot_rule}.",
        "Samples per label bin, on a logarithmic scale.",
    ]
    if seen.density is not None:
        width = "" if lds.kernel == "triang" else f", sigma {lds.sigma:g}"
        parts.append(f"Effective density: training counts smoothed over {lds.size} bins ({lds.kernel}{width}).")
    if samples:
        parts.append(f"Images: drawn from training, {manifest.label.name} [{manifest.label.unit}] above.")
    elif seen.image_input is None:
        parts.append(NO_IMAGES)
    return " ".join(parts)
