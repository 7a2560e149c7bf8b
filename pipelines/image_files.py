"""Image files, resized and encoded with Ray Data: each is opened once, and a fault of one does not stop the others.

A task runs the same steps of Pillow as a plain loop, in memory that its process keeps: fresh pages for every image of
500 x 500 pixels take a third of the time. Raw images stay pixels, because PNG takes as long as reading and resizing a small image.

Trade-off: the encoded images are kept in Ray's object store, which spills to disk, until the data set is written, because
faults and duplicates are known only after all images have been read.
"""

import errno
import hashlib
import math
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageOps

from dirtune.data.columns import get_stored_size, to_values
from dirtune.data.file_kinds import describe_kind
from dirtune.data.images import (
    convert_image,
    encode_image,
    has_deep_channels,
    has_transparent_pixels,
    is_deep,
    to_channels_first,
)
from dirtune.data.ray_data import queue_all_tasks
from dirtune.errors import Fault
from dirtune.manifest import InputSpec
from dirtune.process import keep_freed_memory
from dirtune.progress import show_progress

if TYPE_CHECKING:
    from ray.data import Dataset

PATH = "path"
"""Column with the paths of images, for a table whose sample ids are others; it is not kept."""
# A task of Ray Data costs as much as 20 small images; several for each CPU end at about the same time.
_IMAGES_PER_TASK, _FEWEST_PER_TASK, _TASKS_PER_CPU = 1024, 128, 4
# A task of Ray Data costs as much as 30 small images, so that what follows the encoding has fewer of them.
_BYTES_PER_TASK = 2**26
_IMAGE, _CONTENT, _FAULT, _TRAITS, _MOMENTS = "image", "content", "fault", "traits", "moments"
_SEPARATOR = "\n"
_ORIENTATION = 0x0112
_IMAGES_IN_CACHE = 8
# An eighth of 8 bits
_DARK = 32
_LEVELS = np.arange(256) / 255
_SQUARES = _LEVELS**2


@dataclass(frozen=True, kw_only=True)
class EncodedImages:
    """Rows of a table with their images."""

    dataset: "Dataset"
    """The table with `image`, empty for a row with a fault, or null if it is raw."""
    contents: dict[str, bytes]
    """SHA-256 of the encoded image by sample id, without the rows with a fault."""
    moments: dict[str, NDArray[np.float64]]
    """For each channel the mean of its pixels in [0, 1], then for each the mean of their squares, by sample id."""
    faults: list[Fault]
    """Sorted by file."""
    traits: Counter[str]
    """Number of images of each mode of Pillow, and of those that were changed in a way that is to be reported."""


def encode_images(
    table: pa.Table, folder: Path, spec: InputSpec, *, upright: bool = False, white: float | None = None
) -> EncodedImages:
    """Open, resize and encode the image of every row.

    Args:
        table: its column `sample_id`, or `PATH` if it has that one, is the path of the image below `folder`.
        folder: must be accessible to all workers.
        spec: size, colors and encoding.
        upright: True turns every image as its EXIF data say, as viewers do.
        white: see `convert_image`.
    """
    import ray.data

    share = math.ceil(table.num_rows / (_TASKS_PER_CPU * ray.cluster_resources().get("CPU", 1)))
    rows_per_task = min(_IMAGES_PER_TASK, max(_FEWEST_PER_TASK, share))
    blocks = max(1, math.ceil(table.num_rows / rows_per_task))
    with queue_all_tasks():
        dataset = ray.data.from_arrow(table, override_num_blocks=blocks)
    settings = {"folder": folder, "spec": spec, "upright": upright, "white": white}
    encoded = dataset.map_batches(_encode_batch, fn_kwargs=settings, batch_format="pyarrow")
    # Instead of `materialize`, which reports nothing until its end
    blocks_done = []
    with show_progress("reading images", table.num_rows) as advance:
        for bundle in encoded.iter_internal_ref_bundles():
            blocks_done += bundle.block_refs
            advance(bundle.num_rows() or 0)
    with queue_all_tasks():
        dataset = ray.data.from_arrow_refs(blocks_done)
    contents, moments, rules, traits = (
        dict[str, bytes](),
        dict[str, NDArray[np.float64]](),
        dict[str, str](),
        Counter[str](),
    )
    # Without the image column, which stays in the object store
    names, rows_per_task = ["sample_id", _CONTENT, _FAULT, _TRAITS, _MOMENTS], count_rows_per_task(spec)
    found = dataset.map_batches(
        lambda batch: batch.select(names), batch_format="pyarrow", batch_size=rows_per_task, zero_copy_batch=True
    )
    for batch in found.iter_batches(batch_format="pyarrow", batch_size=None):
        is_usable = pc.is_null(batch[_FAULT])
        usable, faulty = batch.filter(is_usable), batch.filter(pc.invert(is_usable))
        ids = usable["sample_id"].to_pylist()
        contents.update(zip(ids, usable[_CONTENT].to_pylist(), strict=True))
        moments.update(zip(ids, to_values(usable[_MOMENTS]), strict=True))
        rules.update(zip(faulty["sample_id"].to_pylist(), faulty[_FAULT].to_pylist(), strict=True))
        # Of few kinds, as a text each: lists of every row would be read value by value
        for text, number in Counter(usable[_TRAITS].to_pylist()).items():
            traits.update(dict.fromkeys(text.split(_SEPARATOR), number))
    faults = [Fault(where=str(folder / path), rule=rules[path]) for path in sorted(rules)]
    return EncodedImages(dataset=dataset, contents=contents, moments=moments, faults=faults, traits=traits)


