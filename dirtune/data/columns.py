"""Stored form of a batch: conversion of numpy arrays to Arrow columns and back.

A shard has the columns `sample_id` (text), `label` (in the label's unit), `group` (text, if the set has groups) and one
column per input. A sample is flattened in C order; shapes are in the manifest.

    label                  float64, or a fixed-size list of float64 for labels of several dimensions
    raw image              fixed-size binary, its uint8 values
    raw dense label        fixed-size binary, its int16 values
    encoded image          large binary, a JPEG or PNG file; large, because images soon exceed 2 GB
    encoded dense label    large binary, a PNG file of 16 bits
    tokens, vector         fixed-size list of int32 or float32

Raw images are not lists of uint8, because Parquet reads those value by value: 90 MB of them took 3.8 s against 0.2 s.
Readers check the type of the column, not the manifest, so that blocks in memory may hold decoded images of an encoded
set, and the lists of uint8 of version 1 are still read.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dirtune.data.images import decode_images
from dirtune.manifest import InputSpec

Columns = dict[str, np.typing.NDArray[Any]]
"""Arrays by column name, first dimension = samples."""

# Estimates for a photograph, as JPEG of quality 95
_SMALLER = {"jpeg": 8, "png": 3}


def to_arrow(batch: Columns, inputs: Mapping[str, InputSpec], *, has_groups: bool = False) -> pa.Table:
    """Return a batch in its stored form; columns that are no input are left out.

    Args:
        batch: encoded images as an array of bytes, one object per sample, and so may be raw ones; other inputs as numbers
            of the input's shape; labels of shape `(samples,)`, or `(samples, L)` for L dimensions.
        inputs: specification of each input.
        has_groups: True if the batch has a column `group`.

    Raises:
        ValueError: an input has another shape than its specification, or a label is neither number nor vector.
        TypeError: an input's numbers cannot be cast to the stored type (such as float images).
    """
    # Ray passes lists as an array of arrays.
    labels = batch["label"]
    labels = np.stack(list(labels)) if labels.dtype == object and len(labels) else labels
    labels = labels.astype(np.float64)
    if labels.ndim > 2 or labels.ndim == 0 or (labels.ndim == 2 and labels.shape[1] < 2):
        raise ValueError(f"labels must have shape (samples,) or (samples, L >= 2), got {labels.shape}")
    stored_labels = pa.array(labels.reshape(-1), pa.float64())
    if labels.ndim == 2:
        stored_labels = pa.FixedSizeListArray.from_arrays(stored_labels, labels.shape[1])
    columns = {"sample_id": pa.array(batch["sample_id"].tolist(), pa.string()), "label": stored_labels}
    if has_groups:
        columns["group"] = pa.array(batch["group"].tolist(), pa.string())
    for name, spec in inputs.items():
        columns[name] = _to_input_column(batch[name], spec, name)
    return pa.table(columns)


def select_stored(table: pa.Table, inputs: Mapping[str, InputSpec], *, has_groups: bool = False) -> pa.Table | None:
    """Return the columns of a batch of images that are in their stored form, else None."""
    types = {"sample_id": pa.string(), "label": pa.float64()} | ({"group": pa.string()} if has_groups else {})
    for name, spec in inputs.items():
        types[name] = pa.large_binary() if spec.encoding != "raw" else pa.binary(get_decoded_size(spec))
    if any(name not in table.column_names or table[name].type != kind for name, kind in types.items()):
        return None
    return table.select([*types])


def _to_input_column(array: np.typing.NDArray[Any], spec: InputSpec, name: str) -> pa.Array:
    if spec.encoding != "raw":
        return pa.array(array.tolist(), pa.large_binary())
    if array.dtype == object and spec.kind == "image":
        return pa.array(array.tolist(), pa.binary(spec.size))
    if array.shape[1:] != spec.shape:
        raise ValueError(f"input {name!r} must have shape {spec.shape}, got {array.shape[1:]}")
    # A silent cast would truncate float images to bytes.
    values = array.astype(spec.element, casting="same_kind", copy=False)
    if spec.kind in {"image", "dense_label"}:
        return _to_binary_column(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), spec.size)


def _to_binary_column(values: np.typing.NDArray[Any]) -> pa.FixedSizeBinaryArray:
    buffers = [None, pa.py_buffer(np.ascontiguousarray(values))]
    width = math.prod(values.shape[1:]) * values.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(values), buffers)


def get_stored_size(spec: InputSpec) -> int:
    """Return the bytes of one stored sample; for an encoded image a rough estimate."""
    return get_decoded_size(spec) // _SMALLER.get(spec.encoding, 1)


def get_decoded_size(spec: InputSpec) -> int:
    """Return the bytes of one sample in memory."""
    return spec.size * np.dtype(spec.element).itemsize


def decode_table(table: pa.Table, inputs: Mapping[str, InputSpec]) -> pa.Table:
    """Return the same samples with encoded images as raw ones."""
    for name, spec in inputs.items():
        if _is_encoded(table.column(name)):
            at = table.column_names.index(name)
            table = table.set_column(at, name, _to_binary_column(_to_array(table.column(name), spec, name)))
    return table


def to_numpy(data: pa.Table | pa.RecordBatch, inputs: Mapping[str, InputSpec]) -> Columns:
    """Return the samples as arrays: ids as objects, labels as float64, inputs `(samples, *shape)`, images decoded.

    Labels have shape `(samples,)`, or `(samples, L)` for L dimensions. A raw input of one chunk is a read-only view of the
    Arrow memory; several chunks are copied into one first.

    Raises:
        InputError: a stored image cannot be decoded.
    """
    return {
        name: _to_array(data.column(name), inputs[name], name) if name in inputs else to_values(data.column(name))
        for name in data.schema.names
    }


def to_values(column: pa.Array | pa.ChunkedArray) -> np.typing.NDArray[Any]:
    """Return a column other than an input as an array: strings as objects, numbers unchanged, lists of numbers as rows."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=False))
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    rows = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in chunks]
    return np.concatenate([np.empty(0), *rows]).reshape(len(column), column.type.list_size)


def as_stored(column: pa.Array | pa.ChunkedArray, spec: InputSpec, name: str) -> list[bytes] | np.typing.NDArray[Any]:
    """Return the values for the content hash: the bytes of each encoded image, else the numbers."""
    return column.to_pylist() if _is_encoded(column) else _to_array(column, spec, name)


def _is_encoded(column: pa.Array | pa.ChunkedArray) -> bool:
    return bool(pa.types.is_large_binary(column.type))


def _to_array(column: pa.Array | pa.ChunkedArray, spec: InputSpec, name: str) -> np.typing.NDArray[Any]:
    if _is_encoded(column):
        return decode_images([value.as_buffer() for value in column], spec, name=name)
    # `combine_chunks` copies even a single chunk.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    array = chunks[0] if len(chunks) == 1 else column.combine_chunks()
    if pa.types.is_fixed_size_binary(array.type):
        values = np.frombuffer(array.buffers()[1] or b"", spec.element)
        # The buffer of a slice is that of the whole array.
        values = values[array.offset * spec.size :][: len(array) * spec.size]
    else:
        values = array.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(array), *spec.shape)
