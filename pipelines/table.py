"""table: a researcher's own table of numbers, from a csv, tsv or Parquet file.

    dirtune ingest table --raw concrete.csv --option name=concrete --option label=strength

Every row becomes one vector: the numbers of its feature columns, then a 0 or 1 for each text of the one-hot columns. All
columns that have no other role are features; a column of texts among them is refused until it is named in `one_hot` or
`ignore`, so that nothing is left out unnoticed.

Numbers are standardized, `(x - mean) / sd` with mean and standard deviation (of the population) of the training rows alone,
because encoders expect inputs of about that size and val and test must not tell training anything; a column that is
constant in training is only centered. `features.json` holds name, mean and sd of every number of the vector, so that it can
be taken back. Trade-off: a smaller training split has another mean, so its vectors, and its content hash, differ
throughout. The texts of a one-hot column are those of the training rows; others are all zeros.

There are no weights for single rows: re-weighting is a setting of the trial, not of the data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dirtune.data.columns import Columns
from dirtune.data.session import ray_session
from dirtune.data.store import find_ingested
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, Manifest
from pipelines.own import divide, read_entries, request_of, write_own
from pipelines.own_options import OwnOptions
from pipelines.sheets import Sheet, data_file, read_sheet

if TYPE_CHECKING:
    from ray.data import Dataset

NAME = "table"
# Counted up whenever the same file and options would give other samples
RECIPE = 1
MOST_LEVELS = 256
"""A one-hot column with more different texts is taken for a mistake, such as an id."""
_BLOCK_BYTES = 64 * 2**20


class Options(OwnOptions):
    """Settings of the ingest."""

    features: tuple[str, ...] | None = None
    """Columns of numbers; none: all columns that are not named elsewhere."""
    one_hot: tuple[str, ...] = ()
    """Columns of texts, such as a category."""
    ignore: tuple[str, ...] = ()
    """Columns that are no features, where `features` is not given."""
    standardize: bool = True
    """Whether numbers are standardized with the mean and standard deviation of the training rows."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """The feature columns of some rows, as they stand in the file."""

    names: list[str]
    """Of the columns of numbers."""
    numbers: NDArray[np.float64]
    """Shape `(rows, columns)`."""
    texts: dict[str, NDArray[Any]]
    """By one-hot column."""

    def take(self, rows: NDArray[np.int64]) -> Cells:
        """Some of the rows."""
        texts = {name: column[rows] for name, column in self.texts.items()}
        return Cells(names=self.names, numbers=self.numbers[rows], texts=texts)

    def contents(self, labels: NDArray[np.float64]) -> list[tuple[Any, ...]]:
        """What makes two rows the same sample."""
        numbers = (row.tobytes() for row in np.column_stack([self.numbers, labels]))
        return list(zip(numbers, *self.texts.values(), strict=True))


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the file and write the data set, unless an equal file and options have been ingested.

    Raises:
        InputError: no such file or columns, columns of texts among the features, rows that cannot be used beyond
            `skip_bad` (the first 20 are named, and their number), or rows that cannot be split as asked.
    """
    file = data_file(NAME, raw)
    request = request_of(NAME, RECIPE, file, options)
    if (present := find_ingested(storage, options.name, request)) is not None:
        return present
    sheet = read_sheet(file, delimiter=options.delimiter, quoted=options.quoted)
    sheet.require({**options.roles, **_feature_roles(options)})
    entries, cells = read_entries(sheet, options), read_cells(sheet, options)
    used = sheet.usable(options.skip_bad)
    cells = cells.take(used)
    division = divide(options, entries, used, cells.contents(entries.labels[used]))
    values, features = vectors(cells, division.train, standardize=options.standardize)
    rows = division.table({"features": _lists(values)})
    with ray_session():
        return write_own(
            storage,
            division,
            {split: _dataset(rows, split) for split in SPLITS},
            {"features": InputSpec(kind="vector", shape=values.shape[1:])},
            sheet=sheet,
            request=request,
            notes=_notes(features),
            side_files={"features.json": json.dumps(features, indent=1).encode()},
        )


def _feature_roles(options: Options) -> dict[str, str]:
    lists = {"features": options.features or (), "one_hot": options.one_hot, "ignore": options.ignore}
    return {f"{role}.{place}": name for role, names in lists.items() for place, name in enumerate(names)}


def read_cells(sheet: Sheet, options: Options) -> Cells:
    """The feature columns of a sheet, faults noted there.

    Raises:
        InputError: there is no feature column.
    """
    roles = {*options.roles.values(), *options.one_hot, *options.ignore}
    others = [name for name in sheet.table.column_names if name not in roles]
    names = others if options.features is None else list(options.features)
    if not names and not options.one_hot:
        raise InputError(Fault(where=str(sheet.path), key="features", rule="no column is left"))
    hint = "; name it in one_hot or in ignore" if options.features is None else ""
    numbers = [sheet.numbers(name, hint=hint) for name in names]
    texts = {name: sheet.texts(name) for name in options.one_hot}
    for name, column in texts.items():
        if (levels := len(set(column.tolist()))) > MOST_LEVELS:
            rule = f"a one-hot column must have at most {MOST_LEVELS} different texts"
            sheet.column_faults.append(Fault(where=str(sheet.path), key=name, rule=rule, got=levels))
    shape = (len(names), len(sheet.row_numbers))
    return Cells(names=names, numbers=np.reshape(numbers, shape).T, texts=texts)


def vectors(
    cells: Cells, train: NDArray[np.int64], *, standardize: bool
) -> tuple[NDArray[np.float32], list[dict[str, Any]]]:
    """The vector of each row, shape `(rows, numbers)`, and what each of its numbers is.

    Args:
        train: positions of the training rows, which alone say mean, standard deviation and one-hot texts.
    """
    columns, features = [], []
    for name, column in zip(cells.names, cells.numbers.T, strict=True):
        mean, sd = _moments(column[train]) if standardize else (0.0, 1.0)
        columns.append((column - mean) / (sd or 1.0))
        features.append({"name": name, "mean": mean, "sd": sd})
    for name, texts in cells.texts.items():
        for text in sorted(set(texts[train].tolist())):
            columns.append((texts == text).astype(np.float64))
            features.append({"name": name, "text": text})
    return np.stack(columns, axis=1).astype(np.float32), features


def _moments(values: NDArray[np.float64]) -> tuple[float, float]:
    # Of equal numbers the computed deviation can be a rounding error, which must not be divided by.
    return float(values.mean()), 0.0 if np.ptp(values) == 0 else float(values.std())


def _notes(features: list[dict[str, Any]]) -> list[str]:
    constant = [each["name"] for each in features if each.get("sd") == 0]
    return [f"constant in training: {', '.join(constant)}"] if constant else []


def _lists(values: NDArray[np.float32]) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def _dataset(rows: pa.Table, split: str) -> Dataset:
    import ray.data

    members = rows.filter(pc.equal(rows["split"], split))
    blocks = max(1, ceil(members.nbytes / _BLOCK_BYTES))
    dataset = ray.data.from_arrow(members, override_num_blocks=blocks)
    return dataset.map_batches(_stacked, batch_format="numpy")


def _stacked(batch: Columns) -> Columns:
    return {**batch, "features": np.stack(list(batch["features"]))}