def count_rows_per_task(spec: InputSpec) -> int:
    """Return the number of encoded images that a task takes from the object store."""
    return max(_IMAGES_PER_TASK, _BYTES_PER_TASK // get_stored_size(spec))


def compute_pixel_units(moments: Sequence[NDArray[np.float64]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel, rounded to four digits, from the moments of images of one size.

    The deviation of a channel that is constant is 1.
    """
    mean, square = np.split(np.mean(moments, axis=0), 2)
    deviation = np.sqrt(np.maximum(square - mean**2, 0)).round(4)
    return tuple(mean.round(4).tolist()), tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _encode_batch(batch: pa.Table, folder: Path, spec: InputSpec, upright: bool, white: float | None) -> pa.Table:
    paths = batch.column(PATH if PATH in batch.column_names else "sample_id").to_pylist()
    batch = batch.drop_columns([PATH]) if PATH in batch.column_names else batch
    keep_freed_memory()
    # Raw images lie one after another, as a shard has them, so that they are not copied again
    pixels = np.zeros((len(paths) if spec.encoding == "raw" else 0, *spec.shape), np.uint8)
    images, counts, rules, traits = list[Any](), list[list[int]](), list[str | None](), list[str]()
    home = str(folder)
    for row, path in enumerate(paths):
        image, rule, own = _read_image(os.path.join(home, path), spec, upright=upright, white=white)
        rules.append(rule)
        traits.append(_SEPARATOR.join(own))
        if spec.encoding != "raw":
            images.append(b"" if image is None else encode_image(image, spec))
            counts.append([0] * 256 * spec.shape[0] if image is None else image.histogram())
        elif image is not None:
            pixels[row] = to_channels_first(image)
    # Not between two images, whose memory another large array would take
    if spec.encoding == "raw":
        _, is_read = pa.array([rule is None for rule in rules], pa.bool_()).buffers()
        stored = pa.Array.from_buffers(pa.binary(spec.size), len(paths), [is_read, pa.py_buffer(pixels)])
        images, moments = list(pixels), _compute_moments(pixels)
    else:
        stored = pa.array(images, pa.large_binary())
        moments = _average_counts(np.array(counts, np.float64).reshape(len(counts), spec.shape[0], 256), spec)
    columns = {
        _IMAGE: stored,
        _CONTENT: pa.array([hashlib.sha256(image).digest() for image in images], pa.binary(32)),
        _FAULT: pa.array(rules, pa.string()),
        _TRAITS: pa.array(traits, pa.string()),
        _MOMENTS: pa.FixedSizeListArray.from_arrays(moments.reshape(-1), moments.shape[1]),
    }
    for name, column in columns.items():
        batch = batch.append_column(name, column)
    return batch


def encode_file(
    path: Path, spec: InputSpec, *, upright: bool = False, white: float | None = None
) -> tuple[bytes, str | None, list[str]]:
    """Return the encoded image, empty if the file cannot be used; the rule that it breaks; and the traits of the image."""
    image, rule, traits = _read_image(path, spec, upright=upright, white=white)
    return b"" if image is None else encode_image(image, spec), rule, traits


def _read_image(
    path: Path | str, spec: InputSpec, *, upright: bool, white: float | None
) -> tuple[Image.Image | None, str | None, list[str]]:
    """Return the image in the colors and size of the input, or the rule that its file breaks, and its traits."""
    try:
        with Image.open(path) as image:
            traits = [f"mode {image.mode}"]
            # Before the pixels are loaded, which the EXIF data of a PNG file need
            is_reduced = has_deep_channels(image)
            if getattr(image, "n_frames", 1) > 1:
                traits.append("several frames, of which the first is used")
            # Other numbers have no meaning, and Pillow turns nothing.
            is_turned = image.getexif().get(_ORIENTATION) in range(2, 9)
            if is_turned:
                traits.append("turned as their EXIF data say" if upright else "not turned as their EXIF data say")
            if is_reduced and white is not None:
                return None, "`white` is for images of one channel; it has several of 16 bits", []
            if is_turned and upright:
                ImageOps.exif_transpose(image, in_place=True)
            converted = convert_image(image, spec, white=white)
            if is_deep(image) or is_reduced:
                traits.append("more than 8 bits, of which 8 are stored")
                # A picture that uses a part of its range is nearly black.
                if np.asarray(converted).max() < _DARK:
                    traits.append("nearly black: no pixel reaches an eighth of white (`white` sets its value)")
            if has_transparent_pixels(image) and not is_deep(image):
                traits.append("transparent pixels, shown on white")
            return converted, None, traits
    except FileNotFoundError:
        return None, "no such image", []
    # Pillow's readers raise SyntaxError and ValueError, too, for damaged files, and others for damaged EXIF data.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        kind = describe_kind(Path(path))
        return None, f"the image cannot be read ({f'it is {kind}' if kind else error})", []


def _compute_moments(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return of each image the means of its channels in [0, 1], then the means of their squares, shape `(images, 2 C)`.

    The sums are of integers, hence exact.
    """
    flat = images.reshape(*images.shape[:2], math.prod(images.shape[2:]))
    moments: NDArray[np.float64] = np.empty((len(images), 2, images.shape[1]))
    # Few at once, so that the numbers of 64 bits stay in the cache
    values = np.empty((_IMAGES_IN_CACHE, *flat.shape[1:]))
    for start in range(0, len(images), _IMAGES_IN_CACHE):
        some = flat[start : start + _IMAGES_IN_CACHE]
        own = values[: len(some)]
        own[...] = some
        moments[start : start + len(some)] = np.stack([own.sum(axis=2) / 255, np.vecdot(own, own) / 255**2], axis=1)
    moments /= flat.shape[2]
    return moments.reshape(len(images), 2 * images.shape[1])


def _average_counts(counts: NDArray[np.float64], spec: InputSpec) -> NDArray[np.float64]:
    """Return the moments of images from the counts of each channel's values, shape `(images, C, 256)`."""
    moments: NDArray[np.float64] = np.concatenate([counts @ _LEVELS, counts @ _SQUARES], axis=1)
    moments /= math.prod(spec.shape[1:])
    return moments


def describe_traits(traits: Counter[str]) -> list[str]:
    """Return notes on the modes of images, and on those that were changed."""
    modes = {name.removeprefix("mode "): number for name, number in traits.items() if name.startswith("mode ")}
    notes = [f"image modes: {', '.join(f'{number:,} {mode}' for mode, number in sorted(modes.items()))}"]
    changed = {name: number for name, number in sorted(traits.items()) if not name.startswith("mode ")}
    return notes + [f"{name}: {number:,} images" for name, number in changed.items()]


def find_equal_path(folder: Path, path: str) -> str | None:
    """Return the path of a file that differs from the given one in outer blanks or in the form of composed letters alone."""
    forms = (unicodedata.normalize(form, path.strip()) for form in ("NFC", "NFD"))
    return next((each for each in (path.strip(), *forms) if get_file_size(folder / each) >= 0), None)


def describe_missing(folder: Path, path: str) -> str:
    """Return the rule for a path without an image, with the file that is probably meant."""
    target = folder / path
    if "://" in path:
        return "no such image: it is a URL, whose file must be downloaded first"
    # Not the methods of `Path`, which raise if the path is too long
    if os.path.isdir(target):
        return "no such image: it is a folder"
    if os.path.islink(target):
        return "no such image: it is a link to a file that does not exist"
    # Of Windows, and of other folders
    forms = (path.replace("\\", "/"), path.lstrip("/\\"), os.path.join("..", path))
    others = [each for each in (*forms, os.path.expanduser(path)) if os.path.isfile(folder / each)]
    if not others and os.path.isdir(target.parent):
        # Another case or suffix, or none
        wanted = target.stem.casefold()
        others = [
            str(Path(path).parent / each)
            for each in _list_files(target.parent.resolve())
            if Path(each).stem.casefold() == wanted
        ]
    if others:
        return f"no such image (there is {others[0]!r})"
    return "no such image: its path is too long for a file" if _is_too_long(target) else "no such image"


def _is_too_long(path: Path) -> bool:
    try:
        path.lstat()
    # ValueError: a null character in the name
    except (OSError, ValueError) as error:
        return getattr(error, "errno", None) == errno.ENAMETOOLONG
    return False


@lru_cache(maxsize=16)
def _list_files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.is_file())


def get_file_size(path: str | Path) -> int:
    """Return the size of a file in bytes; -1 if it does not exist, is not accessible or is no file."""
    try:
        status = os.stat(path)
    # ValueError: a null character in the name
    except (OSError, ValueError):
        return -1
    return status.st_size if stat.S_ISREG(status.st_mode) else -1
