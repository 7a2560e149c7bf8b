from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dirtune.data.splits import compute_split_fingerprint
from dirtune.data.store import (
    decode,
    find_ingested,
    list_datasets,
    list_shards,
    read_manifest,
    read_side_file,
    read_split,
    write_dataset,
)
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import InputSpec, LabelSpec, Manifest, ShotRule

INPUTS = {"image": InputSpec(kind="image", shape=(1, 2, 3)), "vector": InputSpec(kind="vector", shape=(4,))}
LABEL = LabelSpec(name="age", unit="years", low=0, high=10, bin_width=1, num_bins=10)
Row = dict[str, Any]

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def _rows(split: str, count: int) -> list[Row]:
    drawn = np.random.default_rng(count)
    return [
        {
            "sample_id": f"{split}-{row}",
            "label": row % 11 / 1.1,
            "image": drawn.integers(0, 256, (1, 2, 3)).astype(np.uint8),
            "vector": drawn.normal(size=4).astype(np.float32),
        }
        for row in range(count)
    ]


def _write(storage: Storage, splits: Mapping[str, list[Row]], *, blocks: int = 1, request: str = "r") -> Manifest:
    import ray.data

    datasets = {split: ray.data.from_items(rows, override_num_blocks=blocks) for split, rows in splits.items()}
    return write_dataset(
        storage,
        "ages",
        datasets,
        inputs=INPUTS,
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        source={"request": request},
        notes=("a note",),
        side_files={"words.json": b"{}"},
    )


@pytest.fixture
def one_shard_per_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirtune.data.shards.SHARD_BYTES", 1)


def _versions(storage: Storage) -> list[str]:
    return [folder for folder in storage.list_folders("ages") if folder.startswith("version-")]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage.open(tmp_path / "data")


def test_a_written_set_is_read_sorted_by_sample_id(storage: Storage) -> None:
    rows = {"train": _rows("train", 25), "test": _rows("test", 3)}
    manifest = _write(storage, rows, blocks=3)
    assert read_manifest(storage, "ages") == manifest
    for split, expected in rows.items():
        expected.sort(key=lambda row: row["sample_id"])
        arrays = decode(read_split(storage, manifest, split), manifest)
        for name in ("sample_id", "label", "image", "vector"):
            np.testing.assert_array_equal(arrays[name], [row[name] for row in expected])
    assert arrays["image"].shape == (3, 1, 2, 3)
    assert arrays["image"].dtype == np.uint8


def test_the_manifest_counts_the_samples_on_disk(storage: Storage) -> None:
    manifest = _write(storage, {"train": _rows("train", 25), "val": _rows("val", 2)})
    assert manifest.splits["train"].rows == 25
    # Labels are 0, 1/1.1, ..., 10/1.1 and start again; the first two share bin 0.
    assert manifest.train_counts == (6, 3, 2, 2, 2, 2, 2, 2, 2, 2)
    assert manifest.notes == ("a note",)
    assert list_datasets(storage) == ["ages"]
    assert read_side_file(storage, manifest, "words.json") == b"{}"


def test_the_content_hash_is_that_of_the_sorted_sample_digests(storage: Storage) -> None:
    splits = {"train": _rows("train", 5), "val": _rows("val", 2)}
    contents, places = [], []
    for split, rows in splits.items():
        for row in rows:
            text = f'["{split}","{row["sample_id"]}"]'.encode() + np.float64(row["label"]).tobytes()
            places.append(hashlib.sha256(text).digest())
            text += b'"image"' + row["image"].tobytes() + b'"vector"' + row["vector"].tobytes()
            contents.append(hashlib.sha256(text).digest())
    manifest = _write(storage, splits)
    assert manifest.content_hash == hashlib.sha256(b"".join(sorted(contents))).hexdigest()
    assert manifest.split_fingerprint == hashlib.sha256(b"".join(sorted(places))).hexdigest()


@pytest.mark.usefixtures("one_shard_per_block")
def test_shards_and_row_order_do_not_change_the_hashes(storage: Storage) -> None:
    rows = _rows("train", 12)
    one = _write(storage, {"train": rows}, blocks=1)
    other = _write(storage, {"train": rows[::-1]}, blocks=4)
    assert len(one.splits["train"].files) < len(other.splits["train"].files)
    assert one.content_hash == other.content_hash
    assert one.split_fingerprint == other.split_fingerprint


def test_small_blocks_are_merged_into_one_shard(storage: Storage) -> None:
    manifest = _write(storage, {"train": _rows("train", 12)}, blocks=4)
    assert len(manifest.splits["train"].files) == 1


