"""imdb_wiki: IMDB-WIKI-DIR, photographs of actors and other persons of public life, and their age.

Source: IMDB-WIKI (Rothe, Timofte and Van Gool, "DEX: Deep EXpectation of apparent age from a single image", ICCVW 2015),
filtered and split for imbalanced regression by Yang et al. ("Delving into Deep Imbalanced Regression", ICML 2021;
YyzHarry/imbalanced-regression, `imdb-wiki-dir`). The raw folder holds the unpacked archives and, for the published split,
its list:

    imdb_wiki.csv                                          age,path,split
    imdb_crop/01/nm0000001_rm124825600_1899-5-10_1968.jpg  person, photograph, day of birth, year of the photograph
    wiki_crop/17/10000217_1981-05-05_2009.jpg
    imdb_crop/imdb.mat, wiki_crop/wiki.mat                 metadata of all images, read with `metadata=mat`

With `metadata=mat` the faces are those that the official script keeps: a face score of at least 1, no second face, an age of
0 to 200, where the age is the year of the photograph less the year of birth, and one less for births from July on. Such
rows have no split, so that `split` must say how to make one.

Label bins are the years 0..120; the last holds all ages beyond, up to 186 in the published list (labels that are wrong).
Departure: for the shot regions the official script keeps these ages apart. ACCon's range `R` is 100, as in its code.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from dirtune.data.splits import Recipe
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec, Manifest
from pipelines.face_lists import Face, read_list
from pipelines.faces import FaceOptions, FaceSet, ingest_faces, raw_folder

NAME = "imdb_wiki"
ARCHIVES = ("imdb", "wiki")
OLDEST = 200
LABEL = LabelSpec(
    name="age", unit="years", low=0.0, high=float(OLDEST), bin_width=1.0, num_bins=121, contrast_range=100.0
)
PUBLISHED = Recipe(per_bin=150)
MIN_FACE_SCORE = 1.0
# Matlab counts days from year 0, Python from year 1
_MATLAB_DAY_OF_YEAR_1 = 366
# As Python counts
_DAY_OF_1970 = 719_163
_FIELDS = ("dob", "photo_taken", "full_path", "face_score", "second_face_score")
_FILE_NAME = re.compile(r"(?P<archive>imdb|wiki)_crop/\d+/(?P<person>[^_/]+)_[^/]+\.jpg")


class Options(FaceOptions):
    """Settings of the ingest."""

    metadata: Literal["list", "mat"] = "list"
    """Where ages come from: the list, with its split, or the metadata of both archives, filtered as published."""
    split_list: str = "imdb_wiki.csv"
    """The list in the raw folder."""


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the metadata and the images and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: files are missing, rows or images cannot be used, or the data cannot be split as asked.
    """
    folders = " and ".join(f"{archive}_crop/" for archive in ARCHIVES)
    folder = raw_folder(NAME, raw, f"{options.split_list}, {folders}")
    if options.metadata == "list":
        files, notes = [folder / options.split_list], list[str]()
        rows = read_list(files[0], LABEL, person_of)
    else:
        files = [folder / f"{archive}_crop" / f"{archive}.mat" for archive in ARCHIVES]
        rows, notes = _from_metadata(files)
    faces = FaceSet(
        name=NAME,
        label=LABEL,
        recipe=PUBLISHED,
        folder=folder,
        rows=rows,
        notes=tuple(notes),
        hashes={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
    )
    return ingest_faces(storage, faces, options)


def person_of(path: str) -> str | None:
    """The person's number in a path, after the archive's name; none if it is no path of this data set."""
    found = _FILE_NAME.fullmatch(path)
    return found and f"{found['archive']} {found['person']}"


def _from_metadata(files: list[Path]) -> tuple[list[Face | Fault], list[str]]:
    rows: list[Face | Fault] = []
    notes: list[str] = []
    for archive, file in zip(ARCHIVES, files, strict=True):
        fields = read_metadata(file, archive)
        ages = ages_at(fields["dob"], fields["photo_taken"])
        kept = is_kept(fields, ages)
        rows += _faces(archive, file, fields["full_path"][kept], ages[kept])
        notes.append(f"{file.name}: {np.count_nonzero(kept):,} of {len(kept):,} faces kept")
    return rows, notes


def read_metadata(file: Path, archive: str) -> dict[str, NDArray[Any]]:
    """The fields of a metadata file that matter, one entry per image.

    Raises:
        InputError: there is no such file, or it is no such metadata.
    """
    try:
        with file.open("rb") as stream:
            record = loadmat(stream)[archive][0, 0]
        fields = {name: record[name][0] for name in _FIELDS}
        paths = [str(cell[0]) for cell in fields["full_path"]]
    except FileNotFoundError:
        raise InputError(Fault(where=str(file), rule="no such file")) from None
    except (OSError, KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        rule = f"must be the metadata of {archive}_crop, with {', '.join(_FIELDS)} ({error})"
        raise InputError(Fault(where=str(file), rule=rule)) from None
    return fields | {"full_path": np.array(paths)}


def ages_at(dob: NDArray[Any], photo_taken: NDArray[Any]) -> NDArray[np.int64]:
    """Age in the year of the photograph, taken to be from the middle of it: births from July on count a year less.

    Args:
        dob: day of birth as Matlab counts days; what lies before year 1 counts as its first day.
        photo_taken: year; unsigned in the files, where a subtraction would wrap around.
    """
    days = np.maximum(dob.astype(np.int64) - _MATLAB_DAY_OF_YEAR_1, 1) - _DAY_OF_1970
    births = days.astype("datetime64[D]")
    years = births.astype("datetime64[Y]").astype(np.int64) + 1970
    months = births.astype("datetime64[M]").astype(np.int64) % 12
    ages: NDArray[np.int64] = photo_taken.astype(np.int64) - years - (months >= 6)
    return ages


def is_kept(fields: dict[str, NDArray[Any]], ages: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The published filter: one face, seen clearly, of a possible age."""
    second = fields["second_face_score"]
    alone = np.isnan(second) | (second <= 0)
    clear = fields["face_score"] >= MIN_FACE_SCORE
    kept: NDArray[np.bool_] = clear & alone & (ages >= 0) & (ages <= OLDEST)
    return kept


def _faces(archive: str, file: Path, paths: NDArray[np.str_], ages: NDArray[np.int64]) -> Iterator[Face | Fault]:
    for name, age in zip(paths.tolist(), ages.tolist(), strict=True):
        path = f"{archive}_crop/{name}"
        person = person_of(path)
        if person is None:
            rule = "is no file name of this data set"
            yield Fault(where=str(file), key="full_path", rule=rule, got=name)
        else:
            yield Face(path, float(age), person, None)
