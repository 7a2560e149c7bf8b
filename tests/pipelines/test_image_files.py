"""Run with `pytest tests/pipelines/test_image_files.py`."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dirtune.manifest import InputSpec
from dirtune.pipelines.image_files import EncodedImages, compute_pixel_units, encode_images

SPEC = InputSpec(kind="image", shape=(3, 16, 16), encoding="jpeg", quality=90)
GOOD = ("color.jpg", "gray.jpg", "palette.png", "transparent.png", "wide.jpg")

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def _pixels(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("images")
    color = Image.fromarray(_pixels(24, 24))
    color.save(home / "color.jpg", quality=95)
    color.convert("L").save(home / "gray.jpg")
    color.convert("P").save(home / "palette.png")
    color.convert("RGBA").save(home / "transparent.png")
    Image.fromarray(_pixels(10, 50)).save(home / "wide.jpg")
    whole = (home / "color.jpg").read_bytes()
    (home / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (home / "empty.jpg").write_bytes(b"")
    (home / "text.jpg").write_text("no image")
    return home


@pytest.fixture(scope="module")
def found(folder: Path, ray_session: None) -> EncodedImages:
    names = [*GOOD, "truncated.jpg", "gone.jpg", "empty.jpg", "text.jpg"]
    table = pa.table({"sample_id": names, "label": list(range(len(names)))})
    return encode_images(table, folder, SPEC)


def test_every_image_is_resized_and_encoded_in_color(folder: Path, found: EncodedImages) -> None:
    rows = {row["sample_id"]: row for row in found.dataset.take_all()}
    assert [rows[name]["label"] for name in GOOD] == [0, 1, 2, 3, 4]
    for name in GOOD:
        expected = Image.open(folder / name).convert("RGB").resize((16, 16), Image.BILINEAR)
        stream = io.BytesIO()
        expected.save(stream, "JPEG", quality=90)
        assert rows[name]["image"] == stream.getvalue()
        assert found.contents[name] == hashlib.sha256(stream.getvalue()).digest()


def test_a_fault_of_an_image_is_reported_and_stops_no_other(folder: Path, found: EncodedImages) -> None:
    assert set(found.contents) == set(GOOD)
    said = {Path(fault.where).name: fault.rule for fault in found.faults}
    assert list(said) == ["empty.jpg", "gone.jpg", "text.jpg", "truncated.jpg"]
    assert said["gone.jpg"] == "no such image"
    for name in ("empty.jpg", "text.jpg", "truncated.jpg"):
        assert said[name].startswith("the image cannot be read (")
    assert all(Path(fault.where).parent == folder for fault in found.faults)


def test_many_images_are_read_by_several_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dirtune.pipelines.image_files._IMAGES_PER_TASK", 2)
    table = pa.table({"sample_id": list(GOOD)})
    images = encode_images(table, folder, SPEC)
    assert images.dataset.num_blocks() == 3
    assert set(images.contents) == set(GOOD)


def test_pixel_units_are_those_of_all_pixels_together(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    pixels[..., 2] = 51
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    table = pa.table({"sample_id": [f"{number}.png" for number in range(3)]})
    spec = InputSpec(kind="image", shape=(3, 32, 32), encoding="png")
    images = encode_images(table, tmp_path, spec)
    mean, deviation = compute_pixel_units([images.moments[f"{number}.png"] for number in (0, 2)])
    chosen = pixels[[0, 2]].reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, chosen.mean(axis=0), atol=6e-5)
    # A constant channel is not divided.
    np.testing.assert_allclose(deviation, [*chosen.std(axis=0)[:2], 1], atol=6e-5)
