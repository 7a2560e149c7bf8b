"""An inspection as the text that the command line shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dirtune.manifest import InputSpec, LabelSpec

if TYPE_CHECKING:
    from dirtune.data.inspection import Inspection

_MARKS = {"many": "M", "medium": "m", "few": "."}
_BARS = " ▁▂▃▄▅▆▇█"
_BINS_PER_LINE = 60


def as_text(seen: Inspection, *, bins: bool = False) -> str:
    """What the set is, its counts by region, its histogram, weights and notes; `bins` adds a line per label bin."""
    blocks = [_heading(seen), _region_table(seen), _histogram(seen), _weight_table(seen)]
    if bins:
        blocks.append(_bin_table(seen))
    if seen.notes:
        blocks.append([f"note: {note}" for note in seen.notes])
    return "\n\n".join("\n".join(block) for block in blocks)


def _heading(seen: Inspection) -> list[str]:
    manifest = seen.manifest
    lines = [
        f"{manifest.name}: content {manifest.fingerprint}, split {manifest.split_fingerprint[:16]}",
        f"inputs: {', '.join(f'{name} ({_described(spec)})' for name, spec in manifest.inputs.items())}",
        *(f"label: {_range(axis)}" for axis in manifest.label.axes),
        f"shot rule: {seen.shot_rule} (known: {', '.join(manifest.shot_rules)})",
    ]
    if manifest.label.dense is not None:
        images = ", ".join(f"{split} {info.rows:,}" for split, info in manifest.splits.items())
        lines.append(f"images: {images}; below, labeled pixels are counted")
    return lines if manifest.group is None else [*lines, f"group: {manifest.group}"]


def _described(spec: InputSpec) -> str:
    shape = f"{spec.kind} {'x'.join(map(str, spec.shape))}"
    if spec.kind not in {"image", "dense_label"}:
        return shape
    quality = "" if spec.quality is None else f" of quality {spec.quality}"
    return f"{shape}, {spec.encoding}{quality}"


def _range(axis: LabelSpec) -> str:
    bins = f"{axis.num_bins} bins of {axis.bin_width:g}"
    return f"{axis.name} [{axis.unit}], {axis.low:g}..{axis.high:g}, {bins}"


def _region_table(seen: Inspection) -> list[str]:
    splits = seen.manifest.splits
    width = 10 if seen.manifest.label.dense is None else 16
    lines = [f"{'region':8}{'bins':>8}" + "".join(f"{split:>{width}}" for split in splits)]
    for region in _MARKS:
        samples = "".join(f"{seen.samples(split, region):>{width},}" for split in splits)
        lines.append(f"{region:8}{seen.bins(region):>8}{samples}")
    totals = "".join(f"{sum(info.bin_counts):>{width},}" for info in splits.values())
    return [*lines, f"{'all':8}{len(seen.regions):>8}{totals}"]


def _histogram(seen: Inspection) -> list[str]:
    """Bars and the marks of their regions: below each other, or of a grid beside each other, one line per first bin."""
    axes, counts = seen.manifest.label.axes, np.asarray(seen.manifest.train_counts)
    if len(axes) > 2:
        return [f"no histogram of a label of {len(axes)} dimensions"]
    legend = ", ".join(f"{mark} {region}" for region, mark in _MARKS.items())
    counted = "samples" if seen.manifest.label.dense is None else "pixels"
    lines = [f"training {counted} per bin, the tallest bar {counts.max():,}; {legend}"]
    rows, per_line = seen.bin_rows(), _BINS_PER_LINE if len(axes) == 1 else axes[1].num_bins
    between = f"\n{'':8} " if len(axes) == 1 else "  "
    for start in range(0, len(rows), per_line):
        part = slice(start, start + per_line)
        marks = "".join(_MARKS[row.region] for row in rows[part])
        bars = _bars(counts[part], counts.max())
        lines.append(f"{rows[start].edges[0][0]:>8.4g} {bars}{between}{marks}")
    return lines


def _bars(counts: NDArray[np.int64], tallest: int) -> str:
    # Rounded up, so that a bin with one sample does not look empty.
    heights = np.ceil(counts / max(tallest, 1) * (len(_BARS) - 1)).astype(int)
    return "".join(_BARS[height] for height in heights)


def _weight_table(seen: Inspection) -> list[str]:
    total = sum(seen.manifest.train_counts)
    counted = "samples" if seen.manifest.label.dense is None else "pixels"
    lines = [f"{'weights':20}{'min':>8}{'max':>8}{'mean':>8}{f'effective {counted}':>20}"]
    for each in seen.weights:
        numbers = "".join(f"{value:>8.3g}" for value in (each.min, each.max, each.mean))
        effective = f"{each.effective_samples:,.0f} ({100 * each.effective_samples / total:.0f} %)"
        lines.append(f"{each.name:20}{numbers}{effective:>20}")
    return lines


def _bin_table(seen: Inspection) -> list[str]:
    smoothed = [] if seen.density is None else ["density"]
    table = [["bin", "label", "region", *seen.manifest.splits, *smoothed]]
    for row in seen.bin_rows():
        label = " x ".join(f"{low:g}..{high:g}" for low, high in row.edges)
        counts = [f"{count:,}" for count in row.samples.values()]
        density = [] if row.density is None else [f"{row.density:,.1f}"]
        table.append([str(row.bin), label, row.region, *counts, *density])
    return list(_aligned(table))


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells)
