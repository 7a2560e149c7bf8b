"""Run with `pytest tests/pipelines/test_nyud2.py`."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dirtune.data.inspection import inspect_manifest
from dirtune.data.inspection_text import format_inspection
from dirtune.data.store import decode, read_manifest, read_split
from dirtune.errors import InputError
from dirtune.frozen import read
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest
from dirtune.pipelines.nyud2 import FIRST_BIN, OFFICIAL, Options, ingest
from dirtune.reweighting.density import shot_regions
from tests.pipelines.depth_scenes import (
    HEIGHT,
    OPTIONS,
    PER_SCENE,
    SCENES,
    TESTED,
    WIDTH,
    room,
    write_depth,
    write_image,
    write_scenes,
)

pytestmark = [
    pytest.mark.ray,
    pytest.mark.usefixtures("ray_session"),
    # Ray sets its own deprecated settings when it makes its first DataContext.
    pytest.mark.filterwarnings(r"ignore:.use_\w+. is deprecated:DeprecationWarning:ray.data.context"),
]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_scenes(folder)
    return folder


@pytest.fixture(scope="module")
def rooms(raw: Path, tmp_path_factory: pytest.TempPathFactory, ray_session: None) -> tuple[Storage, Manifest]:
    storage = Storage.open(tmp_path_factory.mktemp("data"))
    return storage, ingest(storage, raw, OPTIONS)


def _arrays(rooms: tuple[Storage, Manifest], split: str):
    return decode(read_split(*rooms, split), rooms[1])


def _millimeters(path: Path, split: str) -> np.ndarray:
    """The stored map of a raw file, pixel by pixel: every second one, its coding undone."""
    values = np.asarray(Image.open(path)).astype(float)
    if split != "test":
        values = values * 10_000 / 255
    return np.array([[round(values[2 * y + 1, 2 * x + 1]) for x in range(64)] for y in range(48)])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_depth_comes_back_in_millimeters_from_either_coding(
    raw: Path, rooms: tuple[Storage, Manifest], split: str
) -> None:
    arrays = _arrays(rooms, split)
    assert len(arrays["sample_id"]) > 0
    for row, sample_id in enumerate(arrays["sample_id"]):
        depth = sample_id.replace("_colors", "_depth") if split == "test" else sample_id[:-3] + "png"
        expected = _millimeters(raw / depth, split)
        np.testing.assert_array_equal(arrays["depth"][row, 0], expected)
        seen = expected[6:42, 8:56]
        assert arrays["label"][row] == pytest.approx(seen[seen > 0].mean() / 1000, rel=1e-12)
        assert arrays["image"][row].shape == (3, 48, 64)


def test_an_image_is_the_photograph(raw: Path, rooms: tuple[Storage, Manifest]) -> None:
    arrays = _arrays(rooms, "test")
    with Image.open(raw / arrays["sample_id"][0]) as image:
        expected = np.asarray(image.resize((64, 48), Image.Resampling.BILINEAR))
    difference = np.abs(arrays["image"][0].transpose(1, 2, 0).astype(int) - expected)
    # JPEG
    assert difference.mean() < 4


def test_validation_is_whole_places_of_the_training_list(rooms: tuple[Storage, Manifest]) -> None:
    places = {split: set(_arrays_of_groups(rooms, split)) for split in ("train", "val", "test")}
    assert places["test"] == {"test"}
    assert places["train"] | places["val"] == {"bookstore_0001", "kitchen_0029", "study_0003"}
    assert not places["train"] & places["val"]
    rows = {split: info.rows for split, info in rooms[1].splits.items()}
    assert rows["train"] + rows["val"] == len(SCENES) * PER_SCENE
    assert rows["val"] >= 0.3 * 20
    assert rows["test"] == TESTED
    assert rooms[1].notes[0].endswith("seed 0; the papers have no validation split and choose on the test set")


def _arrays_of_groups(rooms: tuple[Storage, Manifest], split: str) -> list[str]:
    return read_split(*rooms, split)["group"].to_pylist()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_histogram_counts_labeled_pixels_of_the_middle(rooms: tuple[Storage, Manifest], split: str) -> None:
    expected = [0] * 100
    for millimeters in _arrays(rooms, split)["depth"][:, 0, 6:42, 8:56].reshape(-1).tolist():
        if millimeters:
            expected[min(millimeters // 100, 99)] += 1
    assert list(rooms[1].splits[split].bin_counts) == expected


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_mask_has_the_same_number_of_pixels_of_every_bin_that_occurs(
    rooms: tuple[Storage, Manifest], split: str
) -> None:
    arrays = _arrays(rooms, split)
    # Nothing in the margin
    assert not arrays["mask"][:, :, :6].any()
    chosen = arrays["depth"][arrays["mask"] > 0]
    counts = np.bincount(np.minimum(chosen // 100, 99), minlength=100)
    totals = np.array(rooms[1].splits[split].bin_counts)
    occurring = (totals > 0) & (np.arange(100) >= FIRST_BIN)
    assert (chosen > 0).all()
    np.testing.assert_array_equal(counts, np.where(occurring, totals[occurring].min(), 0))


def test_training_has_no_mask(rooms: tuple[Storage, Manifest]) -> None:
    assert (_arrays(rooms, "train")["mask"] == 1).all()


def test_the_mask_is_drawn_from_the_seed(raw: Path, rooms: tuple[Storage, Manifest], tmp_path: Path) -> None:
    again = ingest(Storage.open(tmp_path / "again"), raw, OPTIONS)
    assert again.content_hash == rooms[1].content_hash
    other = Storage.open(tmp_path / "other")
    manifest = ingest(other, raw, OPTIONS.model_copy(update={"split_seed": 1}))
    mask, others = _arrays(rooms, "test")["mask"], _arrays((other, manifest), "test")["mask"]
    assert mask.sum() == others.sum()
    assert (mask != others).any()


def test_an_encoder_is_given_the_image_alone(rooms: tuple[Storage, Manifest]) -> None:
    storage, manifest = rooms
    assert read_manifest(storage, "nyud2") == manifest
    assert list(manifest.features) == ["image"]
    assert manifest.metrics == ("abs_rel", "log10", "delta1", "delta2", "delta3")
    assert manifest.group == "place"


def test_the_published_lists_are_those_of_the_published_counts() -> None:
    regions = shot_regions(np.zeros(100), OFFICIAL)
    assert [int((regions == each).sum()) for each in ("many", "medium", "few")] == [39, 15, 46]
    assert set(regions[:7]) == {"few"}


def test_the_count_rule_scales_the_published_thresholds(rooms: tuple[Storage, Manifest]) -> None:
    rule = rooms[1].shot_rules["counts"]
    pixels = sum(rooms[1].train_counts)
    assert rule.many_above == round(26e6 * pixels / (50_688 * 228 * 304))
    assert rule.few_below == round(10e6 * pixels / (50_688 * 228 * 304))


def test_an_inspection_says_that_pixels_are_counted(rooms: tuple[Storage, Manifest]) -> None:
    text = format_inspection(inspect_manifest(rooms[1]))
    assert "below, labeled pixels are counted" in text
    assert "training pixels per bin" in text
    assert f"{sum(rooms[1].train_counts):,}" in text


def test_an_unchanged_request_is_not_ingested_again(raw: Path, rooms: tuple[Storage, Manifest]) -> None:
    before = rooms[0].read("nyud2/manifest.json")
    assert ingest(rooms[0], raw, OPTIONS) == rooms[1]
    assert rooms[0].read("nyud2/manifest.json") == before


def _with_eight_bits_in_test(folder: Path) -> None:
    write_depth(folder / "nyu2_test/00001_depth.png", room("x"), bits=8)


def _with_sixteen_bits_in_training(folder: Path) -> None:
    write_depth(folder / "nyu2_train/study_0003_out/2.png", room("x"), bits=16)


def _with_a_smaller_map(folder: Path) -> None:
    write_depth(folder / "nyu2_train/study_0003_out/2.png", room("x")[:40], bits=8)


def _with_another_aspect(folder: Path) -> None:
    write_image(folder / "nyu2_train/study_0003_out/2.jpg", room("x")[:, :64])
    write_depth(folder / "nyu2_train/study_0003_out/2.png", room("x")[:, :64], bits=8)


def _without_depth(folder: Path) -> None:
    write_depth(folder / "nyu2_test/00002_depth.png", np.zeros((HEIGHT, WIDTH)), bits=16)


def _without_an_image(folder: Path) -> None:
    (folder / "nyu2_train/kitchen_0029b_out/3.jpg").unlink()


def _with_a_broken_image(folder: Path) -> None:
    path = folder / "nyu2_train/kitchen_0029b_out/3.jpg"
    path.write_bytes(path.read_bytes()[:200])


def _with_a_header(folder: Path) -> None:
    path = folder / "nyu2_train.csv"
    path.write_text("image,depth\n" + path.read_text())


def _with_three_columns(folder: Path) -> None:
    path = folder / "nyu2_test.csv"
    path.write_text(path.read_text().replace("\n", ",1\n"))


def _without_a_list(folder: Path) -> None:
    (folder / "nyu2_test.csv").unlink()


def _with_one_place(folder: Path) -> None:
    path = folder / "nyu2_train.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "study" in line))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (_with_eight_bits_in_test, r"00001_depth.png: depth of the test list must be .* 16 bits"),
        (_with_sixteen_bits_in_training, r"study_0003_out/2.png: depth of the train list must be .* 8 bits"),
        (_with_a_smaller_map, r"study_0003_out/2.png: must have the size of its image"),
        (_with_another_aspect, r"study_0003_out/2.png: must have the aspect 64:48"),
        (_without_depth, r"00002_depth.png: no pixel in the middle has a depth"),
        (_without_an_image, r"kitchen_0029b_out/3.jpg: no such file"),
        (_with_a_broken_image, r"kitchen_0029b_out/3.jpg: the image cannot be read"),
        (_with_a_header, r"nyu2_train.csv: every line must be an image and its depth.* got \[1\]"),
        (_with_three_columns, r"nyu2_test.csv: every line must be .* got \[1, 2, 3, 4, 5, 6\]"),
        (_without_a_list, r"nyu2_test.csv: the list cannot be read"),
        (_with_one_place, r"nyu2_train.csv: needs two places or more"),
    ],
)
def test_raw_files_that_cannot_be_used_are_refused_by_name(
    raw: Path, tmp_path: Path, spoil: Callable[[Path], None], told: str
) -> None:
    folder = tmp_path / "raw"
    shutil.copytree(raw, folder)
    spoil(folder)
    with pytest.raises(InputError, match=told):
        ingest(Storage.open(tmp_path / "data"), folder, OPTIONS)
    assert not (tmp_path / "data" / "nyud2" / "manifest.json").exists()


def test_a_middle_that_is_larger_than_the_image_is_refused() -> None:
    with pytest.raises(InputError, match="height and width must not be above"):
        read(Options, {"height": 241}, where="options")


def test_the_lists_of_the_benchmark_are_read_whole() -> None:
    shared = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "nyud2"
    if not shared.is_dir():
        pytest.skip("the lists of the benchmark are not here")
    from dirtune.pipelines.depth_files import read_list

    pairs = read_list(shared, "test")
    assert len(pairs) == 654
    assert pairs[0][:2] == ("nyu2_test/00000_colors.png", "nyu2_test/00000_depth.png")


def test_a_stored_map_of_eight_bits_is_refused(rooms: tuple[Storage, Manifest]) -> None:
    from dirtune.data.images import decode_images

    stream = io.BytesIO()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(stream, "PNG")
    with pytest.raises(InputError, match="stored per-pixel labels must be images of 16 bits, got 'uint8'"):
        decode_images([stream.getvalue()], rooms[1].inputs["depth"], name="depth")
