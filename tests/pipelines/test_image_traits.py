"""Run with `pytest tests/pipelines/test_image_traits.py`: images whose files need more than a change of size."""

from __future__ import annotations

import io
import struct
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from dirtune.manifest import InputSpec
from dirtune.pipelines.image_files import _encode_batch, describe_traits, encode_file

SPEC = InputSpec(kind="image", shape=(1, 16, 16), encoding="png")


def _pixels(stored: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(stored)))


@pytest.mark.parametrize(
    ("orientation", "white"),
    [
        (1, np.s_[:8, :]),
        (2, np.s_[:8, :]),
        (3, np.s_[8:, :]),
        (4, np.s_[8:, :]),
        (5, np.s_[:, :8]),
        (6, np.s_[:, 8:]),
        (7, np.s_[:, 8:]),
        (8, np.s_[:, :8]),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_turned_as_viewers_show_them(
    tmp_path: Path, orientation: int, white: tuple[slice, slice], suffix: str
) -> None:
    pixels = np.zeros((16, 16), np.uint8)
    pixels[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}", exif=exif, **({"quality": 100} if suffix == "jpg" else {}))
    expected = np.zeros((16, 16))
    expected[white] = 255
    stored, rule, traits = encode_file(tmp_path / f"a.{suffix}", SPEC, upright=True)
    assert rule is None
    assert np.abs(_pixels(stored) - expected).max() < 5
    assert ("turned as their EXIF data say" in traits) == (orientation != 1)
    # The face benchmarks store them as they are.
    stored, _, traits = encode_file(tmp_path / f"a.{suffix}", SPEC)
    assert np.abs(_pixels(stored) - pixels).max() < 5
    assert ("not turned as their EXIF data say" in traits) == (orientation != 1)


def test_traits_of_all_images_are_counted(tmp_path: Path) -> None:
    deep = np.tile(np.linspace(0, 4095, 16).astype(np.uint16), (16, 1))
    Image.fromarray(deep).save(tmp_path / "dark.png")
    Image.fromarray(deep * 16).save(tmp_path / "deep.png")
    frames = [Image.new("L", (16, 16), shade) for shade in (0, 99)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    Image.new("RGBA", (16, 16), (255, 0, 0, 9)).save(tmp_path / "glass.png")
    Image.new("RGBA", (16, 16), (255, 0, 0, 255)).save(tmp_path / "opaque.png")
    traits = Counter[str]()
    for name in ("dark.png", "deep.png", "moving.gif", "glass.png", "opaque.png"):
        _, rule, own = encode_file(tmp_path / name, SPEC)
        assert rule is None
        traits.update(own)
    assert describe_traits(traits) == [
        "image modes: 2 I;16, 1 P, 2 RGBA",
        "more than 8 bits, of which 8 are stored: 2 images",
        "nearly black: no pixel reaches an eighth of white (`white` sets its value): 1 images",
        "several frames, of which the first is used: 1 images",
        "transparent pixels, shown on white: 1 images",
    ]
    # Pillow opens 16 bits of three channels as 8, which 12 of them nearly all miss.
    header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + np.repeat(row[:, None], 3, axis=1).astype(">u2").tobytes() for row in deep)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    (tmp_path / "colors.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(packed))
    _, _, own = encode_file(tmp_path / "colors.png", SPEC, upright=True)
    assert [trait[:12] for trait in own] == ["mode RGB", "more than 8 ", "nearly black"]
    assert "one channel" in str(encode_file(tmp_path / "colors.png", SPEC, white=4095)[1])
    # As X-rays are often stored
    Image.fromarray(deep).save(tmp_path / "inverted.tif", tiffinfo={262: 0})
    assert "WhiteIsZero" in str(encode_file(tmp_path / "inverted.tif", SPEC)[1])
    dark, _, _ = encode_file(tmp_path / "dark.png", SPEC, white=4095)
    assert _pixels(dark).max() == 255


def test_an_image_without_a_known_white_is_a_fault_with_its_remedy(tmp_path: Path) -> None:
    Image.fromarray(np.ones((16, 16), np.float32)).save(tmp_path / "a.tiff")
    _, rule, _ = encode_file(tmp_path / "a.tiff", SPEC)
    assert rule is not None
    assert "its pixels are floats, which have no largest value; `white` must name that of white" in rule
    stored, rule, _ = encode_file(tmp_path / "a.tiff", SPEC, white=2)
    assert rule is None
    assert set(_pixels(stored).flatten().tolist()) == {128}


@pytest.mark.parametrize("encoding", ["raw", "jpeg", "png"])
def test_a_block_may_have_no_rows_and_no_image_that_can_be_read(tmp_path: Path, encoding: str) -> None:
    spec = SPEC.model_copy(update={"encoding": encoding})
    for names in ([], ["none.jpg", "none.png"]):
        table = pa.table({"sample_id": pa.array(names, pa.string())})
        block = _encode_batch(table, tmp_path, spec, upright=True, white=None)
        assert block["image"].type == (pa.binary(spec.size) if encoding == "raw" else pa.large_binary())
        assert block["fault"].to_pylist() == ["no such image"] * len(names)
        assert block["moments"].type.list_size == 2 * spec.shape[0]
        if encoding == "raw":
            assert block["image"].null_count == len(names)