def test_a_row_group_is_a_small_part_of_a_shard(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    # Of 6 + 16 bytes a row
    monkeypatch.setattr("dirtune.data.shards.ROW_GROUP_BYTES", 110)
    manifest = _write(storage, {"train": _rows("train", 12)}, blocks=2)
    (file,) = list_shards(storage, manifest, "train")
    found = pq.ParquetFile(file)
    groups = [found.metadata.row_group(at).num_rows for at in range(found.num_row_groups)]
    assert groups == [5, 5, 2]


def _encoded_rows() -> tuple[list[Row], np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 8, 6, 3)).astype(np.uint8)
    rows = []
    for at, image in enumerate(pixels):
        stream = io.BytesIO()
        Image.fromarray(image).save(stream, "PNG")
        person = f"person {at % 2}"
        rows.append({"sample_id": f"s{at}", "label": 1.0, "group": person, "image": stream.getvalue()})
    return rows, pixels.transpose(0, 3, 1, 2)


def test_encoded_images_and_groups_are_restored_and_the_hash_covers_the_stored_bytes(storage: Storage) -> None:
    import ray.data

    rows, pixels = _encoded_rows()
    spec = InputSpec(kind="image", shape=(3, 8, 6), encoding="png")
    manifest = write_dataset(
        storage,
        "faces",
        {"train": ray.data.from_items(rows)},
        inputs={"image": spec},
        label=LABEL,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        source={},
        group="person",
    )
    assert read_manifest(storage, "faces") == manifest
    assert manifest.group == "person"
    arrays = decode(read_split(storage, manifest, "train"), manifest)
    np.testing.assert_array_equal(arrays["image"], pixels)
    assert arrays["group"].tolist() == ["person 0", "person 1", "person 0"]
    digests = [
        hashlib.sha256(
            f'["train","{row["sample_id"]}"]'.encode() + np.float64(1).tobytes() + b'"image"' + row["image"]
        ).digest()
        for row in rows
    ]
    assert manifest.content_hash == hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def test_a_set_of_version_1_is_still_read(storage: Storage) -> None:
    rows = _rows("train", 4)
    manifest = _write(storage, {"train": rows})
    old = json.loads(manifest.model_dump_json()) | {"format_version": 1}
    del old["group"]
    for spec in old["inputs"].values():
        del spec["encoding"], spec["quality"]
    storage.write("ages/manifest.json", json.dumps(old).encode())
    images = np.stack([row["image"] for row in rows])
    lists = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 6)
    (file,) = list_shards(storage, manifest, "train")
    table = pq.read_table(file)
    at = table.column_names.index("image")
    pq.write_table(table.set_column(at, "image", lists), file)
    found = read_manifest(storage, "ages")
    assert found.format_version == 1
    assert found.content_hash == manifest.content_hash
    np.testing.assert_array_equal(decode(read_split(storage, found, "train"), found)["image"], images)


def test_another_pixel_changes_the_content_and_not_the_split(storage: Storage) -> None:
    rows = _rows("train", 4)
    one = _write(storage, {"train": rows})
    rows[2]["image"] = rows[2]["image"] ^ 1
    other = _write(storage, {"train": rows})
    assert one.content_hash != other.content_hash
    assert one.split_fingerprint == other.split_fingerprint


def test_a_sample_in_another_split_changes_the_split_fingerprint(storage: Storage) -> None:
    rows = _rows("train", 6)
    one = _write(storage, {"train": rows[:4], "val": rows[4:]})
    other = _write(storage, {"train": rows[:3], "val": rows[3:]})
    assert one.split_fingerprint != other.split_fingerprint


def test_a_new_version_replaces_the_previous_one_and_removes_files_of_a_kill(storage: Storage) -> None:
    _write(storage, {"train": _rows("train", 3)})
    storage.write("ages/version-dead/train/part.parquet", b"half")
    storage.write("ages/raw/mine.txt", b"keep me")
    manifest = _write(storage, {"train": _rows("train", 5)})
    assert _versions(storage) == [manifest.splits["train"].files[0].split("/")[0]]
    assert read_split(storage, manifest, "train").num_rows == 5
    assert storage.exists("ages/raw/mine.txt")
    assert not storage.exists(f"ages/{_versions(storage)[0]}/open")


