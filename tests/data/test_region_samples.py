"""Run with `pytest tests/data/test_region_samples.py`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dirtune.data.inspection import Inspection, inspect_manifest
from dirtune.data.region_samples import RegionSamples, read_region_samples
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule, SplitInfo

LABEL = LabelSpec(name="age", unit="years", low=0, high=3, bin_width=1, num_bins=3)
# Many, medium, few
COUNTS = (120, 30, 4)
ROWS = sum(COUNTS)
LABELS = np.repeat([0.5, 1.5, 2.5], COUNTS) + np.arange(ROWS) / 1000
RAW = InputSpec(kind="image", shape=(1, 2, 3))


def _pixels(spec: InputSpec) -> np.ndarray:
    drawn = np.random.default_rng(0)
    return drawn.integers(0, 256, (ROWS, *spec.shape)).astype(np.uint8)


def _column(spec: InputSpec) -> pa.Array:
    if spec.encoding == "raw":
        return pa.array([image.tobytes() for image in _pixels(spec)], pa.binary(spec.size))
    files = []
    for image in _pixels(spec):
        stream = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(stream, "PNG")
        files.append(stream.getvalue())
    return pa.array(files, pa.large_binary())


def _write(root: Path, spec: InputSpec, *, shards: int = 1, label: LabelSpec = LABEL) -> Inspection:
    """The training split of a small set, its rows shuffled over shards of several row groups."""
    labels = pa.array(LABELS)
    if label.components:
        both = np.stack([LABELS, LABELS[::-1]], axis=1)
        labels = pa.FixedSizeListArray.from_arrays(pa.array(both.reshape(-1)), 2)
    ids = [f"id-{row:03d}" for row in range(ROWS)]
    table = pa.table({"sample_id": ids, "label": labels, "image": _column(spec)})
    table = table.take(np.random.default_rng(shards).permutation(ROWS))
    files = []
    for shard, rows in enumerate(np.array_split(np.arange(ROWS), shards)):
        files.append(f"version-0/train/{shard}.parquet")
        path = root / "ages" / files[-1]
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table.take(rows), path, row_group_size=20)
    info = SplitInfo(files=tuple(files), rows=ROWS, bin_counts=_counts(label))
    return inspect_manifest(
        Manifest(
            name="ages",
            inputs={"image": spec},
            label=label,
            shot_rules={"counts": ShotRule()},
            default_shot_rule="counts",
            splits={"train": info},
            content_hash="0" * 64,
            split_fingerprint="f" * 64,
        )
    )


def _counts(label: LabelSpec) -> tuple[int, ...]:
    if not label.components:
        return COUNTS
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (LABELS.astype(int), LABELS[::-1].astype(int)), 1)
    return tuple(counts.reshape(-1).tolist())


def _ids(found: tuple[RegionSamples, ...]) -> list[tuple[str, ...]]:
    return [region.sample_ids for region in found]


@pytest.mark.parametrize("spec", [RAW, InputSpec(kind="image", shape=(3, 4, 5), encoding="png")])
def test_every_region_has_its_own_samples_sorted_by_label(tmp_path: Path, spec: InputSpec) -> None:
    inspection, pixels = _write(tmp_path, spec, shards=2), _pixels(spec)
    found = read_region_samples(Storage.open(tmp_path), inspection, count=10)
    assert [region.region for region in found] == ["many", "medium", "few"]
    assert [len(region.images) for region in found] == [10, 10, 4]
    for bin_index, region in enumerate(found):
        rows = [int(sample_id.removeprefix("id-")) for sample_id in region.sample_ids]
        assert len(set(rows)) == len(rows)
        np.testing.assert_array_equal(region.labels, np.sort(LABELS[rows]))
        np.testing.assert_array_equal(region.labels, LABELS[rows])
        assert set(region.labels.astype(int)) == {bin_index}
        np.testing.assert_array_equal(region.images, pixels[rows])


def test_the_selection_depends_on_the_seed_and_not_on_shards(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    one = _ids(read_region_samples(storage, _write(tmp_path, RAW, shards=1)))
    three = _ids(read_region_samples(storage, _write(tmp_path, RAW, shards=3)))
    assert one == three
    other = _ids(read_region_samples(storage, _write(tmp_path, RAW, shards=1), seed=1))
    assert other[0] != one[0]


def test_labels_of_two_dimensions_are_pairs(tmp_path: Path) -> None:
    inspection = _write(tmp_path, RAW, label=LabelSpec.grid("both", "years", (LABEL, LABEL)))
    found = read_region_samples(Storage.open(tmp_path), inspection)
    for region in found:
        rows = [int(sample_id.removeprefix("id-")) for sample_id in region.sample_ids]
        expected = np.stack([LABELS[rows], LABELS[::-1][rows]], axis=1)
        np.testing.assert_array_equal(region.labels, expected)
        assert (np.diff(region.labels[:, 0]) > 0).all()
    assert [region.region for region in found] == ["medium", "few"]


def test_a_region_without_samples_is_left_out_and_a_set_without_images_has_none(tmp_path: Path) -> None:
    inspection = _write(tmp_path, RAW)
    rule = ShotRule(many_above=1000, few_below=20)
    manifest = inspection.manifest.model_copy(update={"shot_rules": {"counts": rule}})
    found = read_region_samples(Storage.open(tmp_path), inspect_manifest(manifest))
    assert [region.region for region in found] == ["medium", "few"]
    vector = {"image": InputSpec(kind="vector", shape=(6,))}
    without = inspect_manifest(manifest.model_copy(update={"inputs": vector}))
    assert read_region_samples(Storage.open(tmp_path), without) == ()


def test_errors_name_a_missing_split_or_shard(tmp_path: Path) -> None:
    inspection = _write(tmp_path, RAW, shards=2)
    with pytest.raises(InputError, match="unknown split, got 'test'; known: train"):
        read_region_samples(Storage.open(tmp_path), inspection, split="test")
    (tmp_path / "ages/version-0/train/1.parquet").write_bytes(b"half")
    with pytest.raises(InputError, match=r"train/1\.parquet: shard cannot be read"):
        read_region_samples(Storage.open(tmp_path), inspection)
