"""Data sets of faces: from a CSV list of images and ages to images of training size, split and written.

The list has the columns `age`, `path` and, if the list contains the split, `split`:

    age,path,split
    31,AgeDB/11706_OliviaHussey_31_f.jpg,train

Images are resized, bilinear, and stored as JPEG files: decoded and resized once, not in every trial. The scripts resize every
image in every epoch, without storing it, so that the images here have a second JPEG compression. A rotation in the EXIF data
is not applied, as in the scripts. They have two forms of an image:

    frame=whole    the whole image, squashed to the size of a view: DIR, RankSim and ConR; ACCon on IMDB-WIKI
    frame=center   the shorter side is resized to 8/7 of a view, an evaluation sees the center: ACCon and Rank-N-Contrast on AgeDB

With `center` the crops of the strong augmentation are from the square in the middle, at that resolution; the scripts crop the
original file, whose ends on the longer side are lost here.

The identity of an ingest consists of its options, its lists, and the names and sizes of all image files: an image that is
replaced by one of the same size is not detected, which spares reading gigabytes to find that nothing has changed.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from pydantic import Field

from dirtune.data import session, splits, store, verify
from dirtune.data.images import JPEG_QUALITY
from dirtune.errors import Fault, InputError
from dirtune.frozen import Added, hash_json, to_identity
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, Manifest, ShotRule
from dirtune.pipelines.image_files import PATH, EncodedImages, describe_traits, encode_images, get_file_size

# Incremented whenever the same raw files and options would give other samples
RECIPE_VERSION = 1
HEADERS = (["age", "path"], ["age", "path", "split"])
ParsePerson = Callable[[str], str | None]
"""Map of the path of an image to the person, or to None for a path that is not of the data set's form."""


class Face(NamedTuple):
    """One row of a list."""

    path: str
    """Path of the image below the raw folder."""
    age: float
    """Years."""
    person: str
    split: str | None
    """Published split."""
    copy: int = 1
    """Number of this row among those of the image; 1 for the first."""

    @property
    def sample_id(self) -> str:
        """The path; of a repeated row with its number."""
        return self.path if self.copy == 1 else f"{self.path}#{self.copy}"


class FaceOptions(splits.Splitting):
    """Settings of the ingest that the sets of faces share; the settings of the splits are inherited."""

    image_size: int = Field(default=224, ge=8)
    """Height and width of a view, in pixels."""
    frame: Annotated[Literal["whole", "center"], Added()] = "whole"
    """whole: the whole image without its aspect ratio; center: the center of the image with it."""
    quality: int = Field(default=JPEG_QUALITY, ge=1, le=100)
    """JPEG quality of the stored images."""
    skip_bad: int = Field(default=0, ge=0)
    """Maximum number of unusable rows and images, which are left out and listed in the manifest's notes; more are an error."""

    @property
    def image_spec(self) -> InputSpec:
        """Spec of the stored images."""
        size = self.image_size
        if self.frame == "whole":
            return InputSpec(kind="image", shape=(3, size, size), encoding="jpeg", quality=self.quality)
        # 256 for 224
        stored = round(size * 8 / 7)
        shape, view = (3, stored, stored), (size, size)
        return InputSpec(kind="image", shape=shape, view=view, encoding="jpeg", quality=self.quality)


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """A data set of faces before its images are read."""

    name: str
    label: LabelSpec
    recipe: splits.SplitRecipe
    """Recipe of the published split."""
    folder: Path
    """Folder of the raw files, which all workers must reach."""
    rows: Sequence[Face | Fault]
    """In the order of the list."""
    hashes: dict[str, str]
    """SHA-256 of the lists by name."""
    notes: tuple[str, ...] = ()

    @property
    def faces(self) -> list[Face]:
        """Usable rows."""
        return [row for row in self.rows if isinstance(row, Face)]

    @property
    def faults(self) -> list[Fault]:
        """Faults of the other rows."""
        return [row for row in self.rows if isinstance(row, Fault)]


