"""Verification of a written version: its shards are read once, counted, hashed and checked.

The content hash is the SHA-256 of the sorted digests of all samples, so it depends on the samples alone: not on shards,
row order, or Ray's scheduling. A sample's digest covers its split, id, label and inputs; the split fingerprint leaves the
inputs out. An encoded image counts by its stored bytes, so the hash does not depend on a decoder. With per-pixel labels
the histogram counts the labeled pixels of the center crop.
"""

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dirtune.data.columns import as_stored, get_stored_size, to_numpy, to_values
from dirtune.errors import Fault, InputError
from dirtune.frozen import to_canonical_json
from dirtune.io.storage import Storage
from dirtune.manifest import DenseLabels, InputSpec, LabelSpec, SplitInfo
from dirtune.reweighting.density import label_bins, label_density

SHOWN_FAULTS = 20
"""Maximum number of faults that an error or a note lists."""
# Samples that are read at once; more of them, up to these bytes, if they are small.
_BATCH_ROWS, _BATCH_BYTES, _SMALL_SAMPLE = 256, 2**20, 4096


@dataclass
class SplitRows:
    """Content of the shards of one split, in batches of samples: compact, because a split may have millions of them."""

    files: tuple[str, ...]
    """Relative to the manifest."""
    ids: list[pa.StringArray] = field(default_factory=list)
    """Batches of texts."""
    labels: list[np.typing.NDArray[np.float64]] = field(default_factory=list)
    """Batches of shape `(samples,)`, or `(samples, L)` for L dimensions."""
    content_digests: bytearray = field(default_factory=bytearray)
    """Digests of (split, id, label, inputs), one after the other."""
    split_digests: bytearray = field(default_factory=bytearray)
    """Digests of (split, id, label)."""
    pixels: np.typing.NDArray[np.int64] | None = None
    """Labeled pixels in each bin, with per-pixel labels."""

    def __len__(self) -> int:
        return sum(map(len, self.ids))

    def add_batch(self, split: str, batch: pa.RecordBatch, inputs: Mapping[str, InputSpec]) -> None:
        """Add the ids, labels and digests of the samples of a batch of a shard."""
        ids, labels = batch.column("sample_id"), to_values(batch.column("label"))
        # Sorted by name, so that the digest does not depend on the order of the inputs.
        stored = {
            to_canonical_json(name).encode(): as_stored(batch.column(name), inputs[name], name)
            for name in sorted(inputs)
        }
        self.ids.append(ids)
        self.labels.append(labels)
        start, encode = f"[{to_canonical_json(split)},", encode_basestring_ascii
        for row, sample_id in enumerate(ids.to_pylist()):
            # The canonical JSON of [split, sample_id]
            state = hashlib.sha256(f"{start}{encode(sample_id)}]".encode())
            state.update(labels[row].tobytes())
            # Taken before the inputs enter the state.
            self.split_digests += state.digest()
            for name, values in stored.items():
                state.update(name)
                state.update(values[row])
            self.content_digests += state.digest()

    def add_pixel_counts(self, batch: pa.RecordBatch, spec: InputSpec, label: LabelSpec, dense: DenseLabels) -> None:
        """Add the numbers of labeled pixels in each label bin of a batch of a shard."""
        counts = dense.crop(to_numpy(batch.select([dense.column]), {dense.column: spec})[dense.column])
        # A count of zero means that the pixel has no label.
        bins = label_bins(counts[counts > 0] * dense.unit_per_count, label)
        density = label_density(bins, label.num_bins)
        self.pixels = density if self.pixels is None else self.pixels + density

    def make_split_info(self, label: LabelSpec) -> SplitInfo:
        """Return the split's entry in the manifest."""
        counts = self.pixels
        if counts is None:
            counts = np.zeros(label.num_bins, dtype=np.int64)
            for labels in self.labels:
                counts += label_density(label_bins(labels, label), label.num_bins)
        return SplitInfo(files=self.files, rows=len(self), bin_counts=tuple(counts.tolist()))


def read_shards(
    home: Storage, split: str, files: Sequence[str], inputs: Mapping[str, InputSpec], label: LabelSpec | None = None
) -> SplitRows:
    """Read the shards of a split in small batches, and return ids, labels, digests and the number of labeled pixels.

    Args:
        home: folder of the data set.
        split: name of the split.
        files: relative to the folder.
        inputs: of the data set.
        label: required for per-pixel labels.
    """
    rows = SplitRows(files=tuple(files))
    size = sum(get_stored_size(spec) for spec in inputs.values())
    batch_rows = max(_BATCH_ROWS, _BATCH_BYTES // max(1, size)) if size < _SMALL_SAMPLE else _BATCH_ROWS
    for file in files:
        with home.filesystem.open_input_file(home.path(file)) as stream:
            # Buffered, because fresh memory for whole row groups takes longer than hashing them
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BATCH_BYTES)
            for batch in parquet.iter_batches(batch_size=batch_rows):
                rows.add_batch(split, batch, inputs)
                if label is not None and label.dense is not None:
                    rows.add_pixel_counts(batch, inputs[label.dense.column], label, label.dense)
    return rows


