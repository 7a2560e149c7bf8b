"""What a written version really holds: it is read back once, counted, hashed and checked.

The content hash is the SHA-256 of the sorted digests of all samples, so it depends on the samples alone: not on shards,
not on row order, not on Ray's scheduling. A sample's digest covers its split, id, label and inputs; the split
fingerprint leaves the inputs out. An encoded image counts with its stored bytes, so the hash does not depend on a decoder.
The histogram of labels that are maps counts the labeled pixels of the part that is looked at.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dirtune.data.columns import as_stored, plain_values, to_numpy
from dirtune.errors import Fault, InputError
from dirtune.frozen import to_canonical_json
from dirtune.io.storage import Storage
from dirtune.manifest import DenseLabels, InputSpec, LabelSpec, SplitInfo
from dirtune.reweighting.density import label_bins, label_density

SHOWN_FAULTS = 20
_ROWS_AT_ONCE = 256

Label = float | list[float]
"""A label as plain data; a list, if it has several dimensions."""


@dataclass
class SplitRows:
    """What the shards of one split hold, one entry per sample."""

    files: tuple[str, ...]
    """Relative to the manifest."""
    ids: list[str] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    """Digests of (split, id, label, inputs)."""
    places: list[bytes] = field(default_factory=list)
    """Digests of (split, id, label)."""
    pixels: NDArray[np.int64] | None = None
    """Labeled pixels per bin, of maps."""

    def info(self, label: LabelSpec) -> SplitInfo:
        """The split's entry in the manifest."""
        labels = np.array(self.labels, dtype=np.float64).reshape(len(self.ids), *label.value_shape)
        counts = self.pixels
        if counts is None:
            counts = label_density(label_bins(labels, label), label.num_bins)
        return SplitInfo(files=self.files, rows=len(self.ids), bin_counts=tuple(counts.tolist()))


def read_back(
    home: Storage, split: str, files: Sequence[str], inputs: Mapping[str, InputSpec], label: LabelSpec | None = None
) -> SplitRows:
    """Read the shards of a split, a few rows at a time, and keep ids, labels and digests; of maps, count the pixels.

    Args:
        label: needed for labels that are maps.
    """
    rows = SplitRows(files=tuple(files))
    for file in files:
        with home.filesystem.open_input_file(home.path(file)) as stream:
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=_ROWS_AT_ONCE):
                _add(rows, split, batch, inputs)
                if label is not None and label.dense is not None:
                    _count_pixels(rows, batch, inputs, label, label.dense)
    return rows


def _add(rows: SplitRows, split: str, batch: pa.RecordBatch, inputs: Mapping[str, InputSpec]) -> None:
    ids, labels = batch.column("sample_id").to_pylist(), plain_values(batch.column("label"))
    stored = {name: as_stored(batch.column(name), inputs[name], name) for name in sorted(inputs)}
    rows.ids += ids
    rows.labels += labels.tolist()
    for row, sample_id in enumerate(ids):
        state = hashlib.sha256(to_canonical_json([split, sample_id]).encode())
        state.update(labels[row].tobytes())
        rows.places.append(state.digest())
        for name, values in stored.items():
            state.update(to_canonical_json(name).encode())
            state.update(values[row])
        rows.contents.append(state.digest())


def _count_pixels(
    rows: SplitRows, batch: pa.RecordBatch, inputs: Mapping[str, InputSpec], label: LabelSpec, where: DenseLabels
) -> None:
    specs = {where.column: inputs[where.column]}
    counts = to_numpy(batch.select([where.column]), specs)[where.column]
    seen = where.crop(counts)
    bins = label_bins(seen[seen > 0] * where.unit_per_count, label)
    found = label_density(bins, label.num_bins)
    rows.pixels = found if rows.pixels is None else rows.pixels + found


def hash_digests(digests: Iterable[bytes]) -> str:
    """One hash of many digests, whatever their order."""
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def check_rows(rows: Mapping[str, SplitRows], label: LabelSpec, *, where: str) -> None:
    """Refuse empty splits, repeated sample ids, and labels that are not finite, out of range or of other dimensions.

    Raises:
        InputError: with the first 20 faults and their count.
    """
    times = Counter(sample_id for found in rows.values() for sample_id in found.ids)
    refuse(
        [fault for split, found in rows.items() for fault in _split_faults(split, found, times, label, where=where)],
        where=where,
    )


def _split_faults(
    split: str, rows: SplitRows, times: Mapping[str, int], label: LabelSpec, *, where: str
) -> Iterator[Fault]:
    if not rows.ids:
        yield Fault(where=where, key=split, rule="the split has no samples")
    for sample_id, value in zip(rows.ids, rows.labels, strict=True):
        place = f"{split}.{sample_id}"
        if times[sample_id] > 1:
            yield Fault(where=where, key=place, rule="the sample id stands more than once")
        for rule, got in _label_faults(value, label):
            yield Fault(where=where, key=place, rule=rule, got=got)


def _label_faults(value: Label, label: LabelSpec) -> Iterator[tuple[str, Label]]:
    """The rules that a label breaks, each with what breaks it."""
    values = value if isinstance(value, list) else [value]
    if len(values) != len(label.axes):
        need = f"{len(label.components)} numbers" if label.components else "one number"
        yield f"{label.name} must be {need}", value
        return
    for axis, number in zip(label.axes, values, strict=True):
        # NaN is within nothing
        if not axis.low <= number <= axis.high:
            yield f"{axis.name} must be within {axis.low:g}..{axis.high:g}", number


def refuse(faults: Sequence[Fault], *, where: str) -> None:
    """Raise an `InputError` with the first 20 faults and their count; nothing happens if there are none."""
    hidden = len(faults) - SHOWN_FAULTS
    if hidden > 0:
        rule = f"{len(faults)} faults in all, {hidden} of them not shown"
        raise InputError([*faults[:SHOWN_FAULTS], Fault(where=where, rule=rule)])
    if faults:
        raise InputError(faults)