def require_raw_folder(name: str, raw: Path | None, contents: str) -> Path:
    """Return the absolute path of the raw folder.

    Raises:
        InputError: none was given, or it does not exist.
    """
    if raw is None:
        rule = f"needs the folder of {contents} (`dirtune ingest {name} --raw DIR`)"
        raise InputError(Fault(where=name, key="raw", rule=rule))
    if not raw.is_dir():
        raise InputError(Fault(where=str(raw), rule="no such folder"))
    return raw.resolve()


def read_list(
    path: Path, label: LabelSpec, parse_person: ParsePerson, *, allow_copies: bool = False
) -> list[Face | Fault]:
    """Read the rows of a list, each a face or its fault.

    Args:
        path: the CSV file.
        label: the range of ages.
        parse_person: checks the path of an image; it must reject every path outside the raw folder.
        allow_copies: True reads a row that is repeated word for word as a copy; it is a fault otherwise.

    Raises:
        InputError: the file does not exist, or is not such a table.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # Read at once: a decoding error in the last line must be reported as one of the file, not of a row.
            lines = list(csv.reader(file))
    # Apart from other errors of the system, whose text would repeat the path.
    except FileNotFoundError:
        raise InputError(Fault(where=str(path), rule="no such file")) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(Fault(where=str(path), rule=f"must be CSV text ({error})")) from None
    header = lines[0] if lines else []
    if header not in HEADERS:
        rule = "the first line must name the columns age,path or age,path,split"
        raise InputError(Fault(where=f"{path}:1", rule=rule, got=",".join(header)[:80]))
    rows: list[Face | Fault] = []
    first: dict[str, tuple[int, Face]] = {}
    counts = Counter[str]()
    for number, cells in enumerate(lines[1:], start=2):
        where = f"{path}:{number}"
        row = _parse_row(where, cells, len(header), label, parse_person)
        if isinstance(row, Face):
            line, same = first.setdefault(row.path, (number, row))
            counts[row.path] += 1
            if line != number and (row != same or not allow_copies):
                row = Fault(where=where, key="path", rule=f"the image is already in line {line}", got=row.path)
            else:
                row = row._replace(copy=counts[row.path])
        rows.append(row)
    return rows


def _parse_row(where: str, cells: list[str], columns: int, label: LabelSpec, parse_person: ParsePerson) -> Face | Fault:
    if len(cells) != columns:
        return Fault(where=where, rule=f"must have {columns} columns", got=len(cells))
    text, path = cells[:2]
    split = cells[2] if columns > 2 else None
    try:
        age = float(text)
    except ValueError:
        return Fault(where=where, key="age", rule="must be a number", got=text)
    # The comparison is false for NaN.
    if not label.low <= age <= label.high:
        rule = f"must be within {label.low:g}..{label.high:g}"
        return Fault(where=where, key="age", rule=rule, got=age)
    if split is not None and split not in SPLITS:
        return Fault(where=where, key="split", rule="unknown split", got=split, known=SPLITS)
    if (person := parse_person(path)) is None:
        return Fault(where=where, key="path", rule="is not a file name of this data set", got=path)
    return Face(path, age, person, split)


def ingest_faces(storage: Storage, faces: FaceSet, options: FaceOptions) -> Manifest:
    """Read the images, split the rows and write the data set, unless an equal ingest has written it.

    Raises:
        InputError: more than `skip_bad` rows or images cannot be used (the first 20 are listed, and their number), or the
            data cannot be split as the options ask.
    """
    request = hash_json(
        {
            "pipeline": faces.name,
            "recipe": RECIPE_VERSION,
            "options": to_identity(options),
            "lists": faces.hashes,
            # Names and sizes instead of hashes: reading gigabytes to find that nothing changed would take minutes.
            "images": [[face.path, get_file_size(faces.folder / face.path)] for face in faces.faces],
        }
    )
    if (present := store.find_ingested(storage, faces.name, request)) is not None:
        return present
    # Faults of rows end the ingest before any image is read.
    _check_faults(faces.faults, faces.name, options)
    with session.ray_session():
        table = pa.table(
            {
                "sample_id": pa.array([face.sample_id for face in faces.faces], pa.string()),
                PATH: pa.array([face.path for face in faces.faces], pa.string()),
                "label": pa.array([face.age for face in faces.faces], pa.float64()),
                "group": pa.array([face.person for face in faces.faces], pa.string()),
            }
        )
        images = encode_images(table, faces.folder, options.image_spec)
        faults = [*faces.faults, *images.faults]
        _check_faults(faults, faces.name, options)
        rows, assignment = _split_faces(faces, images, options)
        rules = {"counts": ShotRule()}
        if assignment.held_out:
            rules["held_out"] = splits.make_held_out_rule(assignment.held_out, faces.label.num_bins)
        split_of = dict(zip(rows.ids.tolist(), assignment.splits.tolist(), strict=True))
        return store.write_dataset(
            storage,
            faces.name,
            {split: _select_split(images.dataset, split_of, split) for split in SPLITS},
            inputs={"image": options.image_spec},
            label=faces.label,
            group="person",
            shot_rules=rules,
            default_shot_rule="counts",
            source={**faces.hashes, "folder": str(faces.folder), "request": request},
            notes=(
                *faces.notes,
                *_describe_origin(faces, rows, assignment),
                *assignment.notes,
                # Without the modes, which are those of the benchmark
                *describe_traits(images.traits)[1:],
                *make_fault_notes(faults, "rows and images that cannot be used, left out"),
            ),
        )


def _check_faults(faults: Sequence[Fault], name: str, options: FaceOptions) -> None:
    if len(faults) > options.skip_bad:
        verify.raise_faults(faults, where=name)


def _split_faces(faces: FaceSet, images: EncodedImages, options: FaceOptions) -> tuple[splits.Rows, splits.Assignment]:
    used = [face for face in faces.faces if face.sample_id in images.contents]
    if not used:
        raise InputError(Fault(where=faces.name, rule="no row can be used"))
    # Lists without a split column have none for every row.
    published = [face.split for face in used]
    rows = splits.Rows(
        name=faces.name,
        label=faces.label,
        ids=np.array([face.sample_id for face in used]),
        labels=np.array([face.age for face in used]),
        groups=np.array([face.person for face in used]),
        published=None if None in published else np.array(published),
    )
    # Equal files under two names are one sample, and a leak if they are in two splits.
    contents = [images.contents[face.sample_id] for face in used]
    return rows, splits.split_rows(rows, options, faces.recipe, contents=contents)


def _select_split(dataset: ray.data.Dataset, split_of: dict[str, str], split: str) -> ray.data.Dataset:
    # Membership is decided by id in each batch, because Ray Data does not keep the order of the list.
    members = pa.array([path for path, name in split_of.items() if name == split], pa.string())

    def filter_members(batch: pa.Table) -> pa.Table:
        return batch.filter(pc.is_in(batch.column("sample_id"), members))

    return dataset.map_batches(filter_members, batch_format="pyarrow", batch_size=None)


def _describe_origin(faces: FaceSet, rows: splits.Rows, assignment: splits.Assignment) -> Iterator[str]:
    """Yield notes on a known list, or else on a known split."""
    listed = {name: splits.describe_list(faces.name, sha256) for name, sha256 in faces.hashes.items()}
    known = [f"{name} is {title}" for name, title in listed.items() if title is not None]
    yield from known
    if not known:
        sizes = {split: len(assignment.find_rows(split)) for split in SPLITS}
        fingerprint = splits.compute_split_fingerprint(assignment.splits, rows.ids, rows.labels)
        found = splits.describe_split(faces.name, fingerprint, sizes)
        yield from [] if found is None else [found]


def make_fault_notes(faults: Sequence[Fault], heading: str) -> Iterator[str]:
    """Yield notes on what is left out: a heading with the number of faults, and the first of them."""
    if faults:
        yield f"{heading}: {len(faults)}"
    yield from (f"left out: {fault}" for fault in faults[: verify.SHOWN_FAULTS])
