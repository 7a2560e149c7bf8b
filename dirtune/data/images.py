"""Images as JPEG or PNG bytes, per-pixel labels as PNG of 16 bits; each is encoded at ingest and decoded when it is read.

Both use Pillow. On one core it decodes 1,900 JPEGs of 224 x 224 pixels per second into one array; torchvision decodes
2,800 to equal pixels, but its decoder is deprecated since 0.29, and a set is decoded only once.
"""

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec

JPEG_QUALITY = 95
"""Default quality: an image of 224 x 224 pixels has about 20 kB."""
# Tag of TIFF files
_PHOTOMETRIC = 262
# Pillow's mode by number of channels.
_MODES = {1: "L", 3: "RGB"}


def convert_image(image: Image.Image, spec: InputSpec, *, white: float | None = None) -> Image.Image:
    """Return an image of any format in the colors and size of an input, bilinear.

    The whole image is resized without keeping its aspect ratio, as in the papers on imbalanced regression. An input with
    `view` keeps it: the shorter side is resized and the center is cut out, as torchvision's Resize and CenterCrop do.
    Transparent pixels are shown on white, as on a page.

    Args:
        image: of any mode of Pillow.
        spec: of the input.
        white: pixel value that becomes white in images of more than 8 bits; None means 65,535 for 16 bits.

    Raises:
        ValueError: the image has 32 bits or floats and no `white` is given, or a pixel is not within 0 and `white`.
    """
    channels, height, width = spec.shape
    if is_deep(image):
        image = _scale_deep(image, white)
    elif has_transparent_pixels(image):
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(background, image)
    # Pillow copies an image that has the mode already.
    if image.mode != _MODES[channels]:
        image = image.convert(_MODES[channels])
    if spec.view is None:
        return image.resize((width, height), Image.Resampling.BILINEAR)
    # torchvision resizes to the exact shorter side and rounds the longer one down.
    scale = max(Fraction(width, image.width), Fraction(height, image.height))
    size = (int(scale * image.width), int(scale * image.height))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (round((full - part) / 2) for full, part in zip(size, (width, height), strict=True))
    return image.crop((left, top, left + width, top + height))


def is_deep(image: Image.Image) -> bool:
    """Return True if an image has one channel of more than 8 bits."""
    return image.mode.startswith("I") or image.mode == "F"


def has_deep_channels(image: Image.Image) -> bool:
    """Return True for a file with several channels of more than 8 bits, of which Pillow keeps 8; not yet loaded."""
    return not is_deep(image) and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def has_transparent_pixels(image: Image.Image) -> bool:
    """Return True if a pixel is not opaque."""
    if not image.has_transparency_data:
        return False
    # Of one band, which is the pair of its extremes
    lowest: Any = image.convert("RGBA").getchannel("A").getextrema()[0]
    return bool(lowest < 255)


def _scale_deep(image: Image.Image, white: float | None) -> Image.Image:
    """Return an image of more than 8 bits as one of 8, where `white` becomes 255."""
    if white is None and not image.mode.startswith("I;16"):
        kind = "floats" if image.mode == "F" else "integers of 32 bits"
        raise ValueError(f"its pixels are {kind}, which have no largest value; `white` must name that of white")
    largest = 65535.0 if white is None else white
    # Pillow inverts images of 8 bits alone.
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        raise ValueError("its zeros are white (PhotometricInterpretation is WhiteIsZero); invert it")
    pixels = np.asarray(image).astype(np.float64)
    if not np.isfinite(pixels).all() or pixels.min() < 0 or pixels.max() > largest:
        got = "a pixel that is not finite" if not np.isfinite(pixels).all() else f"{pixels.min():g} to {pixels.max():g}"
        raise ValueError(f"its pixels must be within 0 and {largest:g}, the value of white, got {got}")
    return Image.fromarray(np.round(pixels * (255 / largest)).astype(np.uint8))


def encode_image(image: Image.Image, spec: InputSpec) -> bytes:
    """Return the file of an image that has the input's colors and size, as bytes; raw: its pixels, channels first."""
    if spec.encoding == "raw":
        return to_channels_first(image).tobytes()
    stream = io.BytesIO()
    if spec.encoding == "jpeg":
        image.save(stream, "JPEG", quality=spec.quality or JPEG_QUALITY)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()


def to_channels_first(image: Image.Image) -> np.typing.NDArray[Any]:
    """Return the pixels of an image, shape `(channels, height, width)`."""
    pixels = np.asarray(image)
    # A gray image has two dimensions.
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def encode_counts(counts: np.typing.NDArray[np.int16]) -> bytes:
    """Return the PNG file of the counts of per-pixel labels, shape `(height, width)`, without loss."""
    stream = io.BytesIO()
    Image.fromarray(counts.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def decode_images(
    stored: Sequence[bytes | pa.Buffer], spec: InputSpec, *, name: str, out: np.typing.NDArray[Any] | None = None
) -> np.typing.NDArray[Any]:
    """Return the images, or per-pixel labels, as one array of shape `(images, channels, height, width)`.

    Args:
        stored: files.
        spec: of the input.
        name: of the input, for error messages.
        out: array that is filled and returned; None for a new one.

    Raises:
        InputError: a file is not an image, or has another shape or type.
    """
    images = np.empty((len(stored), *spec.shape), spec.element) if out is None else out
    for row, content in enumerate(stored):
        try:
            # Pillow reads the header at first, and the pixels, where a truncated file fails, on conversion.
            pixels = to_channels_first(Image.open(io.BytesIO(content)))
        except (OSError, SyntaxError, ValueError) as error:
            rule = f"a stored image cannot be decoded ({error}); ingest the data set again"
            raise InputError(Fault(where=name, rule=rule)) from None
        if spec.kind == "dense_label" and pixels.dtype != np.uint16:
            rule = "stored per-pixel labels must be images of 16 bits"
            raise InputError(Fault(where=name, rule=rule, got=pixels.dtype.name))
        # numpy would broadcast one channel or one row into a larger shape.
        if pixels.shape != spec.shape:
            rule = f"every stored image must have shape {spec.shape}"
            raise InputError(Fault(where=name, rule=rule, got=pixels.shape))
        images[row] = pixels
    return images
