"""Figure of a data set: label histograms of all splits, and images of every shot region.

The data come from an `Inspection` and from `dirtune.data.region_samples`, which compute them; the functions here only
draw. Counts have a logarithmic axis: on a linear one the few-shot bins, the subject of this field, are invisible. Regions
differ by tint and by name. Nothing uses pyplot (see `dirtune.results.figures`).
"""

import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axis import Axis
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm
from matplotlib.figure import Figure, FigureBase
from matplotlib.patches import Patch
from matplotlib.ticker import LogFormatter

from dirtune.data.inspection import Inspection
from dirtune.data.region_samples import RegionSamples, read_region_samples
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.label_transform import compute_bin_edges
from dirtune.manifest import LabelSpec
from dirtune.metrics import SHOT_REGIONS
from dirtune.results.figures import FILE_TYPES, PAGE, STYLE, show_names_literally, write_figure

TINTS = {"many": "#BFDCEC", "medium": "#EFEFEF", "few": "#FAE3B4"}
"""Background of each shot region; lightened colors of Okabe and Ito."""
BARS, DENSITY = "#6E6E6E", "#B22B00"
NO_IMAGES = "No images: no input is an image."
# Below one, so that a bin with one sample has a visible bar.
_BASELINE = 0.5


def save_figure(inspection: Inspection, *, root: str | Path, output: Path, count: int = 10) -> Path:
    """Write the figure of a data set to a file, and return its path.

    Args:
        inspection: of the data set, from `inspect`.
        root: the data root, a path or URL, that the images are read from.
        output: a .png, .pdf or .svg file.
        count: maximum number of images of each shot region.

    Raises:
        InputError: unknown type of file, labels of more than two dimensions, or a shard that cannot be read.
    """
    if output.suffix not in FILE_TYPES:
        rule = "unknown type of file"
        raise InputError(Fault(where=str(output), rule=rule, got=output.suffix, known=FILE_TYPES))
    samples = read_region_samples(Storage.open(root), inspection, count=count)
    with mpl.rc_context(STYLE):
        write_figure(lambda: draw_figure(inspection, samples), output, dpi=200)
    return output


def draw_figure(inspection: Inspection, samples: Sequence[RegionSamples]) -> Figure:
    """Return a figure with histograms of all splits above, images below.

    Raises:
        InputError: labels of more than two dimensions.
    """
    axes = inspection.manifest.label.axes
    if len(axes) > 2:
        rule = "histograms are drawn for labels of one or two dimensions"
        raise InputError(Fault(where=inspection.manifest.name, key="label", rule=rule, got=len(axes)))
    heights = [1.1 * len(inspection.manifest.splits) + 0.5 if len(axes) == 1 else 2.2]
    heights += [(0.72 + 0.1 * len(axes)) * len(samples)] if samples else []
    figure = Figure(figsize=(PAGE, sum(heights) + 0.3), layout="constrained")
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    (_draw_histograms if len(axes) == 1 else _draw_heat_maps)(parts[0], inspection)
    if samples:
        _draw_samples(parts[1], samples, inspection.manifest.label)
    caption = textwrap.wrap(_format_caption(inspection, samples), int(PAGE * 22))
    figure.supxlabel("\n".join(caption), fontsize=6, color="#555555")
    show_names_literally(figure)
    return figure


