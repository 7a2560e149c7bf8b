"""Text of an inspection for the command line."""

import numpy as np

from dirtune.data.inspection import Inspection

_MARKS = {"many": "M", "medium": "m", "few": "."}
_BARS = " ▁▂▃▄▅▆▇█"
_BINS_PER_LINE = 60
# A data set has billions of pixels.
_COLUMN_WIDTHS = {"samples": 10, "pixels": 16}


def format_inspection(inspection: Inspection, *, bins: bool = False) -> str:
    """Return the specification of a set, its counts by region, its histogram, weights and notes.

    Args:
        inspection: of the set.
        bins: True for a table of all label bins, too.
    """
    blocks = [
        _format_heading(inspection),
        _format_regions(inspection),
        _format_histogram(inspection),
        _format_weights(inspection),
    ]
    if bins:
        blocks.append(_format_bins(inspection))
    if inspection.notes:
        blocks.append([f"note: {note}" for note in inspection.notes])
    return "\n\n".join("\n".join(block) for block in blocks)


def _format_heading(inspection: Inspection) -> list[str]:
    manifest = inspection.manifest
    inputs, labels = [], []
    for name, spec in manifest.inputs.items():
        text = f"{spec.kind} {'x'.join(map(str, spec.shape))}"
        if spec.kind in {"image", "dense_label"}:
            text += f", {spec.encoding}" if spec.quality is None else f", {spec.encoding} of quality {spec.quality}"
        inputs.append(f"{name} ({text})")
    for axis in manifest.label.axes:
        bins = f"{axis.num_bins} bins of {axis.bin_width:g}"
        if axis.transform != "none":
            bins += f" in {axis.transform}(label)"
        labels.append(f"label: {axis.name} [{axis.unit}], {axis.low:g}..{axis.high:g}, {bins}")
    lines = [
        f"{manifest.name}: content {manifest.fingerprint}, split {manifest.split_fingerprint[:16]}",
        f"inputs: {', '.join(inputs)}",
        *labels,
        f"shot rule: {inspection.shot_rule} (known: {', '.join(manifest.shot_rules)})",
    ]
    if manifest.label.dense is not None:
        images = ", ".join(f"{split} {info.rows:,}" for split, info in manifest.splits.items())
        lines.append(f"images: {images}; below, labeled pixels are counted")
    return lines if manifest.group is None else [*lines, f"group: {manifest.group}"]


def _format_regions(inspection: Inspection) -> list[str]:
    splits = inspection.manifest.splits
    width = _COLUMN_WIDTHS[inspection.manifest.label.counted_unit]
    lines = [f"{'region':8}{'bins':>8}" + "".join(f"{split:>{width}}" for split in splits)]
    for region in _MARKS:
        samples = "".join(f"{inspection.count_samples(split, region):>{width},}" for split in splits)
        lines.append(f"{region:8}{inspection.count_bins(region):>8}{samples}")
    totals = "".join(f"{sum(info.bin_counts):>{width},}" for info in splits.values())
    return [*lines, f"{'all':8}{len(inspection.regions):>8}{totals}"]


def _format_histogram(inspection: Inspection) -> list[str]:
    """Return bars and the marks of their regions: marks below the bars, or for a grid, to their right, a line per row."""
    axes, counts = inspection.manifest.label.axes, np.asarray(inspection.manifest.train_counts)
    if len(axes) > 2:
        return [f"no histogram of a label of {len(axes)} dimensions"]
    legend = ", ".join(f"{mark} {region}" for region, mark in _MARKS.items())
    counted = inspection.manifest.label.counted_unit
    lines = [f"training {counted} per bin, the tallest bar {counts.max():,}; {legend}"]
    rows, per_line = inspection.list_bins(), _BINS_PER_LINE if len(axes) == 1 else axes[1].num_bins
    between = f"\n{'':8} " if len(axes) == 1 else "  "
    for start in range(0, len(rows), per_line):
        part = slice(start, start + per_line)
        marks = "".join(_MARKS[row.region] for row in rows[part])
        # Rounded up, so that a bin with one sample does not look empty.
        heights = np.ceil(counts[part] / max(counts.max(), 1) * (len(_BARS) - 1)).astype(int)
        bars = "".join(_BARS[height] for height in heights)
        lines.append(f"{rows[start].edges[0][0]:>8.4g} {bars}{between}{marks}")
    return lines


def _format_weights(inspection: Inspection) -> list[str]:
    total = sum(inspection.manifest.train_counts)
    counted = inspection.manifest.label.counted_unit
    lines = [f"{'weights':20}{'min':>8}{'max':>8}{'mean':>8}{f'effective {counted}':>20}"]
    for each in inspection.weights:
        numbers = "".join(f"{value:>8.3g}" for value in (each.min, each.max, each.mean))
        effective = f"{each.effective_samples:,.0f} ({100 * each.effective_samples / total:.0f} %)"
        lines.append(f"{each.name:20}{numbers}{effective:>20}")
    return lines


def _format_bins(inspection: Inspection) -> list[str]:
    smoothed = [] if inspection.density is None else ["density"]
    table = [["bin", "label", "region", *inspection.manifest.splits, *smoothed]]
    for row in inspection.list_bins():
        label = " x ".join(f"{low:g}..{high:g}" for low, high in row.edges)
        counts = [f"{count:,}" for count in row.samples.values()]
        density = [] if row.density is None else [f"{row.density:,.1f}"]
        table.append([str(row.bin), label, row.region, *counts, *density])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