def join_rows(parts: Sequence[SplitRows]) -> SplitRows:
    """Return the content of several groups of shards of one split."""
    joined = SplitRows(files=tuple(file for part in parts for file in part.files))
    for part in parts:
        joined.ids += part.ids
        joined.labels += part.labels
        joined.content_digests += part.content_digests
        joined.split_digests += part.split_digests
        if part.pixels is not None:
            joined.pixels = part.pixels if joined.pixels is None else joined.pixels + part.pixels
    return joined


def check_labels(
    rows: Mapping[str, tuple[np.typing.NDArray[np.object_], np.typing.NDArray[np.float64]]],
    expected: str,
    *,
    where: str,
) -> None:
    """Raise if ids or labels of a data set are not those of its manifest, as of a shard that was written again.

    Args:
        rows: ids and labels of every sample, by split.
        expected: the split fingerprint of the manifest.
        where: name of the data set.

    Raises:
        InputError: they have another fingerprint.
    """
    digests = bytearray()
    for split, (ids, labels) in rows.items():
        start, values = f"[{encode_basestring_ascii(split)},", labels.astype(np.float64, copy=False)
        # The canonical JSON of split and id, written directly: a large set has millions of rows
        for sample_id, value in zip(ids.tolist(), values, strict=True):
            digests += hashlib.sha256(
                f"{start}{encode_basestring_ascii(sample_id)}]".encode() + value.tobytes()
            ).digest()
    if hash_digests([digests]) != expected:
        rule = "its shards have other ids or labels than those that were ingested; ingest the data set again"
        raise InputError(Fault(where=where, rule=rule))


def hash_digests(digests: Iterable[bytes | bytearray]) -> str:
    """Return one hash of many SHA-256 digests, independent of their order; several may be in one value."""
    # A large set has millions of them: sorted in place, and hashed without a further copy
    joined = np.frombuffer(bytearray().join(digests), dtype=f"S{hashlib.sha256().digest_size}")
    joined.sort()
    return hashlib.sha256(joined.data).hexdigest()


def check_rows(rows: Mapping[str, SplitRows], label: LabelSpec, *, where: str) -> None:
    """Raise for empty splits, repeated sample ids, and labels that are not finite, out of range or of other dimensions.

    Raises:
        InputError: with the first 20 faults and their count.
    """
    repeated = set[str]()
    batches = [batch for found in rows.values() for batch in found.ids]
    # Hashes of 64 bits first: a table of millions of distinct texts would take more memory than all the rest.
    hashes = np.concatenate([np.fromiter(map(hash, batch.to_pylist()), np.int64) for batch in batches])
    hashes.sort()
    if (hashes[1:] == hashes[:-1]).any():
        counts = pa.chunked_array(batches, pa.string()).value_counts()
        repeated = set(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())
    raise_faults(
        [fault for split, found in rows.items() for fault in _find_faults(split, found, repeated, label, where=where)],
        where=where,
    )


def _find_faults(
    split: str, rows: SplitRows, repeated: Container[str], label: LabelSpec, *, where: str
) -> Iterator[Fault]:
    if not len(rows):
        yield Fault(where=where, key=split, rule="the split has no samples")
    for ids, labels in zip(rows.ids, rows.labels, strict=True):
        values = labels[:, None] if labels.ndim == 1 else labels
        # The comparison is false for NaN.
        is_valid = values.shape[1] == len(label.axes) and all(
            ((values[:, place] >= axis.low) & (values[:, place] <= axis.high)).all()
            for place, axis in enumerate(label.axes)
        )
        if is_valid and not repeated:
            continue
        for sample_id, value, numbers in zip(ids.to_pylist(), labels.tolist(), values.tolist(), strict=True):
            key = f"{split}.{sample_id}"
            if sample_id in repeated:
                yield Fault(where=where, key=key, rule="the sample id occurs more than once")
            if len(numbers) != len(label.axes):
                need = f"{len(label.components)} numbers" if label.components else "one number"
                yield Fault(where=where, key=key, rule=f"{label.name} must be {need}", got=value)
                continue
            for axis, number in zip(label.axes, numbers, strict=True):
                if not axis.low <= number <= axis.high:
                    rule = f"{axis.name} must be within {axis.low:g}..{axis.high:g}"
                    yield Fault(where=where, key=key, rule=rule, got=number)


def raise_faults(faults: Sequence[Fault], *, where: str, remedy: str = "") -> None:
    """Raise an `InputError` with the first 20 faults, their count and the remedy, if there are any."""
    hidden = len(faults) - SHOWN_FAULTS
    count = [f"{len(faults)} faults in all, {hidden} of them not shown"] if hidden > 0 else []
    last = "; ".join([*count, *([remedy] if remedy else [])])
    if faults:
        raise InputError([*faults[:SHOWN_FAULTS], *([Fault(where=where, rule=last)] if last else [])])
