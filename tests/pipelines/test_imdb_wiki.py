"""Run with `pytest tests/pipelines/test_imdb_wiki.py`."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines.imdb_wiki import LABEL, Options, compute_ages, ingest, parse_person, read_metadata
from dirtune.reweighting.density import label_bins

SMALL = Options(image_size=16)

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]

LIST = [
    (68, "imdb_crop/01/nm0000001_rm124825600_1899-5-10_1968.jpg", "train"),
    (186, "imdb_crop/01/nm0000001_rm3343756032_1899-5-10_1970.jpg", "train"),
    (28, "wiki_crop/17/10000217_1981-05-05_2009.jpg", "val"),
    (0, "wiki_crop/48/10000548_1925-04-04_1964.jpg", "test"),
]


def _image(folder: Path, path: str, shade: int) -> None:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 30), (shade, 90, 255 - shade)).save(folder / path)


def _serial(day: date) -> int:
    return day.toordinal() + 366


# name, birth, year of the photograph, face score, second face score, age or none if it is left out
METADATA = [
    ("01/nm1_rm1_1950-06-30_2000.jpg", date(1950, 6, 30), 2000, 1.0, np.nan, 50),
    ("01/nm1_rm2_1950-07-01_2000.jpg", date(1950, 7, 1), 2000, 3.5, 0.0, 49),
    ("02/nm2_rm3_1800-01-01_2000.jpg", date(1800, 1, 1), 2000, 2.0, np.nan, 200),
    ("02/nm2_rm4_1799-12-31_2000.jpg", date(1799, 12, 31), 2000, 2.0, np.nan, 200),
    # 201
    ("02/nm2_rm5_1799-01-01_2000.jpg", date(1799, 1, 1), 2000, 2.0, np.nan, None),
    # -10
    ("03/nm3_rm6_1990-01-01_1980.jpg", date(1990, 1, 1), 1980, 2.0, np.nan, None),
    ("03/nm3_rm7_1950-01-01_2000.jpg", date(1950, 1, 1), 2000, 0.99, np.nan, None),
    ("03/nm3_rm8_1950-01-01_2000.jpg", date(1950, 1, 1), 2000, -np.inf, np.nan, None),
    ("03/nm3_rm9_1950-01-01_2000.jpg", date(1950, 1, 1), 2000, 2.0, 1.5, None),
    ("04/nm4_rm0_1950-01-01_1950.jpg", date(1950, 1, 1), 1950, 2.0, np.nan, 0),
]


def _metadata(file: Path, archive: str) -> None:
    """As the published files: one record with a row vector per field."""
    names, births, years, scores, seconds, _ = zip(*METADATA, strict=True)
    record = {
        "dob": np.array([[_serial(day) for day in births]], dtype=np.uint32),
        "photo_taken": np.array([years], dtype=np.uint16),
        "full_path": np.array([names], dtype=object),
        "face_score": np.array([scores]),
        "second_face_score": np.array([seconds]),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    savemat(file, {archive: record})


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    for shade, (_, path, _) in enumerate(LIST):
        _image(folder, path, 50 * shade)
    lines = [",".join(map(str, row)) for row in LIST]
    (folder / "imdb_wiki.csv").write_text("\n".join(["age,path,split", *lines]) + "\n")
    for archive in ("imdb", "wiki"):
        _metadata(folder / f"{archive}_crop" / f"{archive}.mat", archive)
        for shade, (name, *_, age) in enumerate(METADATA):
            if age is not None:
                _image(folder, f"{archive}_crop/{name}", 9 * shade + (archive == "imdb"))
    return folder


def _ages(root: Path, manifest: Manifest) -> dict[str, float]:
    ages = {}
    for split in manifest.splits:
        arrays = decode(read_split(Storage.open(root), manifest, split), manifest)
        ages |= dict(zip(arrays["sample_id"].tolist(), arrays["label"].tolist(), strict=True))
    return ages


def test_the_list_decides_ages_and_splits(tmp_path: Path, raw: Path) -> None:
    manifest = ingest(Storage.open(tmp_path), raw, SMALL)
    assert _ages(tmp_path, manifest) == {path: age for age, path, _ in LIST}
    for split, info in manifest.splits.items():
        assert info.rows == sum(where == split for *_, where in LIST)
    # The age of 186
    assert manifest.train_counts[120] == 1
    train = read_split(Storage.open(tmp_path), manifest, "train")
    assert set(train["group"].to_pylist()) == {"imdb nm0000001"}


def test_the_metadata_are_filtered_as_published(tmp_path: Path, raw: Path) -> None:
    options = Options(image_size=16, metadata="mat", split="made")
    manifest = ingest(Storage.open(tmp_path), raw, options)
    # Of four aged 200, one each; the other ages have two.
    assert [info.rows for info in manifest.splits.values()] == [8, 1, 1]
    expected = {
        f"{archive}_crop/{name}": age for archive in ("imdb", "wiki") for name, *_, age in METADATA if age is not None
    }
    assert _ages(tmp_path, manifest) == expected
    assert manifest.notes[:2] == ("imdb.mat: 5 of 10 faces kept", "wiki.mat: 5 of 10 faces kept")


def test_metadata_have_no_published_split(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(InputError, match="name no splits; choose how to make them"):
        ingest(Storage.open(tmp_path), raw, Options(image_size=16, metadata="mat"))


@pytest.mark.parametrize(
    ("birth", "year", "age"),
    [
        (_serial(date(1950, 6, 30)), 2000, 50),
        (_serial(date(1950, 7, 1)), 2000, 49),
        (_serial(date(1970, 1, 1)), 1969, -1),
        (_serial(date(2012, 12, 31)), 2012, -1),
        (_serial(date(1, 1, 1)), 2000, 1999),
        # Before the first day that Python counts
        (5, 2000, 1999),
        # With a time of day: 2007-01-02
        (733_043.7, 2010, 3),
    ],
)
def test_the_age_is_that_in_the_middle_of_the_year_and_never_wraps_around(birth: float, year: int, age: int) -> None:
    assert compute_ages(np.array([birth]), np.array([year], np.uint16)).tolist() == [age]


def test_ages_agree_with_a_loop_over_dates() -> None:
    drawn = np.random.default_rng(0)
    days = drawn.integers(367, 740_000, 300)
    years = drawn.integers(1900, 2016, 300).astype(np.uint16)
    expected = []
    for day, year in zip(days.tolist(), years.tolist(), strict=True):
        birth = date.fromordinal(day - 366)
        expected.append(year - birth.year - (0 if birth.month < 7 else 1))
    assert compute_ages(days, years).tolist() == expected


def test_ages_beyond_120_share_the_last_bin_and_the_range_is_the_papers() -> None:
    assert label_bins([0.0, 119.9, 120.0, 121.0, 186.0], LABEL).tolist() == [0, 119, 120, 120, 120]
    assert LABEL.label_range == 100.0


@pytest.mark.parametrize(
    ("path", "person"),
    [
        ("imdb_crop/01/nm0000001_rm124825600_1899-5-10_1968.jpg", "imdb nm0000001"),
        ("wiki_crop/17/10000217_1981-05-05_2009.jpg", "wiki 10000217"),
        ("other_crop/17/10000217_1981-05-05_2009.jpg", None),
        ("imdb_crop/../nm1_rm1_1.jpg", None),
        ("imdb_crop/01/../nm1_rm1_1.jpg", None),
    ],
)
def test_a_path_names_the_person(path: str, person: str | None) -> None:
    assert parse_person(path) == person


def test_files_that_are_no_metadata_are_named(tmp_path: Path, raw: Path) -> None:
    with pytest.raises(InputError, match=r"none\.mat: no such file"):
        read_metadata(tmp_path / "none.mat", "imdb")
    (tmp_path / "text.mat").write_text("not a Matlab file, but long enough to be read as one " * 9)
    with pytest.raises(InputError, match=r"text\.mat: must be the metadata of imdb_crop, with dob"):
        read_metadata(tmp_path / "text.mat", "imdb")
    with pytest.raises(InputError, match=r"wiki\.mat: must be the metadata of imdb_crop"):
        read_metadata(raw / "wiki_crop" / "wiki.mat", "imdb")


def test_missing_raw_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"raw: needs the folder of imdb_wiki\.csv, imdb_crop/ and"):
        ingest(Storage.open(tmp_path), None, SMALL)
    with pytest.raises(InputError, match=r"imdb_wiki\.csv: no such file"):
        ingest(Storage.open(tmp_path), tmp_path, SMALL)
    with pytest.raises(InputError, match=r"imdb\.mat: no such file"):
        ingest(Storage.open(tmp_path), tmp_path, Options(metadata="mat"))
