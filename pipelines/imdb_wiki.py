"""imdb_wiki: IMDB-WIKI-DIR, photographs of actors and other celebrities, and their age.

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
rows have no split, so that the option `split` is needed.

Label bins are the years 0..120; the last holds all ages beyond, up to 186 in the published list (labels that are wrong).
Departure: for the shot regions the official script has bins of their own for these ages. ACCon's range `R` is 100, as in its
code.
"""

import hashlib
import re
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.io import loadmat

from dirtune.data.splits import SplitRecipe
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec, Manifest
from dirtune.pipelines.faces import Face, FaceOptions, FaceSet, ingest_faces, read_list, require_raw_folder

NAME = "imdb_wiki"
ARCHIVES = ("imdb", "wiki")
OLDEST = 200
LABEL = LabelSpec(
    name="age", unit="years", low=0.0, high=float(OLDEST), bin_width=1.0, num_bins=121, contrast_range=100.0
)
PUBLISHED = SplitRecipe(per_bin=150)
MIN_FACE_SCORE = 1.0
# Matlab counts days from year 0, Python from year 1.
_MATLAB_DAY_OF_YEAR_1 = 366
# The first day of 1970, as Python counts days
_DAY_OF_1970 = 719_163
_FIELDS = ("dob", "photo_taken", "full_path", "face_score", "second_face_score")
_FILE_NAME = re.compile(r"(?P<archive>imdb|wiki)_crop/\d+/(?P<person>[^_/]+)_[^/]+\.jpg")


class Options(FaceOptions):
    """Settings of the ingest."""

    metadata: Literal["list", "mat"] = "list"
    """Source of the ages: the list, with its split, or the metadata of both archives, filtered as published."""
    split_list: str = "imdb_wiki.csv"
    """The list in the raw folder."""


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the metadata and the images and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: files are missing, rows or images cannot be used, or the data cannot be split as the options ask.
    """
    folders = " and ".join(f"{archive}_crop/" for archive in ARCHIVES)
    folder = require_raw_folder(NAME, raw, f"{options.split_list}, {folders}")
    if options.metadata == "list":
        files, notes = [folder / options.split_list], list[str]()
        rows = read_list(files[0], LABEL, parse_person)
    else:
        files = [folder / f"{archive}_crop" / f"{archive}.mat" for archive in ARCHIVES]
        rows, notes = _read_archives(files)
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


def parse_person(path: str) -> str | None:
    """Return the archive and the person's number in a path, or None if it is not a path of this data set."""
    found = _FILE_NAME.fullmatch(path)
    return found and f"{found['archive']} {found['person']}"


def _read_archives(files: list[Path]) -> tuple[list[Face | Fault], list[str]]:
    """Return the faces of both archives that the published filter keeps, and notes on them."""
    rows: list[Face | Fault] = []
    notes: list[str] = []
    for archive, file in zip(ARCHIVES, files, strict=True):
        fields = read_metadata(file, archive)
        ages = compute_ages(fields["dob"], fields["photo_taken"])
        kept = is_kept(fields, ages)
        for name, age in zip(fields["full_path"][kept].tolist(), ages[kept].tolist(), strict=True):
            path = f"{archive}_crop/{name}"
            person = parse_person(path)
            if person is None:
                rule = "is not a file name of this data set"
                rows.append(Fault(where=str(file), key="full_path", rule=rule, got=name))
            else:
                rows.append(Face(path, float(age), person, None))
        notes.append(f"{file.name}: {np.count_nonzero(kept):,} of {len(kept):,} faces kept")
    return rows, notes


def read_metadata(file: Path, archive: str) -> dict[str, np.typing.NDArray[Any]]:
    """Read the fields of a metadata file that the filter needs, one entry per image.

    Raises:
        InputError: the file does not exist, or has other fields.
    """
    try:
        with file.open("rb") as stream:
            record = loadmat(stream)[archive][0, 0]
        # Matlab stores a row of numbers as a matrix of one row.
        fields = {name: record[name][0] for name in _FIELDS}
        paths = [str(cell[0]) for cell in fields["full_path"]]
    except FileNotFoundError:
        raise InputError(Fault(where=str(file), rule="no such file")) from None
    except (OSError, KeyError, IndexError, TypeError, ValueError, NotImplementedError) as error:
        rule = f"must be the metadata of {archive}_crop, with {', '.join(_FIELDS)} ({error})"
        raise InputError(Fault(where=str(file), rule=rule)) from None
    return fields | {"full_path": np.array(paths)}


def compute_ages(dob: np.typing.NDArray[Any], photo_taken: np.typing.NDArray[Any]) -> np.typing.NDArray[np.int64]:
    """Compute the age in the middle of the year of the photograph: births from July on count a year less.

    Args:
        dob: day of birth as Matlab counts days; a day before year 1 counts as the first day of that year.
        photo_taken: year; unsigned in the files, where a subtraction would wrap around.
    """
    days = np.maximum(dob.astype(np.int64) - _MATLAB_DAY_OF_YEAR_1, 1) - _DAY_OF_1970
    births = days.astype("datetime64[D]")
    years = births.astype("datetime64[Y]").astype(np.int64) + 1970
    # NumPy counts months from January 1970, so that the remainder is the month, January being 0.
    months = births.astype("datetime64[M]").astype(np.int64) % 12
    ages: np.typing.NDArray[np.int64] = photo_taken.astype(np.int64) - years - (months >= 6)
    return ages


def is_kept(
    fields: dict[str, np.typing.NDArray[Any]], ages: np.typing.NDArray[np.int64]
) -> np.typing.NDArray[np.bool_]:
    """Return True for the faces that the published filter keeps: a single face, with a high score, of a possible age."""
    # NaN means that no second face was found.
    second = fields["second_face_score"]
    alone = np.isnan(second) | (second <= 0)
    clear = fields["face_score"] >= MIN_FACE_SCORE
    kept: np.typing.NDArray[np.bool_] = clear & alone & (ages >= 0) & (ages <= OLDEST)
    return kept
