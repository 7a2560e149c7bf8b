"""Raw files of NYUD2-DIR: lists of pairs of an image and its depth, and the two encodings of depth.

    nyu2_train.csv   data/nyu2_train/bookstore_0001f_out/642.jpg,data/nyu2_train/bookstore_0001f_out/642.png
    nyu2_test.csv    data/nyu2_test/00000_colors.png,data/nyu2_test/00000_depth.png

The lists have no header. Depth is gray: of 8 bits in training, meters = value / 255 * 10, and of 16 bits in test, in
millimeters. A mistake between the two gives wrong depths without an error, so the mode of every file is checked. Zero is no
depth.

Source: YyzHarry/imbalanced-regression, `nyud2-dir/loaddata.py` (Yang et al., ICML 2021).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from dirtune.errors import Fault, InputError

LISTS = {"train": "nyu2_train.csv", "test": "nyu2_test.csv"}
FARTHEST = 10_000
"""Largest depth in millimeters; larger depths are clipped to it."""

# Pillow's names of the modes: 8 bits in training, 16 bits in test
_MODES = {"train": ("L",), "test": ("I;16", "I;16B", "I")}
_SCENE = re.compile(r"nyu2_train/(?P<place>[^/]+?_\d+)[a-z]?_out/[^/]+")


class Pair(NamedTuple):
    """One line of a list."""

    image: str
    """Path below the raw folder, also the sample id."""
    depth: str
    """Path of the depth below the raw folder."""
    listed: str
    """Name of the list, "train" or "test"."""
    scene: str


@dataclass(frozen=True)
class Photograph:
    """Image and depth at the stored size, or the rule that one of the files breaks."""

    image: Image.Image | None = None
    depth: np.typing.NDArray[np.int16] | None = None
    """Millimeters, shape (height, width); zero is no depth."""
    file: str = ""
    """File that breaks the rule."""
    rule: str = ""


def read_list(folder: Path, listed: str) -> list[Pair]:
    """Read the pairs of a list.

    Raises:
        InputError: the list is missing, empty, or has lines of another form; the first 20 are listed.
    """
    path = folder / LISTS[listed]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Fault(where=str(path), rule=f"the list cannot be read ({error})")) from None
    found = [_parse_pair(line, listed) for line in lines if line.strip()]
    bad = [number for number, pair in enumerate(found, start=1) if pair is None]
    if bad or not found:
        rule = f"every line must be an image and its depth below nyu2_{listed}/, without a header; lines that are not"
        raise InputError(Fault(where=str(path), rule=rule, got=bad[:20] or "an empty list"))
    return [pair for pair in found if pair is not None]


def _parse_pair(line: str, listed: str) -> Pair | None:
    columns = [column.strip().removeprefix("data/") for column in line.split(",")]
    if len(columns) != 2 or not all(each.startswith(f"nyu2_{listed}/") for each in columns):
        return None
    # A list must not lead out of the raw folder.
    if ".." in Path(columns[0]).parts + Path(columns[1]).parts:
        return None
    # The names of test images do not contain the place.
    if listed == "test":
        return Pair(columns[0], columns[1], listed, "test")
    scene = _SCENE.fullmatch(columns[0])
    return Pair(columns[0], columns[1], listed, scene["place"]) if scene else None


def read_photograph(folder: Path, pair: Pair, *, height: int, width: int) -> Photograph:
    """Read an image and its depth, resized to a size of the same aspect: bilinear, and with the nearest pixel."""
    file = pair.image
    try:
        with Image.open(folder / pair.image) as opened:
            image = opened.convert("RGB")
        file = pair.depth
        with Image.open(folder / pair.depth) as depth:
            # Decoded here, where an error of a damaged file is caught
            depth.load()
    except FileNotFoundError:
        return Photograph(file=file, rule="no such file")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Photograph(file=file, rule=f"the image cannot be read ({error})")
    if depth.mode not in _MODES[pair.listed]:
        bits = {"train": 8, "test": 16}[pair.listed]
        rule = f"depth of the {pair.listed} list must be a gray image of {bits} bits, got mode {depth.mode!r}"
        return Photograph(file=pair.depth, rule=rule)
    if depth.size != image.size:
        rule = f"must have the size of its image, {image.size}, got {depth.size}"
        return Photograph(file=pair.depth, rule=rule)
    if image.width * height != image.height * width:
        rule = f"must have the aspect {width}:{height}, got the size {image.size}"
        return Photograph(file=pair.depth, rule=rule)
    size = (width, height)
    # Interpolation would invent depths at edges, and would mix missing depths into others.
    nearest = depth.resize(size, Image.Resampling.NEAREST)
    return Photograph(image.resize(size, Image.Resampling.BILINEAR), to_millimeters(nearest, pair.listed))


def to_millimeters(depth: Image.Image, listed: str) -> np.typing.NDArray[np.int16]:
    """Return the depth of each pixel in millimeters; `(height, width)`, zero without a depth."""
    values = np.asarray(depth).astype(np.float64)
    if listed == "train":
        values = values * (FARTHEST / 255)
    counts: np.typing.NDArray[np.int16] = np.rint(values.clip(0, FARTHEST)).astype(np.int16)
    return counts
