"""Run with `pytest tests/pipelines/test_mpiigaze.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dirtune.data.store import decode, read_manifest, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines.eyes import DAYS, PERSONS, Eye, get_list_path, read_eyes
from dirtune.pipelines.mpiigaze import LABEL, Options, ingest
from dirtune.reweighting.density import label_bins
from tests.pipelines.gaze_files import photographs, write_all, write_day, write_list

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_all(folder)
    return folder


@pytest.fixture(scope="module")
def gaze(raw: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    storage = Storage.open(tmp_path_factory.mktemp("data"))
    return storage, ingest(storage, raw, Options())


def test_all_eyes_come_back_with_both_angles_pose_and_pixels(raw: Path, gaze: tuple[Storage, Manifest]) -> None:
    eyes = {eye.sample_id: eye for person in PERSONS for eye in read_eyes(raw, person) if isinstance(eye, Eye)}
    assert len(eyes) == 15 * 24 == sum(info.rows for info in gaze[1].splits.values())
    for split in gaze[1].splits:
        arrays = decode(read_split(*gaze, split), gaze[1])
        for row, sample_id in enumerate(arrays["sample_id"]):
            eye = eyes.pop(sample_id)
            assert arrays["label"][row].tolist() == list(eye.gaze)
            assert arrays["pose"][row].tolist() == np.float32(eye.pose).tolist()
            assert arrays["image"][row].tobytes() == eye.image
            assert arrays["group"][row] == eye.person
    assert not eyes


def test_validation_and_test_are_balanced_over_the_cells(gaze: tuple[Storage, Manifest]) -> None:
    counts = {split: np.array(info.bin_counts) for split, info in gaze[1].splits.items()}
    total = sum(counts.values())
    expected = np.minimum(total // 3, 10)
    assert expected.max() > 1
    for split in ("val", "test"):
        np.testing.assert_array_equal(counts[split], expected)


def test_the_manifest_describes_the_set(gaze: tuple[Storage, Manifest]) -> None:
    storage, manifest = gaze
    assert read_manifest(storage, "mpiigaze") == manifest
    assert (manifest.group, manifest.metrics) == ("participant", ("angular_error",))
    assert [axis.name for axis in manifest.label.axes] == ["pitch", "yaw"]
    assert manifest.notes[0].startswith("no split of this data set for imbalanced regression is published")
    assert manifest.notes[1].startswith("360 eyes of 15 participants, ")
    assert any(note.startswith("15 groups in both train and test") for note in manifest.notes)


def test_cells_have_two_degrees_to_a_side() -> None:
    degrees = np.array([[-40.0, -40.0], [-39.0, -37.0], [0.5, -0.5], [1.9, 2.1], [40.0, 40.0]])
    assert LABEL.num_bins == 40 * 40
    assert label_bins(np.radians(degrees), LABEL).tolist() == [0, 1, 819, 821, 1599]
    assert LABEL.label_range == pytest.approx(np.radians(80) * np.sqrt(2))


def test_grouped_splits_keep_participants_apart(raw: Path, tmp_path: Path) -> None:
    storage = Storage.open(tmp_path)
    manifest = ingest(storage, raw, Options(split="grouped"))
    groups = [
        set(decode(read_split(storage, manifest, split), manifest)["group"]) for split in ("train", "val", "test")
    ]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 15


def test_an_equal_request_finds_the_ingested_set_and_another_file_does_not(
    raw: Path, gaze: tuple[Storage, Manifest], tmp_path: Path
) -> None:
    storage, manifest = gaze
    before = storage.read("mpiigaze/manifest.json")
    assert ingest(storage, raw, Options()) == manifest
    assert storage.read("mpiigaze/manifest.json") == before
    write_all(tmp_path / "raw")
    write_day(tmp_path / "raw", "p00", "day02", photographs([(0.0, 0.0)], seed=3))
    other = ingest(Storage.open(tmp_path), tmp_path / "raw", Options())
    assert other.source["request"] != manifest.source["request"]
    # No list names the new day
    assert other.content_hash == manifest.content_hash


def test_faulty_lines_are_refused_together_unless_they_may_be_skipped(tmp_path: Path) -> None:
    write_all(tmp_path / "raw", per_person=9)
    (tmp_path / "raw" / DAYS / "p01" / "day01.mat").unlink()
    write_day(tmp_path / "raw", "p02", "day01", photographs([(0.0, 50.0), (1.0, 2.0)], seed=3))
    write_list(tmp_path / "raw", "p02", ["day01/0001.jpg left", "day01/0002.jpg left", "junk"])
    with pytest.raises(InputError) as caught:
        ingest(Storage.open(tmp_path), tmp_path / "raw", Options(skip_bad=19))
    texts = [str(fault) for fault in caught.value.faults]
    lines = get_list_path(tmp_path / "raw", "p01").resolve()
    assert texts[0] == f"{lines}:1: {(tmp_path / 'raw').resolve()}/{DAYS}/p01/day01.mat: no such file"
    assert len(texts) == 20
    assert texts[18] == "p02/day01/0001.jpg left: yaw: must be within -0.698132..0.698132 rad, got 0.8726646259971648"
    assert texts[19].endswith("not 'junk'")
    manifest = ingest(Storage.open(tmp_path), tmp_path / "raw", Options(skip_bad=20))
    assert sum(info.rows for info in manifest.splits.values()) == 13 * 18 + 1
    assert "lines that cannot be used, left out; faults: 20" in manifest.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "published"}, "the raw files name no splits"),
        ({"hold_out": "extrapolation"}, "hold_out and profile need the order of a label of one dimension"),
        ({"profile": "normal"}, "hold_out and profile need the order of a label of one dimension"),
    ],
)
def test_what_has_no_meaning_for_gaze_is_refused(
    raw: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        ingest(Storage.open(tmp_path), raw, read(Options, options, where="options"))


def test_missing_files_are_all_named(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the folder of Data/Normalized"):
        ingest(Storage.open(tmp_path), None, Options())
    with pytest.raises(InputError) as caught:
        ingest(Storage.open(tmp_path), tmp_path, Options())
    # The folder and the lists of 15 participants
    assert len(caught.value.faults) == 16
