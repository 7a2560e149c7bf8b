"""The stored form of a batch: numpy arrays to Arrow columns and back.

A shard has the columns `sample_id` (text), `label` (float64, in the label's unit) and one fixed-size list per input, the
sample flattened in C order: uint8 for images, int32 for tokens, float32 for vectors. Shapes are in the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dirtune.manifest import InputSpec

Columns = dict[str, NDArray[Any]]
"""Arrays by column name, first dimension = samples."""

_ELEMENTS = {"image": pa.uint8(), "tokens": pa.int32(), "vector": pa.float32()}


def to_arrow(batch: Columns, inputs: Mapping[str, InputSpec]) -> pa.Table:
    """A batch as it is stored; columns that are no input are left out.

    Raises:
        ValueError: an input has another shape than its specification.
        TypeError: an input's numbers do not fit the stored type (such as float images).
    """
    columns = {
        "sample_id": pa.array(batch["sample_id"].tolist(), pa.string()),
        "label": pa.array(batch["label"].astype(np.float64), pa.float64()),
    }
    for name, spec in inputs.items():
        columns[name] = _fixed_size_lists(batch[name], spec, name)
    return pa.table(columns)


def _fixed_size_lists(array: NDArray[Any], spec: InputSpec, name: str) -> pa.FixedSizeListArray:
    if array.shape[1:] != spec.shape:
        raise ValueError(f"input {name!r} must have shape {spec.shape}, got {array.shape[1:]}")
    element = _ELEMENTS[spec.kind].to_pandas_dtype()
    values = array.astype(element, casting="same_kind", copy=False).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(values), math.prod(spec.shape))


def to_numpy(data: pa.Table | pa.RecordBatch, inputs: Mapping[str, InputSpec]) -> Columns:
    """The inverse of `to_arrow`: ids as objects, labels as float64, inputs of shape `(samples, *shape)`.

    An input of one chunk is a read-only view of the Arrow memory; several chunks are joined first.
    """
    return {
        name: _input_array(data.column(name), inputs[name].shape)
        if name in inputs
        else data.column(name).to_numpy(zero_copy_only=False)
        for name in data.schema.names
    }


def _input_array(column: pa.Array | pa.ChunkedArray, shape: tuple[int, ...]) -> NDArray[Any]:
    # `combine_chunks` copies even a single chunk.
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    array = chunks[0] if len(chunks) == 1 else column.combine_chunks()
    values: NDArray[Any] = array.flatten().to_numpy(zero_copy_only=True)
    return values.reshape(len(array), *shape)
