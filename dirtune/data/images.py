"""Images as JPEG or PNG bytes, per-pixel labels as PNG of 16 bits; each is encoded at ingest and decoded when it is read.

Both use Pillow. On one core it decodes 1,900 JPEGs of 224 x 224 pixels per second into one array; torchvision decodes
2,800 to equal pixels, but its decoder is deprecated since 0.29, and a set is decoded only once.
"""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec

JPEG_QUALITY = 95
"""Default quality: an image of 224 x 224 pixels has about 20 kB."""
# Pillow's mode by number of channels.
_MODES = {1: "L", 3: "RGB"}


def convert_image(image: Image.Image, spec: InputSpec) -> Image.Image:
    """Return an image of any format in the colors and size of an input, bilinear, without keeping the aspect ratio.

    The papers resize in the same way.
    """
    channels, height, width = spec.shape
    return image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)


def encode_image(image: Image.Image, spec: InputSpec) -> bytes:
    """Return the file of an image that has the input's colors and size, as bytes."""
    stream = io.BytesIO()
    if spec.encoding == "jpeg":
        image.save(stream, "JPEG", quality=spec.quality or JPEG_QUALITY)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()


def encode_counts(counts: np.typing.NDArray[np.int16]) -> bytes:
    """Return the PNG file of the counts of per-pixel labels, shape `(height, width)`, without loss."""
    stream = io.BytesIO()
    Image.fromarray(counts.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def decode_images(stored: Sequence[bytes | pa.Buffer], spec: InputSpec, *, name: str) -> np.typing.NDArray[Any]:
    """Return the images, or per-pixel labels, as one array of shape `(images, channels, height, width)`.

    Args:
        stored: files.
        spec: of the input.
        name: of the input, for error messages.

    Raises:
        InputError: a file is not an image, or has another shape or type.
    """
    images = np.empty((len(stored), *spec.shape), spec.element)
    for row, content in enumerate(stored):
        try:
            # Pillow reads the header at first, and the pixels, where a truncated file fails, on conversion.
            pixels = np.asarray(Image.open(io.BytesIO(content)))
        except (OSError, SyntaxError, ValueError) as error:
            rule = f"a stored image cannot be decoded ({error}); ingest the data set again"
            raise InputError(Fault(where=name, rule=rule)) from None
        # A gray image has two dimensions.
        channels_first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        if spec.kind == "dense_label" and pixels.dtype != np.uint16:
            rule = "stored per-pixel labels must be images of 16 bits"
            raise InputError(Fault(where=name, rule=rule, got=pixels.dtype.name))
        # numpy would broadcast one channel or one row into a larger shape.
        if channels_first.shape != spec.shape:
            rule = f"every stored image must have shape {spec.shape}"
            raise InputError(Fault(where=name, rule=rule, got=channels_first.shape))
        images[row] = channels_first
    return images
