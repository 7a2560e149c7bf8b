"""agedb: AgeDB-DIR, photographs of celebrities and their age, 1 to 101 years.

Source: AgeDB (Moschoglou et al., "AgeDB: the first manually collected, in-the-wild age database", CVPRW 2017), split for
imbalanced regression by Yang et al. ("Delving into Deep Imbalanced Regression", ICML 2021; YyzHarry/imbalanced-regression,
`agedb-dir`). The raw folder holds the list and the images, named `{id}_{person}_{age}_{gender}.jpg`:

    agedb.csv                               age,path,split, such as 31,AgeDB/11706_OliviaHussey_31_f.jpg,train
    AgeDB/11706_OliviaHussey_31_f.jpg       16,488 of them

The list is public; the images need a password from their authors. Label bins are the years 0..120, as in the official
re-weighting, where the empty bin 0 counts. ACCon's range `R` is 100, as in its paper: the oldest, 101, less the youngest, 1.
Every person of the published validation and test splits is in its training split, too, as the manifest's notes report;
`split=grouped` puts no person into two splits.

The 2026 review (Puetz et al., Artificial Intelligence Review 59; noah-puetz/deconstructing_deep_imbalanced_regression, `data/`)
ships three further lists of these images, `agedb_extrapolation.csv`, `agedb_interpolation.csv` and `agedb_blindspot.csv`, with
many rows several times (`--option split_list=agedb_blindspot.csv --option copies=kept`, or `dropped`).
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from dirtune.data.splits import SplitRecipe
from dirtune.errors import Fault, InputError
from dirtune.frozen import Added
from dirtune.io.storage import Storage
from dirtune.manifest import LabelSpec, Manifest
from dirtune.pipelines.faces import FaceOptions, FaceSet, ingest_faces, read_list, require_raw_folder

NAME = "agedb"
IMAGES = "AgeDB"
LABEL = LabelSpec(name="age", unit="years", low=0.0, high=121.0, bin_width=1.0, num_bins=121, contrast_range=100.0)
PUBLISHED = SplitRecipe(per_bin=30)
_FILE_NAME = re.compile(rf"{IMAGES}/\d+_(?P<person>[^/]+)_\d+_[a-z]\.jpg")


class Options(FaceOptions):
    """Settings of the ingest."""

    split_list: str = "agedb.csv"
    """The list in the raw folder; there are two with this name, and the papers use that of Yang et al."""
    copies: Annotated[Literal["refused", "kept", "dropped"], Added()] = "refused"
    """Rows that the list repeats, as those of the 2026 review do, which draw training images with replacement: kept as shipped,
    or dropped."""


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the list and the images and write the data set, unless equal files and options have been ingested.

    Raises:
        InputError: files are missing, rows or images cannot be used, or the data cannot be split as the options ask.
    """
    folder = require_raw_folder(NAME, raw, f"{options.split_list} and {IMAGES}/")
    # The list is public and is read first, so that its faults are known before the images are there.
    rows = read_list(folder / options.split_list, LABEL, parse_person, allow_copies=options.copies != "refused")
    first = [row for row in rows if isinstance(row, Fault) or row.copy == 1]
    copies = len(rows) - len(first)
    if options.copies == "dropped":
        rows = first
    if not (folder / IMAGES).is_dir():
        rule = "no such folder; the images of AgeDB need a password from their authors"
        raise InputError(Fault(where=str(folder / IMAGES), rule=rule))
    sha256 = hashlib.sha256((folder / options.split_list).read_bytes()).hexdigest()
    faces = FaceSet(
        name=NAME,
        label=LABEL,
        recipe=PUBLISHED,
        folder=folder,
        rows=rows,
        hashes={options.split_list: sha256},
        notes=(f"rows that repeat an image: {copies:,}, {options.copies}",) if copies else (),
    )
    return ingest_faces(storage, faces, options)


def parse_person(path: str) -> str | None:
    """Return the name of the person in a path, or None if it is not a path of this data set."""
    found = _FILE_NAME.fullmatch(path)
    return found and found["person"]
