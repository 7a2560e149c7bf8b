"""Run with `pytest tests/data/test_images.py`."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

from dirtune.data.images import JPEG_QUALITY, convert_image, decode_images, encode_image
from dirtune.data.views import make_transform
from dirtune.errors import InputError
from dirtune.manifest import InputSpec, LabelSpec

LABEL = LabelSpec(name="age", unit="years", low=0, high=120, bin_width=1, num_bins=120)
JPEG = InputSpec(kind="image", shape=(3, 32, 48), encoding="jpeg", quality=95)
PNG = InputSpec(kind="image", shape=(3, 32, 48), encoding="png")


def _smooth(height: int = 32, width: int = 48) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 4 * y, 2 * (x + y)], axis=-1).astype(np.uint8)


def test_png_keeps_every_pixel() -> None:
    pixels = _smooth()
    stored = encode_image(Image.fromarray(pixels), PNG)
    np.testing.assert_array_equal(decode_images([stored, stored], PNG, name="image")[1], pixels.transpose(2, 0, 1))


def test_jpeg_approximates_a_smooth_image() -> None:
    pixels = _smooth()
    restored = decode_images([encode_image(Image.fromarray(pixels), JPEG)], JPEG, name="image")[0]
    difference = restored.astype(float) - pixels.transpose(2, 0, 1)
    assert np.abs(difference).mean() < 1.5


def test_a_lower_quality_needs_fewer_bytes_and_the_default_is_95() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 48, 3)).astype(np.uint8)
    image = Image.fromarray(noise)
    low = JPEG.model_copy(update={"quality": 50})
    unsaid = JPEG.model_copy(update={"quality": None})
    assert JPEG_QUALITY == 95
    assert len(encode_image(image, low)) < len(encode_image(image, JPEG))
    assert encode_image(image, unsaid) == encode_image(image, JPEG)


@pytest.mark.parametrize("size", [(300, 300), (341, 257), (257, 400), (120, 90), (64, 203), (224, 225)])
def test_the_center_of_an_input_with_a_view_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """Resize(256) and CenterCrop(224), on which ACCon and Rank-N-Contrast evaluate AgeDB."""
    spec = InputSpec(kind="image", shape=(3, 256, 256), encoding="png", view=(224, 224))
    pixels = np.random.default_rng(0).integers(0, 256, (*size[::-1], 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG")
    image = Image.open(stream).convert("RGB")
    stored = decode_images([encode_image(convert_image(image, spec), spec)], spec, name="image")
    inputs = {"image": torch.from_numpy(stored)}
    found = make_transform(LABEL, {"image": spec}).apply_evaluation(inputs)["image"]
    judge = Compose([Resize(256), CenterCrop(224), ToTensor()])
    assert torch.equal(found[0], judge(image))
    assert spec.make_seen().shape == (3, 224, 224)


@pytest.mark.parametrize("changes", [{"view": (33, 20)}, {"kind": "vector", "shape": (3,), "encoding": "raw"}])
def test_a_view_is_within_the_stored_images(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="view must be within the stored images"):
        InputSpec(**{**PNG.model_dump(), "view": (20, 20), **changes})


def test_gray_images_have_one_channel() -> None:
    spec = InputSpec(kind="image", shape=(1, 8, 6), encoding="png")
    pixels = np.arange(48, dtype=np.uint8).reshape(8, 6)
    stored = encode_image(Image.fromarray(pixels), spec)
    np.testing.assert_array_equal(decode_images([stored], spec, name="image"), pixels[None, None])


def test_an_image_is_converted_to_the_shape_and_colors_of_the_input() -> None:
    gray = Image.fromarray(np.full((10, 100), 77, np.uint8))
    image = convert_image(gray, JPEG)
    assert (image.mode, image.size) == ("RGB", (48, 32))
    assert set(np.asarray(image).flatten().tolist()) == {77}


def test_halving_an_image_averages_with_the_weights_of_a_triangle() -> None:
    """Bilinear with support two: an inner output pixel weighs its four inputs 1, 3, 3, 1 in each direction."""
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8)).astype(np.uint8)
    spec = InputSpec(kind="image", shape=(1, 4, 4))
    found = np.asarray(convert_image(Image.fromarray(pixels), spec))
    weights = np.array([1, 3, 3, 1]) / 8
    for row in (1, 2):
        for column in (1, 2):
            window = pixels[2 * row - 1 : 2 * row + 3, 2 * column - 1 : 2 * column + 3]
            assert abs(float(found[row, column]) - weights @ window @ weights) < 1.01


def test_bytes_other_than_an_image_are_an_error() -> None:
    with pytest.raises(InputError, match="face: a stored image cannot be decoded"):
        decode_images([b"not a jpeg"], JPEG, name="face")
    whole = encode_image(Image.fromarray(_smooth()), JPEG)
    with pytest.raises(InputError, match=r"cannot be decoded .*runcated"):
        decode_images([whole[: len(whole) // 2]], JPEG, name="face")


def test_an_image_of_another_number_of_channels_is_an_error_and_not_broadcast() -> None:
    stream = io.BytesIO()
    Image.fromarray(_smooth()[:, :, 0]).save(stream, "PNG")
    with pytest.raises(InputError, match=r"must have shape \(3, 32, 48\), got \(1, 32, 48\)"):
        decode_images([stream.getvalue()], PNG, name="face")


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"kind": "vector"}, "only images of 1 or 3 channels"),
        ({"shape": (4, 8, 8)}, "only images of 1 or 3 channels"),
        ({"shape": (8, 8)}, "only images of 1 or 3 channels"),
        ({"encoding": "png"}, "quality is a setting of jpeg alone"),
        ({"quality": 0}, "greater than or equal to 1"),
    ],
)
def test_an_inconsistent_specification_of_an_encoding_is_an_error(changed: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        InputSpec.model_validate(JPEG.model_dump() | changed)


RAMP = InputSpec(kind="image", shape=(1, 8, 256))


@pytest.mark.parametrize("kind", [np.uint16, ">u2"])
@pytest.mark.parametrize("spec", [RAMP, RAMP.model_copy(update={"shape": (3, 8, 256)})])
def test_images_of_16_bits_are_scaled_by_their_range(kind: object, spec: InputSpec) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    deep = Image.frombytes("I;16" if kind is np.uint16 else "I;16B", (256, 8), (257 * ramp.astype(kind)).tobytes())
    found = np.asarray(convert_image(deep, spec)).reshape(8, 256, -1)
    np.testing.assert_array_equal(found, np.repeat(ramp[:, :, None], spec.shape[0], axis=2))


@pytest.mark.parametrize(("kind", "name"), [(np.int32, "integers of 32 bits"), (np.float32, "floats")])
def test_images_of_32_bits_need_the_value_of_white(kind: type, name: str) -> None:
    ramp = np.tile(np.arange(256), (8, 1))
    deep = Image.fromarray((4 * ramp).astype(kind))
    with pytest.raises(ValueError, match=f"its pixels are {name}, .* `white` must name"):
        convert_image(deep, RAMP)
    np.testing.assert_array_equal(np.asarray(convert_image(deep, RAMP, white=1020)), ramp)
    with pytest.raises(ValueError, match="must be within 0 and 1000, the value of white, got 0 to 1020"):
        convert_image(deep, RAMP, white=1000)
    with pytest.raises(ValueError, match="must be within 0 and 1020, the value of white, got -4 to 1016"):
        convert_image(Image.fromarray((4 * ramp - 4).astype(kind)), RAMP, white=1020)


def test_float_pixels_that_are_not_finite_are_refused() -> None:
    pixels = np.zeros((8, 8), np.float32)
    pixels[0, 0] = np.nan
    with pytest.raises(ValueError, match="got a pixel that is not finite"):
        convert_image(Image.fromarray(pixels), RAMP, white=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_shown_on_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    image.paste((255, 0, 0, 0), (0, 0, 4, 8))
    spec = InputSpec(kind="image", shape=(3, 8, 8))
    found = np.asarray(convert_image(image.convert(mode), spec))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[0, 7].tolist() == ([76, 76, 76] if mode == "LA" else [255, 0, 0])