def test_an_exception_while_ray_writes_keeps_the_previous_version_complete(storage: Storage) -> None:
    import ray.data

    old = _write(storage, {"train": _rows("train", 6)})

    def broken(batch: dict[str, Any]) -> dict[str, Any]:
        if "val-5" in batch["sample_id"]:
            raise RuntimeError("the disk is on fire")
        return batch

    val = ray.data.from_items(_rows("val", 6), override_num_blocks=2).map_batches(broken)
    with pytest.raises(ray.exceptions.RayTaskError, match="the disk is on fire"):
        write_dataset(
            storage,
            "ages",
            {"train": ray.data.from_items(_rows("train", 9)), "val": val},
            inputs=INPUTS,
            label=LABEL,
            shot_rules={"counts": ShotRule()},
            default_shot_rule="counts",
            source={},
        )
    assert read_manifest(storage, "ages") == old
    assert read_split(storage, old, "train").num_rows == 6
    assert len(_versions(storage)) == 1


def test_faulty_rows_keep_the_previous_version_complete(storage: Storage) -> None:
    old = _write(storage, {"train": _rows("train", 6)})
    rows = _rows("train", 3)
    rows[1]["label"] = float("nan")
    with pytest.raises(InputError, match=r"train\.train-1: age must be within 0\.\.10, got nan"):
        _write(storage, {"train": rows})
    assert read_manifest(storage, "ages") == old
    assert len(_versions(storage)) == 1


def test_a_first_ingest_that_fails_leaves_no_data_set(storage: Storage) -> None:
    with pytest.raises(InputError, match="val: the split has no samples"):
        _write(storage, {"train": _rows("train", 3), "val": []})
    assert list_datasets(storage) == []
    assert _versions(storage) == []


def test_an_ingest_fails_if_another_one_finished_first(storage: Storage) -> None:
    import ray.data

    home = storage.path("ages")

    def overtaken(batch: dict[str, Any]) -> dict[str, Any]:
        import pathlib

        for marker in pathlib.Path(home).glob("version-*/open"):
            marker.unlink()
        return batch

    train = ray.data.from_items(_rows("train", 3)).map_batches(overtaken)
    with pytest.raises(InputError, match="another ingest of this data set finished meanwhile"):
        write_dataset(
            storage,
            "ages",
            {"train": train},
            inputs=INPUTS,
            label=LABEL,
            shot_rules={"counts": ShotRule()},
            default_shot_rule="counts",
            source={},
        )
    assert list_datasets(storage) == []


def test_a_set_without_training_split_is_a_programming_error(storage: Storage) -> None:
    with pytest.raises(ValueError, match="a train split"):
        _write(storage, {"val": _rows("val", 3)})


def test_a_complete_set_is_found_by_an_equal_request(storage: Storage) -> None:
    assert find_ingested(storage, "ages", "r") is None
    manifest = _write(storage, {"train": _rows("train", 3)}, request="r")
    assert find_ingested(storage, "ages", "r") == manifest
    assert find_ingested(storage, "ages", "s") is None
    storage.remove(f"ages/{manifest.splits['train'].files[0]}")
    assert find_ingested(storage, "ages", "r") is None


def test_a_set_that_is_not_ingested_names_the_command_and_the_known_sets(storage: Storage) -> None:
    _write(storage, {"train": _rows("train", 3)})
    storage.write("half/notes.txt", b"no manifest here")
    with pytest.raises(InputError) as caught:
        read_manifest(storage, "agse")
    assert "not ingested (own data: `dirtune ingest table --raw FILE --option name=agse " in str(caught.value)
    assert "got 'agse'; known: ages" in str(caught.value)
    assert "did you mean 'ages'" in str(caught.value)
    with pytest.raises(InputError, match=r"not ingested \(`dirtune ingest agedb` does it\)"):
        read_manifest(storage, "agedb")


def test_a_damaged_manifest_is_an_error_with_its_path(storage: Storage) -> None:
    manifest = _write(storage, {"train": _rows("train", 3)})
    storage.write("ages/manifest.json", b'{"name": "ages"')
    with pytest.raises(InputError, match=r"ages/manifest\.json: damaged manifest"):
        read_manifest(storage, "ages")
    raw = json.loads(manifest.model_dump_json()) | {"format_version": 3}
    storage.write("ages/manifest.json", json.dumps(raw).encode())
    with pytest.raises(InputError, match=r"ages/manifest\.json: format_version"):
        read_manifest(storage, "ages")


