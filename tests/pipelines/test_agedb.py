"""Run with `pytest tests/pipelines/test_agedb.py`."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from dirtune.data.inspection import Inspection, inspect
from dirtune.data.store import decode, read_manifest, read_split
from dirtune.data.views import make_transform
from dirtune.errors import InputError
from dirtune.frozen import to_identity
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines.agedb import LABEL, Options, ingest, parse_person
from dirtune.reweighting.density import label_bins, label_density

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "agedb" / "agedb.csv"
SMALL = Options(image_size=16)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

ROWS = [
    (31, "AgeDB/11706_OliviaHussey_31_f.jpg", "train"),
    (32, "AgeDB/11707_OliviaHussey_32_f.jpg", "train"),
    (101, "AgeDB/3_GeorgesMarchal_101_m.jpg", "train"),
    (5, "AgeDB/4_GeorgesMarchal_5_m.jpg", "train"),
    (44, "AgeDB/7955_GilbertRoland_44_m.jpg", "val"),
    (45, "AgeDB/7956_OliviaHussey_45_f.jpg", "val"),
    (59, "AgeDB/11684_MireilleDarc_59_f.jpg", "test"),
    (60, "AgeDB/11685_OliviaHussey_60_f.jpg", "test"),
]


def _picture(at: int) -> Image.Image:
    y, x = np.mgrid[:20, :30]
    pixels = np.stack([8 * x + at, 9 * y, 40 * at + x + y], axis=-1)
    return Image.fromarray((pixels % 256).astype(np.uint8))


def _raw(folder: Path, rows: list[tuple[object, ...]] | None = None) -> Path:
    (folder / "AgeDB").mkdir(parents=True, exist_ok=True)
    for at, (_, path, _) in enumerate(ROWS):
        _picture(at).save(folder / path, quality=95)
    lines = [",".join(map(str, row)) for row in rows or ROWS]
    (folder / "agedb.csv").write_text("\n".join(["age,path,split", *lines]) + "\n")
    return folder


def _ingest(root: Path, raw: Path, options: Options = SMALL) -> Manifest:
    return ingest(Storage.open(root), raw, options)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    folder = tmp_path_factory.mktemp("agedb")
    manifest = _ingest(folder / "data", _raw(folder / "raw"))
    return Storage.open(folder / "data"), manifest


def test_rows_are_split_as_the_list_says(small: tuple[Storage, Manifest]) -> None:
    for split in ("train", "val", "test"):
        arrays = decode(read_split(*small, split), small[1])
        expected = sorted((path, float(age)) for age, path, where in ROWS if where == split)
        assert list(zip(arrays["sample_id"], arrays["label"], strict=True)) == expected
        assert arrays["image"].shape == (len(expected), 3, 16, 16)


def test_the_frame_of_an_image_keeps_its_aspect_and_a_margin_for_crops(
    small: tuple[Storage, Manifest], tmp_path: Path
) -> None:
    manifest = _ingest(tmp_path / "data", _raw(tmp_path / "raw"), Options(image_size=16, frame="center"))
    spec = manifest.inputs["image"]
    assert (spec.shape, spec.view, manifest.features["image"].shape) == ((3, 18, 18), (16, 16), (3, 16, 16))
    arrays = decode(read_split(Storage.open(tmp_path / "data"), manifest, "test"), manifest)
    stored = torch.from_numpy(arrays["image"])
    found = make_transform(manifest.label, manifest.inputs).apply_evaluation({"image": stored})["image"]
    _picture(6).save(tmp_path / "a.jpg", quality=95)
    square = Compose([Resize(18), CenterCrop(18)])(Image.open(tmp_path / "a.jpg"))
    # The second JPEG compression
    square.save(tmp_path / "b.jpg", quality=95)
    expected = Compose([CenterCrop(16), ToTensor()])(Image.open(tmp_path / "b.jpg"))
    assert torch.equal(found[arrays["sample_id"].tolist().index("AgeDB/11684_MireilleDarc_59_f.jpg")], expected)
    assert manifest.fingerprint != small[1].fingerprint
    # Sets that were ingested before the option existed are found again.
    assert "frame" not in to_identity(SMALL)


def test_images_are_resized_without_their_aspect_and_nearly_kept_by_jpeg(
    small: tuple[Storage, Manifest], tmp_path: Path
) -> None:
    arrays = decode(read_split(*small, "test"), small[1])
    _picture(6).save(tmp_path / "a.jpg", quality=95)
    expected = Image.open(tmp_path / "a.jpg").resize((16, 16), Image.BILINEAR)
    row = arrays["sample_id"].tolist().index("AgeDB/11684_MireilleDarc_59_f.jpg")
    difference = arrays["image"][row].astype(float) - np.asarray(expected).transpose(2, 0, 1)
    assert np.abs(difference).mean() < 6
    assert small[1].inputs["image"].model_dump() == {
        "kind": "image",
        "shape": (3, 16, 16),
        "vocabulary": None,
        "encoding": "jpeg",
        "quality": 95,
        "view": None,
        "pixel_mean": None,
        "pixel_deviation": None,
    }


def test_groups_are_persons_and_crossing_ones_are_noted(small: tuple[Storage, Manifest]) -> None:
    storage, manifest = small
    assert manifest.group == "person"
    arrays = decode(read_split(storage, manifest, "val"), manifest)
    assert arrays["group"].tolist() == ["GilbertRoland", "OliviaHussey"]
    assert "1 group in both train and test: 1 of 2 test rows, 2 train rows" in manifest.notes


@pytest.mark.parametrize(("copies", "extra"), [("kept", 3), ("dropped", 0)])
def test_rows_that_a_list_repeats_are_kept_or_dropped(
    small: tuple[Storage, Manifest], tmp_path: Path, copies: Literal["kept", "dropped"], extra: int
) -> None:
    raw = _raw(tmp_path / "raw")
    age, path, split = next(row for row in ROWS if row[2] == "train")
    with (raw / "agedb.csv").open("a") as file:
        file.write(f"{age},{path},{split}\n" * 3)
    with pytest.raises(InputError, match="the image is already in line"):
        _ingest(tmp_path / "data", raw)
    manifest = _ingest(tmp_path / "data", raw, Options(image_size=16, copies=copies))
    found = decode(read_split(Storage.open(tmp_path / "data"), manifest, "train"), manifest)
    assert len(found["sample_id"]) == small[1].splits["train"].rows + extra
    rows = [row for row, name in enumerate(found["sample_id"]) if name.split("#")[0] == path]
    assert [found["sample_id"][row] for row in rows] == [path, *(f"{path}#{number}" for number in range(2, 2 + extra))]
    assert all((found["image"][row] == found["image"][rows[0]]).all() for row in rows)
    assert f"rows that repeat an image: 3, {copies}" in manifest.notes
    assert "copies" not in to_identity(SMALL)


def test_a_row_that_repeats_an_image_in_another_split_is_refused(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw")
    age, path, _ = next(row for row in ROWS if row[2] == "train")
    with (raw / "agedb.csv").open("a") as file:
        file.write(f"{age},{path},test\n")
    with pytest.raises(InputError, match="the image is already in line"):
        _ingest(tmp_path / "data", raw, Options(image_size=16, copies="kept"))


def test_ages_have_bins_of_one_year_and_the_range_of_the_paper() -> None:
    assert LABEL.label_range == 100.0
    bins = label_bins(np.arange(0.0, 122.0), LABEL)
    assert bins.tolist() == [*range(121), 120]


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("AgeDB/11706_OliviaHussey_31_f.jpg", "OliviaHussey"),
        ("AgeDB/1_A_B_31_m.jpg", "A_B"),
        ("AgeDB/../../1_A_31_m.jpg", None),
        ("/AgeDB/1_A_31_m.jpg", None),
        ("AgeDB/1_A_31_m.png", None),
        ("1_A_31_m.jpg", None),
    ],
)
def test_a_path_names_the_person(path: str, person: str | None) -> None:
    assert parse_person(path) == person


def test_an_equal_request_changes_nothing_and_another_one_is_ingested(tmp_path: Path) -> None:
    raw, root = _raw(tmp_path / "raw"), tmp_path / "data"
    first = _ingest(root, raw)
    times = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert _ingest(root, raw) == first
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == times
    other = _ingest(root, raw, Options(image_size=16, quality=60))
    assert other.content_hash != first.content_hash
    assert other.split_fingerprint == first.split_fingerprint
    assert _ingest(root, raw) == first.model_copy(update={"splits": read_manifest(Storage.open(root), "agedb").splits})
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(raw / ROWS[0][1])
    assert _ingest(root, raw).content_hash != first.content_hash


def test_bad_rows_and_images_are_named_together_and_the_old_version_stays(tmp_path: Path) -> None:
    raw, root = _raw(tmp_path / "raw"), tmp_path / "data"
    old = _ingest(root, raw)
    _raw(raw, [*ROWS, ("old", "AgeDB/1_A_1_m.jpg", "train"), (50, "AgeDB/2_B_50_m.jpg", "val")])
    whole = (raw / ROWS[0][1]).read_bytes()
    (raw / ROWS[0][1]).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError) as caught:
        # The list alone has a fault already
        _ingest(root, raw)
    assert len(caught.value.faults) == 1
    with pytest.raises(InputError) as caught:
        _ingest(root, raw, Options(image_size=16, skip_bad=2))
    row, truncated, missing = (str(fault) for fault in caught.value.faults)
    assert row == f"{raw}/agedb.csv:10: age: must be a number, got 'old'"
    assert truncated.startswith(f"{raw}/{ROWS[0][1]}: the image cannot be read (")
    assert missing == f"{raw}/AgeDB/2_B_50_m.jpg: no such image"
    assert read_manifest(Storage.open(root), "agedb") == old


def test_as_many_as_allowed_are_left_out_and_noted(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw", [*ROWS, (50, "AgeDB/2_B_50_m.jpg", "val"), (130, "x", "val")])
    manifest = _ingest(tmp_path / "data", raw, Options(image_size=16, skip_bad=2))
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert manifest.notes[-3:] == (
        "rows and images that cannot be used, left out: 2",
        f"left out: {raw}/agedb.csv:11: age: must be within 0..121, got 130.0",
        f"left out: {raw}/AgeDB/2_B_50_m.jpg: no such image",
    )


def test_of_many_missing_images_twenty_are_named_and_all_are_counted(tmp_path: Path) -> None:
    rows = [(20, f"AgeDB/{at}_A_20_m.jpg", "train") for at in range(100, 130)]
    with pytest.raises(InputError) as caught:
        _ingest(tmp_path / "data", _raw(tmp_path / "raw", [*ROWS, *rows]))
    assert len(caught.value.faults) == 21
    assert str(caught.value.faults[20]) == "agedb: 30 faults in all, 10 of them not shown"


def test_equal_images_in_two_splits_are_noted_and_dropped_on_demand(tmp_path: Path) -> None:
    raw = _raw(tmp_path / "raw")
    (raw / ROWS[0][1]).write_bytes((raw / ROWS[6][1]).read_bytes())
    manifest = _ingest(tmp_path / "data", raw)
    assert "1 content in both train and test: 1 of 2 test rows, 1 train rows" in manifest.notes
    cleaned = _ingest(tmp_path / "data", raw, Options(image_size=16, drop_leaks=True))
    assert cleaned.splits["train"].rows == 3
    assert ROWS[0][1] not in read_split(Storage.open(tmp_path / "data"), cleaned, "train")[0].to_pylist()


def test_another_split_can_be_chosen(small: tuple[Storage, Manifest], tmp_path: Path) -> None:
    options = Options(image_size=16, split="natural", split_seed=1)
    manifest = _ingest(tmp_path / "data", _raw(tmp_path / "raw"), options)
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 4, "val": 2, "test": 2}
    assert manifest.split_fingerprint != small[1].split_fingerprint
    assert "split: random, 2 val and 2 test rows, seed 1" in manifest.notes


def test_held_out_ages_become_a_shot_rule(tmp_path: Path) -> None:
    options = Options(image_size=16, hold_out="extrapolation", bands=((90.0, 121.0),))
    manifest = _ingest(tmp_path / "data", _raw(tmp_path / "raw"), options)
    assert manifest.splits["train"].rows == 3
    assert manifest.shot_rules["held_out"].many_bins == tuple(range(90))


def test_missing_raw_files_are_named(tmp_path: Path) -> None:
    storage = Storage.open(tmp_path / "data")
    with pytest.raises(InputError, match=r"raw: needs the folder of agedb\.csv and AgeDB/ \(`dirtune"):
        ingest(storage, None, SMALL)
    with pytest.raises(InputError, match="nowhere: no such folder"):
        ingest(storage, tmp_path / "nowhere", SMALL)
    with pytest.raises(InputError, match=r"agedb\.csv: no such file"):
        ingest(storage, tmp_path, SMALL)
    (tmp_path / "agedb.csv").write_text("age,path,split\n")
    with pytest.raises(InputError, match="need a password from their authors"):
        ingest(storage, tmp_path, SMALL)


def _published_rows() -> list[list[str]]:
    with REAL.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.skipif(not REAL.is_file(), reason="agedb.csv is not beside the repository")
def test_the_published_counts_come_out_of_the_real_list(tmp_path: Path) -> None:
    """With one small image under every real name."""
    raw = tmp_path / "raw"
    (raw / "AgeDB").mkdir(parents=True)
    (raw / "agedb.csv").write_bytes(REAL.read_bytes())
    Image.new("RGB", (8, 8), "gray").save(tmp_path / "one.jpg")
    for _, path, _ in _published_rows():
        (raw / path).hardlink_to(tmp_path / "one.jpg")
    manifest = _ingest(tmp_path, raw, Options(image_size=8))
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 12208, "val": 2140, "test": 2140}
    assert "agedb.csv is the list of YyzHarry/imbalanced-regression" in manifest.notes
    assert any("2,140 of 2,140 test rows" in note for note in manifest.notes)
    seen = inspect("agedb", root=tmp_path)
    assert [seen.count_samples("test", region) for region in ("many", "medium", "few")] == [1530, 448, 162]
    assert _train_samples(seen) == [11154, 851, 203]
    ages = Counter(int(age) for age, _, split in _published_rows() if split == "train")
    expected = label_density(np.array(sorted(ages.elements())), 121)
    assert manifest.train_counts == tuple(expected.tolist())


def _train_samples(seen: Inspection) -> list[int]:
    return [seen.count_samples("train", region) for region in ("many", "medium", "few")]
