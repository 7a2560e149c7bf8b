from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dirtune.data.columns import Columns, to_arrow, to_numpy
from dirtune.manifest import InputSpec

INPUTS = {
    "image": InputSpec(kind="image", shape=(2, 3, 4)),
    "tokens": InputSpec(kind="tokens", shape=(5,), vocabulary=9),
    "vector": InputSpec(kind="vector", shape=(6,)),
}


def _batch(rows: int, seed: int = 0) -> Columns:
    drawn = np.random.default_rng(seed)
    return {
        "sample_id": np.array([f"s{row}" for row in range(rows)], dtype=object),
        "label": drawn.normal(size=rows),
        "image": drawn.integers(0, 256, (rows, 2, 3, 4)).astype(np.uint8),
        "tokens": drawn.integers(0, 9, (rows, 5)).astype(np.int32),
        "vector": drawn.normal(size=(rows, 6)).astype(np.float32),
    }


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_batch_comes_back_as_it_was(rows: int) -> None:
    batch = _batch(rows)
    restored = to_numpy(to_arrow(batch, INPUTS), INPUTS)
    assert list(restored) == list(batch)
    for name, array in batch.items():
        assert restored[name].dtype == array.dtype
        np.testing.assert_array_equal(restored[name], array)


def test_slices_and_several_chunks_come_back_in_order() -> None:
    one, other = _batch(3, seed=1), _batch(4, seed=2)
    table = pa.concat_tables([to_arrow(one, INPUTS), to_arrow(other, INPUTS)]).slice(1, 5)
    expected = np.concatenate([one["image"], other["image"]])[1:6]
    np.testing.assert_array_equal(to_numpy(table, INPUTS)["image"], expected)


def test_one_chunk_is_decoded_without_a_copy() -> None:
    table = to_arrow(_batch(8), INPUTS)
    decoded = to_numpy(table, INPUTS)["image"]
    stored = table.column("image").chunk(0).flatten().buffers()[1]
    assert decoded.__array_interface__["data"][0] == stored.address


def test_columns_that_are_no_input_are_left_out() -> None:
    batch = _batch(2) | {"genre": np.array(["a", "b"])}
    assert "genre" not in to_arrow(batch, INPUTS).column_names


def test_another_shape_than_specified_is_refused() -> None:
    batch = _batch(2) | {"vector": np.zeros((2, 7), np.float32)}
    with pytest.raises(ValueError, match=r"'vector' must have shape \(6,\), got \(7,\)"):
        to_arrow(batch, INPUTS)


def test_float_images_are_refused_rather_than_truncated() -> None:
    batch = _batch(2) | {"image": np.full((2, 2, 3, 4), 0.5)}
    with pytest.raises(TypeError, match="same_kind"):
        to_arrow(batch, INPUTS)
