"""The stored form of a batch: numpy arrays to Arrow columns and back.

A shard has the columns `sample_id` (text), `label` (in the label's unit), `group` (text, if the set has groups) and one
column per input. A sample is flattened in C order; shapes are in the manifest.

    label              float64, or a fixed-size list of float64 for labels of several dimensions
    raw image          fixed-size binary, its uint8 values
    raw map            fixed-size binary, its int16 values
    encoded image      large binary, a JPEG or PNG file; large, because 2 GB of bytes are few for images
    encoded map        large binary, a PNG file of 16 bits
    tokens, vector     fixed-size list of int32 or float32

Raw images are no lists of uint8, because Parquet reads those value by value: 90 MB of them took 3.8 s against 0.2 s.
Reading asks the column how it is stored, not the manifest, so that blocks in memory may hold decoded images of an encoded
set, and lists of uint8, which version 1 wrote, are still understood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dirtune.data.images import decode
from dirtune.manifest import InputSpec

Columns = dict[str, NDArray[Any]]
"""Arrays by column name, first dimension = samples."""

# Of a photograph as JPEG of quality 95
_PIXELS_PER_BYTE = 8


def to_arrow(batch: Columns, inputs: Mapping[str, InputSpec], *, has_groups: bool = False) -> pa.Table:
    """A batch as it is stored; columns that are no input are left out.

    Encoded images come as an array of bytes, one object per sample; everything else as numbers of the input's shape.
    Labels have shape `(samples,)`, or `(samples, L)` for L dimensions.

    Raises:
        ValueError: an input has another shape than its specification, or a label is neither number nor vector.
        TypeError: an input's numbers do not fit the stored type (such as float images).
    """
    columns = {"sample_id": pa.array(batch["sample_id"].tolist(), pa.string()), "label": _stored_labels(batch["label"])}
    if has_groups:
        columns["group"] = pa.array(batch["group"].tolist(), pa.string())
    for name, spec in inputs.items():
        columns[name] = _stored(batch[name], spec, name)
    return pa.table(columns)


def _stored_labels(labels: NDArray[Any]) -> pa.Array:
    # Ray hands lists over as an array of arrays.
    values = np.stack(list(labels)) if labels.dtype == object and len(labels) else labels
    values = values.astype(np.float64)
    if values.ndim == 1:
        return pa.array(values, pa.float64())
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"labels must have shape (samples,) or (samples, L >= 2), got {values.shape}")
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _stored(array: NDArray[Any], spec: InputSpec, name: str) -> pa.Array:
    if spec.encoding != "raw":
        return pa.array(array.tolist(), pa.large_binary())
    if array.shape[1:] != spec.shape:
        raise ValueError(f"input {name!r} must have shape {spec.shape}, got {array.shape[1:]}")
    values = array.astype(spec.element, casting="same_kind", copy=False)
    if spec.kind in {"image", "dense_label"}:
        return _fixed_size_binary(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), spec.size)


def _fixed_size_binary(values: NDArray[Any]) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    width = math.prod(values.shape[1:]) * values.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), buffers)


def stored_size(spec: InputSpec) -> int:
    """Bytes of one stored sample; of an encoded image a rough estimate."""
    if spec.encoding != "raw":
        return spec.size // _PIXELS_PER_BYTE
    return decoded_size(spec)


def decoded_size(spec: InputSpec) -> int:
    """Bytes of one sample in memory."""
    return spec.size * np.dtype(spec.element).itemsize


def decoded(table: pa.Table, inputs: Mapping[str, InputSpec]) -> pa.Table:
    """The same samples with encoded images as raw ones."""
    for name, spec in inputs.items():
        if _is_encoded(table.column(name)):
            at = table.column_names.index(name)
            table = table.set_column(at, name, _fixed_size_binary(_input(table.column(name), spec, name)))
    return table


def to_numpy(data: pa.Table | pa.RecordBatch, inputs: Mapping[str, InputSpec]) -> Columns:
    """The samples as arrays: ids as objects, labels as float64, inputs of shape `(samples, *shape)`, images decoded.

    Labels have shape `(samples,)`, or `(samples, L)` for L dimensions.

    An input of one chunk that is not encoded is a read-only view of the Arrow memory; several chunks are joined first.

    Raises:
        InputError: a stored image cannot be decoded.
    """
    return {
        name: _input(data.column(name), inputs[name], name) if name in inputs else plain_values(data.column(name))
        for name in data.schema.names
    }


def plain_values(column: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    """A column that is no input: texts as objects, numbers as they are, lists of numbers as rows."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate([np.empty(0), *rows]).reshape(len(column), column.type.list_size)


def as_stored(column: pa.Array | pa.ChunkedArray, spec: InputSpec, name: str) -> list[bytes] | NDArray[Any]:
    """What the content hash is made of: the bytes of each encoded image, else the numbers."""
    return column.to_pylist() if _is_encoded(column) else _input(column, spec, name)


def _is_encoded(column: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pa.types.is_large_binary(column.type))


def _input(column: pa.Array | pa.ChunkedArray, spec: InputSpec, name: str) -> NDArray[Any]:
    if _is_encoded(column):
        return decode([value.as_buffer() for value in column], spec, name=name)
    # `combine_chunks` copies even a single chunk.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    array = chunks[0] if len(chunks) == 1 else column.combine_chunks()
    if pa.types.is_fixed_size_binary(array.type):
        values = np.frombuffer(array.buffers()[1] or b"", spec.element)
        values = values[array.offset * spec.size :][: len(array) * spec.size]
    else:
        values = array.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(array), *spec.shape)
