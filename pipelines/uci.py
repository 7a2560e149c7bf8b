"""uci: tables of the UCI repository with balanced validation and test splits (UCI-DIR): abalone, airfoil, concrete, real estate.

    dirtune ingest uci --raw DIR --option table=abalone

The data set is called `uci_abalone`. A file of the raw folder is UCI's own, or its sheet saved as csv, or `data.csv` of its page
under the table's name, which `--download` fetches. The cells are in the order of UCI in all of them.

Source: Dong et al., "Improve Representation for Imbalanced Regression through Geometric Constraints" (SRL), CVPR 2025, which names
the benchmark; github.com/yilei-wu/imbalanced-regression at c2460dd, `simulated-dataset/uci_tabular.py`. As there, labels are counted
in classes of width 1, and the shot regions are the thirds of the occupied classes by their number of training rows (rule `classes`).
Its splits, and what it reads them from, are not published: those here are dirtune's own, `min(n // 3, m)` rows of a label bin for
validation and again for test, as the age data sets have, where m gives a tenth to a fifth of the rows; `split_seed` draws others. Its
errors on real estate (0.3) are of labels in another unit. No number is comparable with a published one.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dirtune.data import splits, verify
from dirtune.data.sources import Source
from dirtune.data.splits.settings import Split
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import Manifest, ShotRule
from dirtune.pipelines import table

NAME = "uci"
BIN_WIDTH = 1.0
"""Width of the label bins, which are the classes of the source, in the label's unit."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Form of the file of one table, whose last column is the label."""

    file: str
    """UCI's file, or the csv file of its sheet."""
    columns: tuple[str, ...]
    unit: str
    heading: str
    """Word in the name of the last column, where a file has names."""
    texts: tuple[str, ...] = ()
    """Texts of the first column; empty if it has numbers."""
    counts_rows: bool = False
    """True: the first column is the number of the row."""


TABLES = {
    "abalone": Layout(
        file="abalone.data",
        columns=("sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "rings"),
        unit="rings",
        heading="rings",
        texts=("M", "F", "I"),
    ),
    "airfoil": Layout(
        file="airfoil_self_noise.dat",
        columns=("frequency", "angle", "chord", "velocity", "thickness", "pressure"),
        unit="dB",
        heading="pressure",
    ),
    "concrete": Layout(
        file="Concrete_Data.csv",
        columns=("cement", "slag", "ash", "water", "superplasticizer", "coarse", "fine", "age", "strength"),
        unit="MPa",
        heading="strength",
    ),
    "real_estate": Layout(
        file="Real estate valuation data set.csv",
        columns=("number", "date", "age", "station", "stores", "latitude", "longitude", "price"),
        unit="10,000 dollars (TWD) per ping",
        heading="price",
        counts_rows=True,
    ),
}


class Options(splits.Splitting):
    """Settings of the ingest; the settings of the splits are inherited."""

    table: Literal["abalone", "airfoil", "concrete", "real_estate"]
    """Table of the repository: rings of abalones, sound pressure of airfoils, strength of concrete, prices of houses."""
    split: Split = "made"
    """made: balanced over the label; natural: at random. No split is published, and the tables have no groups."""

    @property
    def name(self) -> str:
        """Name of the data set."""
        return f"{NAME}_{self.table}"


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the file of a table and write the data set, unless an equal file and options have been ingested.

    Raises:
        InputError: there is no file of the table, a line of it cannot be used (the first 20 are listed, and their number), or the
            rows cannot be split as the options ask.
    """
    layout = TABLES[options.table]
    path = _find_file(raw, options.table)
    cells = read_rows(path, layout)
    own = splits.Splitting.model_fields
    chosen = table.Options(
        name=options.name,
        label=layout.columns[-1],
        unit=layout.unit,
        bin_width=BIN_WIDTH,
        one_hot=layout.columns[:1] if layout.texts else (),
        **{name: getattr(options, name) for name in own},
    )
    return table.ingest(
        storage,
        Source(where=str(path), path=path.parent, table=cells),
        chosen,
        notes=("no split of UCI-DIR is published; this one is dirtune's own",),
        fit_rules=lambda counts: {"classes": fit_class_rule(counts)},
    )


def _find_file(raw: Path | None, name: str) -> Path:
    layout = TABLES[name]
    expected = f"{layout.file} or {name}.csv"
    if raw is None:
        rule = f"needs the folder of {expected} (`dirtune ingest {NAME} --raw DIR --option table={name}`)"
        raise InputError(Fault(where=NAME, key="raw", rule=rule))
    found = [path for path in (raw / layout.file, raw / f"{name}.csv") if path.is_file()]
    if found:
        return found[0].resolve()
    sheets = [path.name for path in raw.glob(f"{Path(layout.file).stem}.xls*")]
    remedy = f"; save the sheet of {sheets[0]} as csv" if sheets else ""
    raise InputError(Fault(where=str(raw), rule=f"has no file {expected}{remedy}"))


def read_rows(path: Path, layout: Layout) -> pa.Table:
    """Read the columns of a file, without the numbers of its rows.

    Raises:
        InputError: it is not UTF-8 text, or lines have faults: cells that are missing or no numbers, or an unknown text.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(Fault(where=str(path), rule=f"must be UTF-8 text ({error})")) from None
    delimiter = "\t" if path.suffix == ".dat" else ","
    # Names of columns may hold the delimiter in quotes.
    rows = [[cell.strip() for cell in row] for row in csv.reader(lines, delimiter=delimiter)]
    has_names = bool(rows and rows[0]) and not _is_number(rows[0][-1])
    numbered = [(line, row) for line, row in enumerate(rows[has_names:], start=1 + has_names) if any(row)]
    faults = [fault for line, row in numbered for fault in _find_faults(f"{path}:{line}", row, layout)]
    if has_names and layout.heading not in rows[0][-1].lower():
        rule = f"the last column must be the label ({layout.columns[-1]})"
        faults.insert(0, Fault(where=f"{path}:1", rule=rule, got=rows[0][-1]))
    if not numbered:
        faults.append(Fault(where=str(path), rule="has no rows"))
    verify.raise_faults(faults, where=str(path))
    columns = {
        name: pa.array(cells if layout.texts and not place else [float(cell) for cell in cells])
        for place, (name, cells) in enumerate(
            zip(layout.columns, zip(*(row for _, row in numbered), strict=True), strict=True)
        )
        if place or not layout.counts_rows
    }
    return pa.table(columns)


def _find_faults(where: str, row: Sequence[str], layout: Layout) -> Iterator[Fault]:
    if len(row) != len(layout.columns):
        yield Fault(where=where, rule=f"must have {len(layout.columns)} cells", got=len(row))
        return
    for place, (name, cell) in enumerate(zip(layout.columns, row, strict=True)):
        if layout.texts and not place:
            if cell not in layout.texts:
                yield Fault(where=where, key=name, rule=f"must be one of {', '.join(layout.texts)}", got=cell)
        elif not _is_number(cell):
            yield Fault(where=where, key=name, rule="must be a finite number", got=cell)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def fit_class_rule(train_counts: NDArray[np.int64]) -> ShotRule:
    """Return the rule of the source: many and few are the thirds of the occupied classes with the most and the fewest rows.

    Classes with as many rows as the one at the limit are medium.
    """
    counts = np.sort(train_counts[train_counts > 0])[::-1]
    return ShotRule(many_above=int(counts[len(counts) // 3]), few_below=int(counts[-len(counts) // 3]))
