"""images: own images with a number as label, from a csv, tsv or Parquet file that lists them.

    dirtune ingest images --raw photos/list.csv --option name=photos --option label=age

The list has a column of paths, relative to its folder or absolute, and one for the label; columns for ids, groups and
splits are optional (`OwnOptions`). An image's id is its path as listed, unless a column holds ids.

Mean and standard deviation of the pixels of the training rows are stored in the manifest, and standardize the images in
training (`model.pixel_units`).

Images are turned as their EXIF data say, as viewers do, resized to the training size once, bilinear, without keeping the
aspect, and stored as raw pixels if they are small and as JPEG files if not. Images of 16 bits keep 8 of them; those of 32 bits
and floats need `white`, the pixel value of white. Transparent pixels are shown on white. An image that is missing or cannot be decoded is a fault of its row. An image file that is replaced
by one of the same size is not detected, which spares reading all of them to find that nothing has changed.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dirtune.data import session, store
from dirtune.data.sources import Source
from dirtune.data.verify import SHOWN_FAULTS
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, Manifest
from dirtune.pipelines import image_files, own
from dirtune.pipelines.sheets import Sheet, find_data_file, read_sheet

if TYPE_CHECKING:
    from ray.data import Dataset

NAME = "images"
# Incremented whenever the same files and options would give other samples
RECIPE = 3
RAW_UP_TO = 64
"""Largest height and width of images that are stored as raw pixels by default: 12 kB each in color."""


class Options(own.OwnOptions):
    """Settings of the ingest."""

    image: own.Column | None = None
    """Column of the image paths; null: `path`, or the only column whose first cell is a file."""
    image_size: int = Field(default=224, ge=8)
    """Height and width of the stored images, in pixels."""
    channels: Literal[1, 3] = 3
    """1: gray; 3: red, green and blue."""
    encoding: Literal["auto", "raw", "jpeg", "png"] = "auto"
    """auto: raw up to 64 pixels, then JPEG; png keeps every pixel in about a third of the space of raw."""
    quality: int | None = Field(default=None, ge=1, le=100)
    """jpeg: the encoder's setting; null: 95."""
    white: float | None = Field(default=None, gt=0)
    """Pixel value of white in images of more than 8 bits; null: 65535 for 16 bits, while 32 bits and floats need it."""

    @model_validator(mode="after")
    def _check_quality(self) -> "Options":
        if self.quality is not None and self._encoding != "jpeg":
            raise ValueError("quality needs encoding=jpeg, or auto and an image_size beyond 64")
        return self

    @property
    def _encoding(self) -> Literal["raw", "jpeg", "png"]:
        if self.encoding != "auto":
            return self.encoding
        return "raw" if self.image_size <= RAW_UP_TO else "jpeg"

    @property
    def image_spec(self) -> InputSpec:
        """Spec of the stored images."""
        shape = (self.channels, self.image_size, self.image_size)
        return InputSpec(kind="image", shape=shape, encoding=self._encoding, quality=self.quality)


def ingest(storage: Storage, raw: Path | Source | None, options: Options) -> Manifest:
    """Read the list and the images and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: the file or a column does not exist, more than `skip_bad` rows or images cannot be used (the first 20
            are listed, and their number), or the rows cannot be split as the options ask.
    """
    source = find_data_file(NAME, raw)
    sheet = read_sheet(source, options)
    column = options.image or find_image_column(sheet)
    sheet.require({**options.roles, "image": column})
    paths = sheet.read_texts(column)
    folder = source.folder
    home = str(folder)
    sizes = [image_files.get_file_size(os.path.join(home, path)) for path in paths]
    for row, path in enumerate(paths):
        # Differences that nobody sees, unless the name of a file has them
        if sizes[row] < 0 and (other := image_files.find_equal_path(folder, path)) is not None:
            paths[row], sizes[row] = other, image_files.get_file_size(folder / other)
    request = own.make_request(NAME, RECIPE, source, options, sizes)
    if (present := store.find_ingested(storage, options.name, request)) is not None:
        return present
    entries = own.read_entries(sheet, options, ids=paths)
    for number, row in enumerate(np.flatnonzero(np.array(sizes) < 0).tolist()):
        # An empty cell is a fault already.
        if paths[row].strip():
            # Of those that are shown
            is_shown = number < SHOWN_FAULTS
            rule = image_files.describe_missing(sheet.folder, paths[row]) if is_shown else "no such image"
            sheet.add_fault(row, column, rule, paths[row])
    # Before Ray starts, so that missing files are reported at once
    readable = sheet.select_usable(options.skip_bad)
    with session.ray_session():
        spec = options.image_spec
        images = _read_images(sheet, column, paths, readable, options)
        used = sheet.select_usable(options.skip_bad)
        division = own.divide(options, entries, used, [images.contents[path] for path in paths[used]])
        mean, deviation = image_files.compute_pixel_units(
            [images.moments[path] for path in paths[used][division.train]]
        )
        return own.write_own(
            storage,
            division,
            {split: _select_split(images, division, split, spec) for split in SPLITS},
            {"image": spec.model_copy(update={"pixel_mean": mean, "pixel_deviation": deviation})},
            sheet=sheet,
            request=request,
            source=own.describe_source(NAME, sheet, options, image=column),
            notes=[
                *own.describe_columns({**options.roles, "image": column}, sheet),
                *image_files.describe_traits(images.traits),
            ],
        )


def find_image_column(sheet: Sheet) -> str:
    """Return the column of image paths: `path`, or the only one whose first cell is a file in the folder of the list."""
    if "path" in sheet.table.column_names or not sheet.table.num_rows:
        return "path"
    cells = {name: str(sheet.table[name][0].as_py()).strip() for name in sheet.table.column_names}
    found = [name for name, cell in cells.items() if cell and image_files.get_file_size(sheet.folder / cell) >= 0]
    return found[0] if len(found) == 1 else "path"


def _read_images(
    sheet: Sheet, column: str, paths: np.typing.NDArray[Any], rows: np.typing.NDArray[np.int64], options: Options
) -> image_files.EncodedImages:
    """Encode the images of the given rows; faults are added to the sheet."""
    table = pa.table({"sample_id": paths[rows].tolist(), "row": rows})
    folder = sheet.folder
    images = image_files.encode_images(table, folder, options.image_spec, upright=True, white=options.white)
    rules = {fault.where: fault.rule for fault in images.faults}
    for row in rows.tolist() if rules else []:
        if (rule := rules.get(str(folder / paths[row]))) is not None:
            sheet.add_fault(row, column, rule, paths[row])
    return images


def _select_split(images: image_files.EncodedImages, division: own.Division, split: str, spec: InputSpec) -> "Dataset":
    rows = division.make_table({"row": division.positions})
    rows = rows.filter(pc.equal(rows["split"], split)).drop_columns("split")

    def join_rows(batch: pa.Table) -> pa.Table:
        indices = pc.index_in(batch["row"], rows["row"])
        in_split = pc.is_valid(indices)
        found = rows.take(indices.filter(in_split))
        return found.append_column("image", batch["image"].filter(in_split))

    return images.dataset.map_batches(join_rows, batch_format="pyarrow", batch_size=None, zero_copy_batch=True)
