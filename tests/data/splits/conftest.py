"""The real AgeDB list, where it is available, and a small drawn set."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np
import pytest

from dirtune.data.splits import Rows
from dirtune.manifest import LabelSpec

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data"
AGE = LabelSpec(name="age", unit="years", low=0, high=121, bin_width=1, num_bins=121)


@pytest.fixture(scope="session")
def agedb() -> Rows:
    file = SHARED / "agedb" / "agedb.csv"
    if not file.is_file():
        pytest.skip("the AgeDB-DIR list is not available")
    with file.open(newline="") as stream:
        cells = list(csv.DictReader(stream))
    people = [re.fullmatch(r"AgeDB/\d+_(.*)_\d+_[mf]\.jpg", cell["path"]) for cell in cells]
    return Rows(
        name="agedb",
        label=AGE,
        ids=np.array([cell["path"] for cell in cells], dtype=object),
        labels=np.array([float(cell["age"]) for cell in cells]),
        groups=np.array([match and match[1] for match in people], dtype=object),
        published=np.array([cell["split"] for cell in cells], dtype=object),
    )


@pytest.fixture
def ages() -> Rows:
    """900 rows of 60 people with ages around 40, and a published split of 100, 100 and the rest."""
    drawn = np.random.default_rng(5)
    return Rows(
        name="ages",
        label=AGE,
        ids=np.array([f"row-{row:03d}" for row in range(900)], dtype=object),
        labels=np.clip(np.floor(drawn.normal(40, 12, 900)), 0, 120),
        groups=np.array([f"person-{person}" for person in drawn.integers(60, size=900)], dtype=object),
        published=np.array(["val"] * 100 + ["test"] * 100 + ["train"] * 700, dtype=object),
    )
