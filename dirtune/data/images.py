"""Images as JPEG or PNG bytes, maps as PNG of 16 bits: one is encoded at ingest, many are decoded when a set is read.

Both go through Pillow. On one core it decodes 1,900 JPEGs of 224 x 224 pixels a second into one array; torchvision makes
2,800 of it, of equal pixels, but its decoder is deprecated since 0.29, and a set is decoded only once.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec

JPEG_QUALITY = 95
"""The quality that is used if nothing is said: an image of 224 x 224 pixels takes about 20 kB."""
# Pillow's names for the numbers of channels
_MODES = {1: "L", 3: "RGB"}


def resized(image: Image.Image, spec: InputSpec) -> Image.Image:
    """An image of any format in the colors and size of an input, as the papers do: bilinear, without keeping the aspect."""
    channels, height, width = spec.shape
    return image.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR)


def encode(image: Image.Image, spec: InputSpec) -> bytes:
    """The bytes of an image that has the input's colors and size already."""
    stream = io.BytesIO()
    if spec.encoding == "jpeg":
        image.save(stream, "JPEG", quality=spec.quality or JPEG_QUALITY)
    else:
        image.save(stream, "PNG")
    return stream.getvalue()


def encode_map(counts: NDArray[np.int16]) -> bytes:
    """The bytes of a map of shape `(height, width)`, without loss."""
    stream = io.BytesIO()
    Image.fromarray(counts.astype(np.uint16)).save(stream, "PNG")
    return stream.getvalue()


def decode(stored: Sequence[bytes | pa.Buffer], spec: InputSpec, *, name: str) -> NDArray[Any]:
    """The images, or maps, as one array of shape `(images, channels, height, width)`.

    Raises:
        InputError: bytes that are no such image; `name` is the input's.
    """
    images = np.empty((len(stored), *spec.shape), spec.element)
    for row, content in enumerate(stored):
        try:
            pixels = np.asarray(Image.open(io.BytesIO(content)))
        except (OSError, SyntaxError, ValueError) as error:
            rule = f"a stored image cannot be decoded ({error}); ingest the data set again"
            raise InputError(Fault(where=name, rule=rule)) from None
        images[row] = _channels_first(pixels, spec, name)
    return images


def _channels_first(pixels: NDArray[Any], spec: InputSpec, name: str) -> NDArray[Any]:
    # A gray image has two dimensions; one of another size must not be broadcast into place.
    channels_first = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    if spec.kind == "dense_label" and pixels.dtype != np.uint16:
        rule = "every stored map must be an image of 16 bits"
        raise InputError(Fault(where=name, rule=rule, got=pixels.dtype.name))
    if channels_first.shape != spec.shape:
        rule = f"every stored image must have shape {spec.shape}"
        raise InputError(Fault(where=name, rule=rule, got=channels_first.shape))
    return channels_first
