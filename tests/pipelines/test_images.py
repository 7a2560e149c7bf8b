"""Run with `pytest tests/pipelines/test_images.py`."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dirtune.data.contract import read_contract
from dirtune.data.new_samples import read_new_samples
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines import images
from dirtune.pipelines.image_files import describe_missing, encode_file, find_equal_path
from dirtune.pipelines.images import Options
from dirtune.pipelines.sheets import read_sheet

SPLITS = ["train", "train", "val", "test", "train", "test"]


def _options(**given: object) -> Options:
    return read(Options, {"name": "photos", "label": "age", **given}, where="options")


def _raw(folder: Path) -> Path:
    """Six images of several formats and sizes, the last a copy of the first, and their list."""
    drawn = np.random.default_rng(0)
    names = ["a.png", "b.jpg", "sub/c.png", "d.bmp", "e.png"]
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(exist_ok=True)
        shape = (20 + place, 30, 3) if place % 2 == 0 else (16, 16)
        Image.fromarray(drawn.integers(0, 256, shape, dtype=np.uint8)).save(folder / name)
    (folder / "f.png").write_bytes((folder / "a.png").read_bytes())
    frame = {"path": [*names, "f.png"], "age": [10.0, 20.0, 30.0, 40.0, 50.0, 10.0], "part": SPLITS}
    pd.DataFrame(frame).to_csv(folder / "list.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _raw(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def ingested(raw: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    storage = Storage.open(tmp_path_factory.mktemp("data"))
    return storage, images.ingest(storage, raw, _options(split_column="part", image_size=12))


def _expected(path: Path, size: int, mode: str = "RGB") -> np.ndarray:
    image = Image.open(path).convert(mode).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image).reshape(size, size, -1).transpose(2, 0, 1)


@pytest.mark.ray
def test_small_images_are_stored_as_the_pixels_of_the_resized_files(
    raw: Path, ingested: tuple[Storage, Manifest]
) -> None:
    assert ingested[1].inputs["image"].encoding == "raw"
    seen = []
    for split in ("train", "val", "test"):
        arrays = decode(read_split(*ingested, split), ingested[1])
        for name, image in zip(arrays["sample_id"], arrays["image"], strict=True):
            np.testing.assert_array_equal(image, _expected(raw / name, 12))
            seen.append((name, split))
    listed = pd.read_csv(raw / "list.csv")
    assert sorted(seen) == sorted(zip(listed["path"], listed["part"], strict=True))


@pytest.mark.ray
def test_new_images_become_the_pixels_of_the_ingested_ones(raw: Path, ingested: tuple[Storage, Manifest]) -> None:
    contract = read_contract(*ingested)
    arrays = decode(read_split(*ingested, "train"), ingested[1])
    stored = dict(zip(arrays["sample_id"], arrays["image"], strict=True))
    files = [raw / name for name in stored]
    frame = pd.DataFrame({"path": list(map(str, files))})
    for given, expected in (
        (raw, None),
        (raw / "list.csv", None),
        (frame, None),
        (files, None),
        (raw / "a.png", ["a.png"]),
    ):
        samples = read_new_samples(given, contract)
        found = dict(zip(samples.sample_ids, samples.read(np.arange(len(samples)))["image"], strict=True))
        names = [name for name in stored if name in found or str(raw / name) in found]
        assert names == (expected or list(stored))
        for name in names:
            np.testing.assert_array_equal(found.get(name, found.get(str(raw / name))), stored[name])
    for wrong, sentence in (
        ([raw / "none.png"], "no such image"),
        (["n" * 300], "too long"),
        (raw / "list.txt", "no such image"),
    ):
        with pytest.raises(InputError, match=sentence):
            read_new_samples(wrong, contract)
    (raw / "bad.png").write_text("no image")
    samples = read_new_samples([raw / "bad.png"], contract)
    with pytest.raises(InputError, match="the image cannot be read"):
        samples.read(np.arange(1))
    (raw / "bad.png").unlink()


@pytest.mark.ray
def test_equal_images_in_two_splits_are_leaks(ingested: tuple[Storage, Manifest]) -> None:
    assert ingested[1].notes == (
        "split: as published",
        "1 content in both train and test: 1 of 2 test rows, 1 train rows",
        "labels: lowest 10 (row 2), 10 (row 7), 20 (row 3); highest 50 (row 6), 40 (row 5), 30 (row 4)",
        "test rows: 2; only large differences between methods can be shown",
        "columns: label: age; split column: part; image: path",
        "image modes: 2 L, 4 RGB",
    )


@pytest.mark.ray
def test_an_unchanged_request_returns_the_set_without_starting_ray(
    raw: Path, ingested: tuple[Storage, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(images.session, "ray_session")
    options = _options(split_column="part", image_size=12)
    assert images.ingest(ingested[0], raw / "list.csv", options) == ingested[1]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_encoded_images_keep_ids_groups_and_labels_and_damaged_ones_are_left_out(tmp_path: Path) -> None:
    raw = _raw(tmp_path)
    (raw / "e.png").write_bytes((raw / "e.png").read_bytes()[:200])
    listed = pd.read_csv(raw / "list.csv")
    listed = listed.assign(key=list("uvwxyz"), who=list("aabbcc"))
    # One image, two labels
    listed.loc[len(listed)] = ["b.jpg", 25.0, "train", "t", "a"]
    listed.to_parquet(raw / "list.parquet")
    (raw / "list.csv").unlink()
    settings = {"split_column": "part", "id": "key", "group": "who", "skip_bad": 1}
    options = _options(**settings, image_size=16, channels=1, encoding="png")
    storage = Storage.open(tmp_path / "data")
    manifest = images.ingest(storage, raw, options)
    assert manifest.inputs["image"].shape == (1, 16, 16)
    arrays = decode(read_split(storage, manifest, "train"), manifest)
    assert arrays["sample_id"].tolist() == ["t", "u", "v"]
    assert arrays["group"].tolist() == ["a", "a", "a"]
    assert arrays["label"].tolist() == [25.0, 10.0, 20.0]
    for row, name in enumerate(("b.jpg", "a.png", "b.jpg")):
        np.testing.assert_array_equal(arrays["image"][row], _expected(raw / name, 16, "L"))
    assert manifest.notes[-2] == "rows that cannot be used, left out: 1"
    assert "list.parquet:5: path: the image cannot be read (" in manifest.notes[-1]
    with pytest.raises(InputError, match=r"list\.parquet:5: path: the image cannot be read"):
        images.ingest(storage, raw, options.model_copy(update={"skip_bad": 0}))
    assert images.ingest(storage, raw, options) == manifest


def test_missing_images_are_named_by_row_before_ray_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(images.session, "ray_session")
    listed = pd.DataFrame({"path": ["no.png", "", "no.png"], "age": ["1", "2", "old"]})
    listed.to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(InputError) as caught:
        images.ingest(Storage.open(tmp_path / "data"), tmp_path, _options())
    found = [str(each).removeprefix(f"{tmp_path.resolve()}/list.csv") for each in caught.value.faults]
    assert found == [
        ":2: path: no such image, got 'no.png'",
        ":3: path: the cell is empty",
        ":4: id: the sample id is already in row 2, got 'no.png'",
        ":4: age: must be a finite number, got 'old'",
        ":4: path: no such image, got 'no.png'",
        ": skip_bad=3 leaves out the rows that cannot be used",
    ]


def test_the_file_that_a_wrong_path_means_is_named(tmp_path: Path) -> None:
    for name in ("sub/a.png", "b.PNG", "c.jpeg", "d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    rules = {
        "sub\\a.png": "no such image (there is 'sub/a.png')",
        "/sub/a.png": "no such image (there is 'sub/a.png')",
        "b.png": "no such image (there is 'b.PNG')",
        "c.jpg": "no such image (there is 'c.jpeg')",
        "d": "no such image (there is 'd.png')",
        "sub": "no such image: it is a folder",
        "link.png": "no such image: it is a link to a file that does not exist",
        "https://example.com/a.png": "no such image: it is a URL, whose file must be downloaded first",
        "e.png": "no such image",
        f"{'e' * 300}.png": "no such image: its path is too long for a file",
        f"sub/{'e' * 300}/a.png": "no such image: its path is too long for a file",
    }
    assert {path: describe_missing(tmp_path, path) for path in rules} == rules
    assert describe_missing(tmp_path / "sub", "d.png") == "no such image (there is '../d.png')"


def test_paths_with_differences_that_nobody_sees_are_found(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "\u00e9.png") for form in ("NFC", "NFD"))
    (tmp_path / decomposed).write_bytes(b"x")
    (tmp_path / "a.png").write_bytes(b"x")
    assert find_equal_path(tmp_path, " a.png\n") == "a.png"
    assert find_equal_path(tmp_path, composed) == decomposed
    assert find_equal_path(tmp_path, "b.png") is None
    assert find_equal_path(tmp_path, "b" * 300) is None


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS (`git lfs pull` fetches the file)"),
        (b"<html>404</html>", "a web page"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image; convert it to JPEG or PNG"),
        (bytes(128) + b"DICM", "a DICOM file; export it as PNG or TIFF"),
    ],
)
def test_files_of_another_kind_are_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    _, rule, _ = encode_file(tmp_path / "a.jpg", _options().image_spec)
    assert rule == f"the image cannot be read (it is {kind})"


def test_the_column_of_paths_is_found_by_its_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"any")
    listed = tmp_path / "list.csv"
    listed.write_text("age,file,note\n3,a.png,b.png\n")
    assert images.find_image_column(read_sheet(listed)) == "file"
    # Two columns of files, and a column of the usual name: nothing is guessed.
    (tmp_path / "b.png").write_bytes(b"any")
    assert images.find_image_column(read_sheet(listed)) == "path"
    listed.write_text(f"note,file\n{'b' * 300},a.png\n")
    assert images.find_image_column(read_sheet(listed)) == "file"
    listed.write_text("path,file\nx.png,a.png\n")
    assert images.find_image_column(read_sheet(listed)) == "path"


@pytest.mark.parametrize(
    ("given", "encoding"),
    [
        ({}, "jpeg"),
        ({"image_size": 64}, "raw"),
        ({"image_size": 65}, "jpeg"),
        ({"encoding": "raw"}, "raw"),
        ({"image_size": 32, "encoding": "jpeg", "quality": 80}, "jpeg"),
    ],
)
def test_small_images_are_raw_by_default(given: dict[str, object], encoding: str) -> None:
    stored = _options(**given).image_spec
    assert (stored.encoding, stored.quality) == (encoding, given.get("quality"))


def test_quality_without_jpeg_is_refused() -> None:
    with pytest.raises(InputError, match="quality needs encoding=jpeg"):
        _options(image_size=32, quality=90)
