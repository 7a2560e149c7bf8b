"""Run with `pytest tests/data/test_columns.py`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dirtune.data.columns import Columns, as_stored, decode_table, get_decoded_size, get_stored_size, to_arrow, to_numpy
from dirtune.data.images import encode_counts
from dirtune.errors import InputError
from dirtune.manifest import InputSpec

INPUTS = {
    "image": InputSpec(kind="image", shape=(2, 3, 4)),
    "tokens": InputSpec(kind="tokens", shape=(5,), vocabulary=9),
    "vector": InputSpec(kind="vector", shape=(6,)),
}
PNG = {"image": InputSpec(kind="image", shape=(3, 4, 5), encoding="png")}


def _batch(rows: int, seed: int = 0) -> Columns:
    drawn = np.random.default_rng(seed)
    return {
        "sample_id": np.array([f"s{row}" for row in range(rows)], dtype=object),
        "label": drawn.normal(size=rows),
        "image": drawn.integers(0, 256, (rows, 2, 3, 4)).astype(np.uint8),
        "tokens": drawn.integers(0, 9, (rows, 5)).astype(np.int32),
        "vector": drawn.normal(size=(rows, 6)).astype(np.float32),
    }


def _pngs(rows: int, seed: int = 0) -> tuple[Columns, np.ndarray]:
    """A batch of PNG files, and the pixels in them."""
    pixels = np.random.default_rng(seed).integers(0, 256, (rows, 4, 5, 3)).astype(np.uint8)
    files = np.empty(rows, dtype=object)
    for row, image in enumerate(pixels):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        files[row] = stream.getvalue()
    ids = np.array([f"s{row}" for row in range(rows)], dtype=object)
    batch = {"sample_id": ids, "label": np.zeros(rows), "image": files}
    return batch, pixels.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_batch_survives_the_conversion_to_arrow_and_back(rows: int) -> None:
    batch = _batch(rows)
    restored = to_numpy(to_arrow(batch, INPUTS), INPUTS)
    assert list(restored) == list(batch)
    for name, array in batch.items():
        assert restored[name].dtype == array.dtype
        np.testing.assert_array_equal(restored[name], array)


def test_slices_and_several_chunks_keep_their_order() -> None:
    one, other = _batch(3, seed=1), _batch(4, seed=2)
    table = pa.concat_tables([to_arrow(one, INPUTS), to_arrow(other, INPUTS)]).slice(1, 5)
    restored = to_numpy(table, INPUTS)
    for name in INPUTS:
        expected = np.concatenate([one[name], other[name]])[1:6]
        np.testing.assert_array_equal(restored[name], expected)


def test_a_slice_of_one_chunk_holds_its_own_rows(tmp_path) -> None:
    batch = _batch(8)
    sliced = to_arrow(batch, INPUTS).slice(2, 3).combine_chunks()
    np.testing.assert_array_equal(to_numpy(sliced, INPUTS)["image"], batch["image"][2:5])
    part = to_arrow(batch, INPUTS).to_batches()[0].slice(5)
    np.testing.assert_array_equal(to_numpy(part, INPUTS)["image"], batch["image"][5:])


def test_one_chunk_is_decoded_without_a_copy() -> None:
    table = to_arrow(_batch(8), INPUTS)
    restored = to_numpy(table, INPUTS)
    image = table.column("image").chunk(0).buffers()[1]
    vector = table.column("vector").chunk(0).flatten().buffers()[1]
    assert restored["image"].__array_interface__["data"][0] == image.address
    assert restored["vector"].__array_interface__["data"][0] == vector.address


def test_raw_images_are_fixed_size_binary_in_parquet_too(tmp_path) -> None:
    pq.write_table(to_arrow(_batch(5), INPUTS), tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.field("image").type == pa.binary(24)
    np.testing.assert_array_equal(to_numpy(table, INPUTS)["image"], _batch(5)["image"])


def test_lists_of_version_1_are_still_read() -> None:
    images = _batch(5)["image"]
    lists = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 24)
    for column in (lists, pa.chunked_array([lists.slice(0, 2), lists.slice(2)])):
        restored = to_numpy(pa.table({"image": column}), INPUTS)["image"]
        np.testing.assert_array_equal(restored, images)


@pytest.mark.parametrize("rows", [0, 1, 4])
def test_encoded_images_are_decoded_to_pixels(rows: int) -> None:
    batch, pixels = _pngs(rows)
    table = to_arrow(batch, PNG)
    assert table.schema.field("image").type == pa.large_binary()
    restored = to_numpy(table, PNG)["image"]
    assert restored.dtype == np.uint8
    np.testing.assert_array_equal(restored, pixels)


def test_encoded_images_of_several_chunks_keep_their_order() -> None:
    (one, first), (other, second) = _pngs(2, seed=1), _pngs(3, seed=2)
    table = pa.concat_tables([to_arrow(one, PNG), to_arrow(other, PNG)])
    np.testing.assert_array_equal(to_numpy(table, PNG)["image"], np.concatenate([first, second]))


def test_a_decoded_table_holds_the_same_samples_as_raw_images() -> None:
    batch, pixels = _pngs(3)
    table = decode_table(to_arrow(batch, PNG), PNG)
    assert table.column_names == ["sample_id", "label", "image"]
    assert table.schema.field("image").type == pa.binary(60)
    np.testing.assert_array_equal(to_numpy(table, PNG)["image"], pixels)
    raw = to_arrow(_batch(3), INPUTS)
    assert decode_table(raw, INPUTS) == raw


def test_the_stored_bytes_of_an_encoded_image_are_its_file() -> None:
    batch, _ = _pngs(3)
    column = to_arrow(batch, PNG).column("image")
    assert as_stored(column, PNG["image"], "image") == batch["image"].tolist()
    raw = _batch(3)
    values = as_stored(to_arrow(raw, INPUTS).column("image"), INPUTS["image"], "image")
    assert np.asarray(values[1]).tobytes() == raw["image"][1].tobytes()


def test_a_stored_image_that_is_damaged_or_of_another_size_names_its_input() -> None:
    batch, _ = _pngs(2)
    batch["image"][1] = batch["image"][1][:40]
    with pytest.raises(InputError, match="image: a stored image cannot be decoded"):
        to_numpy(to_arrow(batch, PNG), PNG)
    wide = {"image": InputSpec(kind="image", shape=(3, 4, 6), encoding="png")}
    with pytest.raises(InputError, match=r"must have shape \(3, 4, 6\), got \(3, 4, 5\)"):
        to_numpy(to_arrow(_pngs(2)[0], wide), wide)


def test_groups_are_stored_where_the_set_has_them() -> None:
    batch = _batch(2) | {"group": np.array(["ann", "bob"], dtype=object)}
    table = to_arrow(batch, INPUTS, has_groups=True)
    assert table.column("group").to_pylist() == ["ann", "bob"]
    assert to_numpy(table, INPUTS)["group"].tolist() == ["ann", "bob"]
    assert "group" not in to_arrow(batch, INPUTS).column_names


def test_sizes_count_the_bytes_of_a_sample() -> None:
    assert [get_decoded_size(spec) for spec in INPUTS.values()] == [24, 20, 24]
    assert [get_stored_size(spec) for spec in INPUTS.values()] == [24, 20, 24]
    jpeg = InputSpec(kind="image", shape=(3, 224, 224), encoding="jpeg")
    assert get_decoded_size(jpeg) == 150_528
    assert get_stored_size(jpeg) < get_decoded_size(jpeg)


def test_columns_other_than_inputs_are_left_out() -> None:
    batch = _batch(2) | {"genre": np.array(["a", "b"])}
    assert "genre" not in to_arrow(batch, INPUTS).column_names


def test_an_unspecified_shape_is_an_error() -> None:
    batch = _batch(2) | {"vector": np.zeros((2, 7), np.float32)}
    with pytest.raises(ValueError, match=r"'vector' must have shape \(6,\), got \(7,\)"):
        to_arrow(batch, INPUTS)


def test_float_images_are_an_error_instead_of_truncated() -> None:
    batch = _batch(2) | {"image": np.full((2, 2, 3, 4), 0.5)}
    with pytest.raises(TypeError, match="same_kind"):
        to_arrow(batch, INPUTS)


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_labels_of_several_dimensions_are_restored_as_rows(rows: int) -> None:
    labels = np.random.default_rng(0).normal(size=(rows, 3))
    table = to_arrow({**_batch(rows), "label": labels}, INPUTS)
    assert table.schema.field("label").type == pa.list_(pa.float64(), 3)
    restored = to_numpy(table, INPUTS)["label"]
    assert restored.dtype == np.float64
    np.testing.assert_array_equal(restored, labels)


def test_label_rows_survive_slices_chunks_and_parquet(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).normal(size=(8, 2))
    table = to_arrow({**_batch(8), "label": labels}, INPUTS)
    pq.write_table(pa.concat_tables([table.slice(0, 5), table.slice(5)]), tmp_path / "a.parquet")
    for read in (pq.read_table(tmp_path / "a.parquet"), pa.concat_tables([table.slice(0, 3), table.slice(3)])):
        np.testing.assert_array_equal(to_numpy(read.slice(1, 6), INPUTS)["label"], labels[1:7])
    batch = table.combine_chunks().to_batches()[0].slice(2, 4)
    np.testing.assert_array_equal(to_numpy(batch, INPUTS)["label"], labels[2:6])


def test_labels_as_an_array_of_arrays_are_stored_equally() -> None:
    labels = np.random.default_rng(0).normal(size=(3, 2))
    ragged = np.empty(3, dtype=object)
    ragged[:] = list(labels)
    stored = [to_arrow({**_batch(3), "label": each}, INPUTS) for each in (labels, ragged)]
    assert stored[0].equals(stored[1])


@pytest.mark.parametrize("shape", [(4, 1), (4, 2, 2)])
def test_labels_that_are_neither_numbers_nor_vectors_are_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"labels must have shape .*got \(4, "):
        to_arrow({**_batch(4), "label": np.zeros(shape)}, INPUTS)


def test_per_pixel_labels_are_restored_exactly_from_both_encodings() -> None:
    drawn = np.random.default_rng(0)
    maps = drawn.integers(0, 2**15, (3, 1, 5, 7)).astype(np.int16)
    given = {"sample_id": np.array(["a", "b", "c"], dtype=object), "label": np.arange(3.0)}
    raw = {"depth": InputSpec(kind="dense_label", shape=(1, 5, 7))}
    png = {"depth": InputSpec(kind="dense_label", shape=(1, 5, 7), encoding="png")}
    files = np.array([encode_counts(each[0]) for each in maps], dtype=object)
    stored = to_arrow({**given, "depth": maps}, raw), to_arrow({**given, "depth": files}, png)
    for table, specs in [(stored[0], raw), (stored[1], png), (decode_table(stored[1], png), png)]:
        found = to_numpy(table.slice(1), specs)["depth"]
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, maps[1:])
    assert get_decoded_size(png["depth"]) == 2 * 35