@pytest.mark.usefixtures("one_shard_per_block")
def test_errors_name_missing_damaged_and_incomplete_shards(storage: Storage) -> None:
    manifest = _write(storage, {"train": _rows("train", 8)}, blocks=2)
    first, second = (f"ages/{file}" for file in manifest.splits["train"].files)
    whole, other = storage.read(first), storage.read(second)
    storage.write(first, whole[: len(whole) // 2])
    with pytest.raises(InputError, match=f"{first}: shard cannot be read"):
        read_split(storage, manifest, "train")
    storage.remove(first)
    with pytest.raises(InputError, match=f"{first}: shard cannot be read"):
        read_split(storage, manifest, "train")
    storage.write(first, other)
    info = manifest.splits["train"].model_copy(update={"rows": 9})
    longer = manifest.model_copy(update={"splits": {"train": info}})
    with pytest.raises(InputError, match="9 samples expected; ingest the data set again, got 8"):
        read_split(storage, longer, "train")


def test_unknown_splits_and_side_files_list_the_known_ones(storage: Storage) -> None:
    manifest = _write(storage, {"train": _rows("train", 3)})
    with pytest.raises(InputError, match="unknown split, got 'dev'; known: train"):
        list_shards(storage, manifest, "dev")
    with pytest.raises(InputError, match=r"no such side file, got 'x'; known: words\.json"):
        read_side_file(storage, manifest, "x")


@pytest.mark.usefixtures("one_shard_per_block")
def test_ray_data_reads_the_shards_by_their_full_paths(storage: Storage) -> None:
    import ray.data

    manifest = _write(storage, {"train": _rows("train", 10)}, blocks=2)
    files = list_shards(storage, manifest, "train")
    assert len(files) == 2
    dataset = ray.data.read_parquet(files, filesystem=storage.filesystem)
    batches = [decode(batch, manifest) for batch in dataset.iter_batches(batch_format="pyarrow")]
    images = np.concatenate([batch["image"] for batch in batches])
    ids = [sample_id for batch in batches for sample_id in batch["sample_id"]]
    by_id = {row["sample_id"]: row["image"] for row in _rows("train", 10)}
    assert sorted(ids) == sorted(by_id)
    np.testing.assert_array_equal(images, [by_id[sample_id] for sample_id in ids])


GAZE = LabelSpec.grid(
    "gaze",
    "rad",
    (
        LabelSpec(name="pitch", unit="rad", low=-1, high=1, bin_width=0.5, num_bins=4),
        LabelSpec(name="yaw", unit="rad", low=-2, high=1, bin_width=0.5, num_bins=6),
    ),
)


def _write_gazes(storage: Storage, rows: list[Row], **settings: Any) -> Manifest:
    import ray.data

    return write_dataset(
        storage,
        "gazes",
        {"train": ray.data.from_items(rows, override_num_blocks=2)},
        inputs={},
        label=GAZE,
        shot_rules={"counts": ShotRule()},
        default_shot_rule="counts",
        source={},
        **settings,
    )


@pytest.mark.usefixtures("one_shard_per_block")
@pytest.mark.parametrize("form", [list, np.array], ids=["lists", "arrays"])
def test_labels_of_two_dimensions_are_written_counted_hashed_and_read(storage: Storage, form: Any) -> None:
    labels = np.random.default_rng(0).uniform([-1, -2], [1, 1], (9, 2))
    rows = [{"sample_id": f"s{at}", "label": form(label)} for at, label in enumerate(labels)]
    manifest = _write_gazes(storage, rows, metrics=("angular_error",))
    assert read_manifest(storage, "gazes") == manifest
    assert (manifest.label, manifest.metrics) == (GAZE, ("angular_error",))
    np.testing.assert_array_equal(decode(read_split(storage, manifest, "train"), manifest)["label"], labels)

    counts = [0] * 24
    for pitch, yaw in labels.tolist():
        counts[6 * int((pitch + 1) // 0.5) + int((yaw + 2) // 0.5)] += 1
    assert manifest.train_counts == tuple(counts)
    digests = [
        hashlib.sha256(f'["train","s{at}"]'.encode() + label.tobytes()).digest() for at, label in enumerate(labels)
    ]
    assert manifest.split_fingerprint == hashlib.sha256(b"".join(sorted(digests))).hexdigest()
    assert compute_split_fingerprint(np.full(9, "train"), np.array([f"s{at}" for at in range(9)]), labels) == (
        manifest.split_fingerprint
    )


def test_labels_of_other_dimensions_and_unknown_metrics_are_errors(storage: Storage) -> None:
    with pytest.raises(InputError, match=r"gaze must be 2 numbers, got 0\.5"):
        _write_gazes(storage, [{"sample_id": "a", "label": 0.5}])
    with pytest.raises(ValueError, match=r"unknown metrics \['angle'\]; known: .*'angular_error'"):
        _write_gazes(storage, [{"sample_id": "a", "label": [0.5, 0.5]}], metrics=("angle",))
    assert list_datasets(storage) == []
