"""table: an own table of numbers, from a csv, tsv or Parquet file.

    dirtune ingest table --raw concrete.csv --option name=concrete --option label=strength

Every row becomes one vector: the numbers of its feature columns, then a 0 or 1 for each text of the one-hot columns. All
columns that have no other role are features; a column of texts among them is an error unless it is listed in `one_hot` or
`ignore`, so that no column is left out unnoticed.

Numbers are standardized, `(x - mean) / sd` with mean and standard deviation (of the population) of the training rows alone,
because encoders expect inputs of that scale and no information of val and test may enter training; a column that is constant
in training is only centered. `features.json` holds name, mean and sd of every number of the vector, for the inverse.
Trade-off: a smaller training split has another mean, so that its vectors, and its content hash, differ throughout. The texts
of a one-hot column are those of the training rows; other texts are all zeros.

There are no weights for single rows: re-weighting is a setting of the trial, not of the data.
"""

import json
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dirtune.data import session, store
from dirtune.data.columns import Columns
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, Manifest
from pipelines.own import OwnOptions, divide, make_request, read_entries, write_own
from pipelines.sheets import Sheet, find_data_file, read_sheet

if TYPE_CHECKING:
    from ray.data import Dataset

NAME = "table"
# Incremented whenever the same file and options would give other samples
RECIPE = 1
MOST_LEVELS = 256
"""Maximum number of different texts of a one-hot column; a column with more is probably a mistake, such as an id."""
_BLOCK_BYTES = 64 * 2**20


class Options(OwnOptions):
    """Settings of the ingest."""

    features: tuple[str, ...] | None = None
    """Columns of numbers; null: all columns without another role."""
    one_hot: tuple[str, ...] = ()
    """Columns of texts, such as a category."""
    ignore: tuple[str, ...] = ()
    """Columns that are not features, if `features` is not given."""
    standardize: bool = True
    """True: numbers are standardized with the mean and standard deviation of the training rows."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Feature columns of rows, as in the file."""

    names: list[str]
    """Names of the columns of numbers."""
    numbers: np.typing.NDArray[np.float64]
    """Shape `(rows, columns)`."""
    texts: dict[str, np.typing.NDArray[Any]]
    """Texts by one-hot column."""

    def select_rows(self, rows: np.typing.NDArray[np.int64]) -> "Cells":
        """Return the cells of the given rows."""
        texts = {name: column[rows] for name, column in self.texts.items()}
        return Cells(names=self.names, numbers=self.numbers[rows], texts=texts)

    def list_contents(self, labels: np.typing.NDArray[np.float64]) -> list[tuple[Any, ...]]:
        """Return the content of each row; rows of equal content are the same sample."""
        numbers = (row.tobytes() for row in np.column_stack([self.numbers, labels]))
        return list(zip(numbers, *self.texts.values(), strict=True))


def ingest(storage: Storage, raw: Path | None, options: Options) -> Manifest:
    """Read the file and write the data set, unless an equal file and options have been ingested.

    Raises:
        InputError: the file or a column does not exist, a column of texts is among the features, more than `skip_bad` rows
            cannot be used (the first 20 are listed, and their number), or the rows cannot be split as the options ask.
    """
    file = find_data_file(NAME, raw)
    request = make_request(NAME, RECIPE, file, options)
    if (present := store.find_ingested(storage, options.name, request)) is not None:
        return present
    sheet = read_sheet(file, delimiter=options.delimiter, quoted=options.quoted)
    lists = {"features": options.features or (), "one_hot": options.one_hot, "ignore": options.ignore}
    roles = {f"{role}.{index}": name for role, names in lists.items() for index, name in enumerate(names)}
    sheet.require({**options.roles, **roles})
    entries, cells = read_entries(sheet, options), read_cells(sheet, options)
    used = sheet.select_usable(options.skip_bad)
    cells = cells.select_rows(used)
    division = divide(options, entries, used, cells.list_contents(entries.labels[used]))
    values, features = make_vectors(cells, division.train, standardize=options.standardize)
    lists_of_values = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    rows = division.make_table({"features": lists_of_values})
    constant = [each["name"] for each in features if each.get("sd") == 0]
    with session.ray_session():
        return write_own(
            storage,
            division,
            {split: _make_dataset(rows, split) for split in SPLITS},
            {"features": InputSpec(kind="vector", shape=values.shape[1:])},
            sheet=sheet,
            request=request,
            notes=[f"constant in training: {', '.join(constant)}"] if constant else [],
            side_files={"features.json": json.dumps(features, indent=1).encode()},
        )


def read_cells(sheet: Sheet, options: Options) -> Cells:
    """Read the feature columns of a sheet; faults are added to the sheet.

    Raises:
        InputError: there is no feature column.
    """
    roles = {*options.roles.values(), *options.one_hot, *options.ignore}
    others = [name for name in sheet.table.column_names if name not in roles]
    names = others if options.features is None else list(options.features)
    if not names and not options.one_hot:
        raise InputError(Fault(where=str(sheet.path), key="features", rule="no column is left"))
    # Columns that were listed by the user are not left out by another option.
    hint = "; name it in one_hot or in ignore" if options.features is None else ""
    numbers = [sheet.read_numbers(name, hint=hint) for name in names]
    texts = {name: sheet.read_texts(name) for name in options.one_hot}
    for name, column in texts.items():
        if (levels := len(set(column.tolist()))) > MOST_LEVELS:
            rule = f"a one-hot column must have at most {MOST_LEVELS} different texts"
            sheet.column_faults.append(Fault(where=str(sheet.path), key=name, rule=rule, got=levels))
    shape = (len(names), len(sheet.row_numbers))
    return Cells(names=names, numbers=np.reshape(numbers, shape).T, texts=texts)


def make_vectors(
    cells: Cells, train: np.typing.NDArray[np.int64], *, standardize: bool
) -> tuple[np.typing.NDArray[np.float32], list[dict[str, Any]]]:
    """Return the vector of each row, shape `(rows, numbers)`, and the description of each of its numbers.

    Args:
        cells: the feature columns.
        train: positions of the training rows, from which mean, standard deviation and one-hot texts are taken.
        standardize: True standardizes the columns of numbers.
    """
    columns, features = [], []
    for name, column in zip(cells.names, cells.numbers.T, strict=True):
        mean, sd = 0.0, 1.0
        if standardize:
            values = column[train]
            # The computed deviation of equal numbers can be a rounding error, by which nothing must be divided.
            mean, sd = float(values.mean()), 0.0 if np.ptp(values) == 0 else float(values.std())
        columns.append((column - mean) / (sd or 1.0))
        features.append({"name": name, "mean": mean, "sd": sd})
    for name, texts in cells.texts.items():
        for text in sorted(set(texts[train].tolist())):
            columns.append((texts == text).astype(np.float64))
            features.append({"name": name, "text": text})
    return np.stack(columns, axis=1).astype(np.float32), features


def _make_dataset(rows: pa.Table, split: str) -> "Dataset":
    import ray.data

    members = rows.filter(pc.equal(rows["split"], split))
    blocks = max(1, ceil(members.nbytes / _BLOCK_BYTES))
    dataset = ray.data.from_arrow(members, override_num_blocks=blocks)

    def stack(batch: Columns) -> Columns:
        return {**batch, "features": np.stack(list(batch["features"]))}

    # A numpy batch holds lists of fixed size as objects, of which the data set needs an array.
    return dataset.map_batches(stack, batch_format="numpy")