def _draw_histograms(part: FigureBase, inspection: Inspection) -> None:
    """Draw a panel per split over the same labels; the density is that of the training split."""
    splits, label = inspection.manifest.splits, inspection.manifest.label
    edges = compute_bin_edges(label)
    panels = part.subplots(len(splits), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (split, info) in zip(panels, splits.items(), strict=True):
        # Neighboring bins of one region are shaded as one span, because the seams of single spans are visible.
        start = 0
        for region, run in groupby(inspection.regions.tolist()):
            stop = start + len(list(run))
            axes.axvspan(edges[start], edges[stop], color=TINTS[region], linewidth=0, zorder=0)
            start = stop
        axes.stairs(info.bin_counts, edges, baseline=_BASELINE, fill=True, color=BARS)
        if split == "train" and inspection.density is not None:
            centers = (edges[:-1] + edges[1:]) / 2
            axes.plot(centers, inspection.density, color=DENSITY, linewidth=1.2, label="effective density")
        axes.set_yscale("log")
        _format_plain_numbers(axes.yaxis)
        axes.set_ylim(_BASELINE, 2 * max(info.bin_counts))
        axes.set_xlim(edges[0], edges[-1])
        if label.transform != "none":
            axes.set_xscale("log" if label.transform == "log" else "symlog")
        axes.set_ylabel(f"{split}\n{info.rows:,} samples")
    panels[-1].set_xlabel(f"{label.name} [{label.unit}]")
    handles = [Patch(color=TINTS[region], label=f"{region}-shot bins") for region in SHOT_REGIONS]
    handles += [Patch(color=BARS, label="samples")]
    handles += [line for axes in panels for line in axes.get_legend_handles_labels()[0]]
    part.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _format_plain_numbers(axis: Axis) -> None:
    """Label the ticks with 100 instead of a power of ten, and also the minor ticks if the axis spans less than a decade."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter())


def _draw_heat_maps(part: FigureBase, inspection: Inspection) -> None:
    """Draw labels of two dimensions: the shot regions, then the samples of every split as a heat map."""
    splits, (first, second) = inspection.manifest.splits, inspection.manifest.label.axes
    shape = (first.num_bins, second.num_bins)
    panels = part.subplots(1, 1 + len(splits), sharex=True, sharey=True, squeeze=False)[0]
    # The bins may end beyond the range of the labels.
    ends = [axis.low + axis.num_bins * axis.bin_width for axis in (first, second)]
    extent = (second.low, ends[1], first.low, ends[0])
    codes = np.select([inspection.regions == region for region in SHOT_REGIONS], range(len(SHOT_REGIONS)))
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
    # One color scale for all splits, so that they can be compared.
    tallest = max(max(info.bin_counts) for info in splits.values())
    for axes, (split, info) in zip(panels[1:], splits.items(), strict=True):
        # Empty bins are left blank: the logarithm of zero has no color.
        counts = np.ma.masked_equal(np.reshape(info.bin_counts, shape), 0)
        drawn = axes.imshow(
            counts, cmap="cividis", norm=LogNorm(1, max(tallest, 2)), extent=extent, origin="lower", aspect="auto"
        )
        axes.set_title(f"{split}: {info.rows:,}", fontsize=8)
    bar = part.colorbar(drawn, ax=panels, label="samples per bin")
    _format_plain_numbers(bar.ax.yaxis)
    panels[0].set_ylabel(f"{first.name} [{first.unit}]")
    part.supxlabel(f"{second.name} [{second.unit}]", fontsize=8)
    handles = [Patch(color=TINTS[region], label=f"{region}-shot bins") for region in SHOT_REGIONS]
    part.legend(handles=handles, loc="outside upper center", ncols=len(handles), frameon=False)


def _draw_samples(part: FigureBase, samples: Sequence[RegionSamples], label: LabelSpec) -> None:
    """Draw a row per shot region, every image under its label."""
    columns = max(len(found.images) for found in samples)
    grid = part.subplots(len(samples), columns, squeeze=False)
    for row, found in zip(grid, samples, strict=True):
        for axes in row:
            axes.set_axis_off()
        for axes, image, value in zip(row, found.images, found.labels, strict=False):
            axes.imshow(image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axes.set_title("\n".join(f"{part:.4g}" for part in np.ravel(value)), fontsize=6, pad=2)
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


def _format_caption(inspection: Inspection, samples: Sequence[RegionSamples]) -> str:
    manifest, lds = inspection.manifest, inspection.lds
    parts = [
        f"{manifest.name}, content {manifest.fingerprint}, shot rule {inspection.shot_rule}.",
        "Samples per label bin, on a logarithmic scale.",
    ]
    if inspection.density is not None:
        width = "" if lds.kernel == "triang" else f", sigma {lds.sigma:g}"
        parts.append(f"Effective density: training counts smoothed over {lds.size} bins ({lds.kernel}{width}).")
    if samples:
        parts.append(f"Images: drawn from training, {manifest.label.name} [{manifest.label.unit}] above.")
    elif inspection.image_input is None:
        parts.append(NO_IMAGES)
    return " ".join(parts)
