"""What the data sets of faces share: from the rows of a list to images of training size, split and written.

Images are resized without keeping their aspect, bilinear, and stored as JPEG files of the training size: decoded and
resized once, not in every trial. The papers' scripts do the same to every image in every epoch, without storing it, so
that ours differ from theirs by a second JPEG compression. A rotation that EXIF asks for is not applied, as in theirs.

An ingest is asked for by its options, its lists, and the names and sizes of all image files: an image that is replaced by
one of the same size goes unnoticed, which spares reading gigabytes to find that nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray.data
from pydantic import Field

from dirtune.data.images import JPEG_QUALITY
from dirtune.data.session import ray_session
from dirtune.data.splits import (
    Assignment,
    Recipe,
    Rows,
    Splitting,
    compute_split_fingerprint,
    make_held_out_rule,
    describe_split,
    describe_list,
    split_rows,
)
from dirtune.data.store import find_ingested, write_dataset
from dirtune.data.verify import SHOWN_FAULTS, refuse
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, Manifest, ShotRule
from pipelines.face_lists import Face
from pipelines.image_files import EncodedImages, encoded_images

# Counted up whenever the same raw files and options would give other samples
RECIPE_VERSION = 1


class FaceOptions(Splitting):
    """Settings of the ingest that the sets of faces share; how rows are split is inherited."""

    image_size: int = Field(default=224, ge=8)
    """Height and width of the stored images, in pixels."""
    quality: int = Field(default=JPEG_QUALITY, ge=1, le=100)
    """JPEG quality of the stored images."""
    skip_bad: int = Field(default=0, ge=0)
    """So many rows and images that cannot be used are left out, and named in the notes; more are an error."""

    @property
    def image(self) -> InputSpec:
        shape = (3, self.image_size, self.image_size)
        return InputSpec(kind="image", shape=shape, encoding="jpeg", quality=self.quality)


@dataclass(frozen=True, kw_only=True)
class FaceSet:
    """A data set of faces before its images are read."""

    name: str
    label: LabelSpec
    recipe: Recipe
    """Of the published split."""
    folder: Path
    """Of the raw files, which all workers must reach."""
    rows: Sequence[Face | Fault]
    """In the order of the list."""
    hashes: dict[str, str]
    """SHA-256 of the lists by name."""
    notes: tuple[str, ...] = ()

    @property
    def faces(self) -> list[Face]:
        return [row for row in self.rows if isinstance(row, Face)]

    @property
    def faults(self) -> list[Fault]:
        return [row for row in self.rows if isinstance(row, Fault)]


def raw_folder(name: str, raw: Path | None, contents: str) -> Path:
    """The folder of the raw files.

    Raises:
        InputError: none was given, or it does not exist.
    """
    if raw is None:
        rule = f"needs the folder of {contents} (`dirtune ingest {name} --raw DIR`)"
        raise InputError(Fault(where=name, key="raw", rule=rule))
    if not raw.is_dir():
        raise InputError(Fault(where=str(raw), rule="no such folder"))
    return raw.resolve()


def ingest_faces(storage: Storage, faces: FaceSet, options: FaceOptions) -> Manifest:
    """Read the images, split the rows and write the data set, unless an equal ingest has made it.

    Raises:
        InputError: more than `skip_bad` rows or images cannot be used (the first 20 are named, and their number), or the
            data cannot be split as asked.
    """
    request = _request(faces, options)
    if (present := find_ingested(storage, faces.name, request)) is not None:
        return present
    _check(faces.faults, faces.name, options)
    with ray_session():
        return _written(storage, faces, options, request)


def _written(storage: Storage, faces: FaceSet, options: FaceOptions, request: str) -> Manifest:
    images = encoded_images(_table(faces.faces), faces.folder, options.image)
    faults = [*faces.faults, *images.faults]
    _check(faults, faces.name, options)
    rows, assignment = _split(faces, images, options)
    rules = {"counts": ShotRule()}
    if assignment.held_out:
        rules["held_out"] = make_held_out_rule(assignment.held_out, faces.label.num_bins)
    split_of = dict(zip(rows.ids.tolist(), assignment.splits.tolist(), strict=True))
    return write_dataset(
        storage,
        faces.name,
        {split: _of_split(images.dataset, split_of, split) for split in SPLITS},
        inputs={"image": options.image},
        label=faces.label,
        group="person",
        shot_rules=rules,
        default_shot_rule="counts",
        source={**faces.hashes, "folder": str(faces.folder), "request": request},
        notes=(*faces.notes, *_origin(faces, rows, assignment), *assignment.notes, *_left_out(faults)),
    )


def _request(faces: FaceSet, options: FaceOptions) -> str:
    images = [[face.path, _size(faces.folder / face.path)] for face in faces.faces]
    return hash_json(
        {
            "pipeline": faces.name,
            "recipe": RECIPE_VERSION,
            "options": options.model_dump(),
            "lists": faces.hashes,
            "images": images,
        }
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _check(faults: Sequence[Fault], name: str, options: FaceOptions) -> None:
    if len(faults) > options.skip_bad:
        refuse(faults, where=name)


def _table(faces: Sequence[Face]) -> pa.Table:
    return pa.table(
        {
            "sample_id": pa.array([face.path for face in faces], pa.string()),
            "label": pa.array([face.age for face in faces], pa.float64()),
            "group": pa.array([face.person for face in faces], pa.string()),
        }
    )


def _split(faces: FaceSet, images: EncodedImages, options: FaceOptions) -> tuple[Rows, Assignment]:
    used = [face for face in faces.faces if face.path in images.contents]
    if not used:
        raise InputError(Fault(where=faces.name, rule="no row can be used"))
    published = [face.split for face in used]
    rows = Rows(
        name=faces.name,
        label=faces.label,
        ids=np.array([face.path for face in used]),
        labels=np.array([face.age for face in used]),
        groups=np.array([face.person for face in used]),
        published=None if None in published else np.array(published),
    )
    contents = [images.contents[face.path] for face in used]
    return rows, split_rows(rows, options, faces.recipe, contents=contents)


def _of_split(dataset: ray.data.Dataset, split_of: dict[str, str], split: str) -> ray.data.Dataset:
    members = pa.array([path for path, name in split_of.items() if name == split], pa.string())

    def chosen(batch: pa.Table) -> pa.Table:
        return batch.filter(pc.is_in(batch.column("sample_id"), members))

    return dataset.map_batches(chosen, batch_format="pyarrow", batch_size=None)


def _origin(faces: FaceSet, rows: Rows, assignment: Assignment) -> Iterator[str]:
    """What is known of the list, or else of the split."""
    listed = {name: describe_list(faces.name, sha256) for name, sha256 in faces.hashes.items()}
    known = [f"{name} is {title}" for name, title in listed.items() if title is not None]
    yield from known
    if not known:
        sizes = {split: len(assignment.find_rows(split)) for split in SPLITS}
        fingerprint = compute_split_fingerprint(assignment.splits, rows.ids, rows.labels)
        found = describe_split(faces.name, fingerprint, sizes)
        yield from [] if found is None else [found]


def _left_out(faults: Sequence[Fault]) -> Iterator[str]:
    if faults:
        yield f"rows and images that cannot be used, left out: {len(faults)}"
    yield from (f"left out: {fault}" for fault in faults[:SHOWN_FAULTS])
