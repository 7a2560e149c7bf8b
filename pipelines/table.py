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
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dirtune.data import store, verify
from dirtune.data.columns import Columns
from dirtune.data.contract import FEATURES_FILE
from dirtune.data.sources import Source
from dirtune.data.splits import Assignment
from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, Manifest
from dirtune.pipelines import own, sheets

NAME = "table"
# Incremented whenever the same file and options would give other samples
RECIPE = 4
MOST_LEVELS = 256
"""Maximum number of different texts of a one-hot column; a column with more is probably a mistake, such as an id."""
_BATCH_ROWS = 65_536
# Odd, so that no bit of a column is lost
_HASH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# Names under which tables hold the numbers of their rows; a column of such a name is one if its integers differ.
_ROW_NUMBER_NAME = re.compile(
    r"^(index|level_\d+|id|idx|row|row[ _.]?(id|number|num|no|nr|name|names|index)|no\.?|nr\.?|number|#|s\.?\s?no\.?|"
    r"(sample|record|instance|item)[ _.]?(id|number|no|nr|index))$",
    re.IGNORECASE,
)
_IDENTIFIER_NAME = re.compile(r"(^|[ _.])(id|ID|Id)$|[a-z](Id|ID)$|^(id|ID|Id)[ _.]")
_PERSON_NAME = re.compile(
    r"^(subject|patient|person|participant|user|customer|donor|individual|speaker|animal|household|specimen|station|sensor|device)s?"
    r"([ _.]?(no|nr|num|number|code|index))?$",
    re.IGNORECASE,
)
_SPLIT_NAME = re.compile(
    r"^((cv[ _.]?)?k?[ _.]?folds?([ _.]?(id|no|nr|number))?|splits?|partition|(is[ _.]?)?(train|test|val))$",
    re.IGNORECASE,
)
# Fewer numbers are a range by chance.
_FEWEST_COUNTED = 10
# Rank correlation with the label beyond which a feature is noted, with the number of rows that it is computed from
_COPY_CORRELATION, _COPY_ROWS, _FEWEST_RANKED = 0.99, 5000, 30
# Standard deviation of the rest of a sum of features, in that of the label, below which it is noted
_SUM_REST, _MOST_SUMMANDS = 1e-3, 200
# Largest number of a vector: networks, whose normalization computes variances, square sums of features in 32 bits, and the square of
# a sum of a thousand such numbers, 1e36, is still finite.
_LARGEST_FEATURE = 1e15


class Options(own.OwnOptions):
    """Settings of the ingest."""

    features: tuple[own.Column, ...] | None = None
    """Columns of numbers, or of lists of numbers; null: all columns without another role that are no row numbers."""
    one_hot: tuple[own.Column, ...] = ()
    """Columns of texts, such as a category."""
    ignore: tuple[own.Column, ...] = ()
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
        """Return the cells of the given rows, which are in their order."""
        if len(rows) == len(self.numbers):
            return self
        texts = {name: column[rows] for name, column in self.texts.items()}
        return Cells(names=self.names, numbers=self.numbers[rows], texts=texts)

    def list_contents(self, labels: np.typing.NDArray[np.float64]) -> np.typing.NDArray[np.int64]:
        """Return a number for the content of each row; rows of equal content, bit by bit, are the same sample."""
        columns = [*self.numbers.T, labels, *self.texts.values()]
        hashes = np.zeros(len(labels), dtype=np.uint64)
        for column in columns:
            hashes = hashes * _HASH_FACTOR + pd.util.hash_array(np.ascontiguousarray(column))
        contents = np.arange(len(labels))
        _, inverse, times = np.unique(hashes, return_inverse=True, return_counts=True)
        # Rows of equal hashes are compared, because different rows may have one.
        first: dict[tuple[Any, ...], int] = {}
        for row in np.flatnonzero(times[inverse] > 1).tolist():
            content = (self.numbers[row].tobytes(), labels[row].tobytes(), *(text[row] for text in self.texts.values()))
            contents[row] = first.setdefault(content, row)
        return contents


def ingest(
    storage: Storage,
    raw: Path | Source | None,
    options: Options,
    *,
    notes: Sequence[str] = (),
    fit_rules: own.FitRules | None = None,
) -> Manifest:
    """Read the file and write the data set, unless an equal file and options have been ingested.

    Args:
        storage: the data root.
        raw: the file.
        options: settings of the ingest.
        notes: on a known table, for the manifest.
        fit_rules: shot rules of a known table; None means those of own data.

    Raises:
        InputError: the file or a column does not exist, a column of texts is among the features, more than `skip_bad` rows
            cannot be used (the first 20 are listed, and their number), or the rows cannot be split as the options ask.
    """
    found = sheets.find_data_file(NAME, raw)
    request = own.make_request(NAME, RECIPE, found, options)
    if (present := store.find_ingested(storage, options.name, request)) is not None:
        return present
    sheet = sheets.read_sheet(found, options)
    lists = {"features": options.features or (), "one_hot": options.one_hot, "ignore": options.ignore}
    roles = {f"{role}.{index}": name for role, names in lists.items() for index, name in enumerate(names)}
    sheet.require({**options.roles, **roles})
    names, source = sheet.table.column_names, own.describe_source(NAME, sheet, options)
    entries, cells = own.read_entries(sheet, options), read_cells(sheet, options)
    used = sheet.select_usable(options.skip_bad)
    cells = cells.select_rows(used)
    contents = cells.list_contents(entries.labels[used])
    division = own.divide(options, entries, used, contents)
    values, features = make_vectors(cells, division.train, standardize=options.standardize)
    check_vectors(sheet, cells, values, used, standardize=options.standardize)
    described = {**options.roles, "features": cells.names, "one-hot": options.one_hot}
    notes = [*notes, *own.describe_columns(described, sheet), *describe_row_numbers(sheet, cells, names, options)]
    notes += describe_outliers(cells, used, sheet)
    notes += describe_label_copies(cells, division.rows.labels)
    notes += describe_repeated_features(cells, contents, division.assignment)
    for name, texts in cells.texts.items():
        notes += own.describe_similar_names(name, texts)
    if constant := [each["name"] for each in features if each.get("sd") == 0]:
        notes.append(f"constant in training: {own.format_names(constant)}")
    # Half of the memory until here
    del cells
    return own.write_own(
        storage,
        division,
        {split: _iterate_batches(division, values, split) for split in SPLITS},
        {"features": InputSpec(kind="vector", shape=values.shape[1:])},
        sheet=sheet,
        request=request,
        source=source,
        notes=notes,
        side_files={FEATURES_FILE: json.dumps(features, indent=1, allow_nan=False).encode()},
        fit_rules=fit_rules,
    )


def read_cells(sheet: sheets.Sheet, options: Options) -> Cells:
    """Read the feature columns of a sheet; faults are added to the sheet.

    Raises:
        InputError: there is no feature column.
    """
    roles = {*options.roles.values(), *options.one_hot, *options.ignore}
    others = [name for name in sheet.table.column_names if name not in {*roles, *sheet.index_columns}]
    # Before lists become columns, whose elements are not row numbers
    others = [name for name in others if not (_ROW_NUMBER_NAME.match(name) and _has_distinct_integers(sheet, name))]
    names = sheet.expand_lists(others if options.features is None else options.features)
    if not names and not options.one_hot and not sheet.column_faults:
        raise InputError(Fault(where=sheet.where, key="features", rule="no column is left"))
    # Columns that were listed by the user are not left out by another option.
    has_hint = options.features is None
    # One column after the other, so that its texts are gone before the next one is read
    numbers = np.empty((len(names), len(sheet.row_numbers)))
    for place, name in enumerate(names):
        numbers[place] = sheet.read_numbers(name, hint=_get_hint(sheet, name) if has_hint else "")
        sheet.release(name)
    # Arrow would keep the memory of the texts, which is more than that of the numbers.
    pa.default_memory_pool().release_unused()
    texts = {name: sheet.read_names(name) for name in options.one_hot}
    for name, column in texts.items():
        if (levels := len(set(column.tolist()))) > MOST_LEVELS:
            rule = f"a one-hot column must have at most {MOST_LEVELS} different texts"
            sheet.column_faults.append(Fault(where=sheet.where, key=name, rule=rule, got=levels))
    return Cells(names=names, numbers=numbers.T, texts=texts)


def _get_hint(sheet: sheets.Sheet, name: str) -> str:
    """Return the remedy for a feature that is not of numbers, as the end of a sentence."""
    if sheet.is_text(name):
        return "; name it in one_hot or in ignore"
    # Lists of other lengths or of texts, and structs
    is_nested = pa.types.is_nested(sheet.table.column(name).type)
    return f"; name it in ignore, or {'write a column for each of its' if is_nested else 'convert it to'} numbers"


def _has_distinct_integers(sheet: sheets.Sheet, name: str) -> bool:
    """Return True if the cells of a column are different integers, as the numbers of rows are."""
    cells = sheet.table.column(name)
    if not (pa.types.is_string(cells.type) or pa.types.is_integer(cells.type)):
        return False
    texts = pc.utf8_trim_whitespace(pc.cast(cells, pa.string()))
    are_integers = pc.all(pc.match_substring_regex(texts, r"^\d{1,18}$")).as_py()
    return len(texts) > 1 and bool(are_integers) and pc.count_distinct(texts).as_py() == len(texts)


def describe_row_numbers(sheet: sheets.Sheet, cells: Cells, columns: Sequence[str], options: Options) -> list[str]:
    """Return notes on columns that are left out as numbers of rows, and on features that may be such numbers.

    Args:
        sheet: the table.
        cells: its features.
        columns: its columns as in the file.
        options: the settings of the ingest.
    """
    used = {*cells.names, *options.roles.values(), *options.one_hot, *options.ignore}
    # Elements of lists are called after their column.
    used |= {name.rpartition(".")[0] for name in cells.names}
    notes = []
    if left_out := [name for name in columns if name not in used] if options.features is None else []:
        notes.append(f"left out as row numbers or index: {own.format_names(left_out)}; `features` can name them")
    counters = [
        name
        for name, column in zip(cells.names, cells.numbers.T, strict=True)
        if options.features is None and len(column) >= _FEWEST_COUNTED and _is_counter(column)
    ]
    if counters:
        notes.append(
            f"every integer of a range once, or larger from row to row, as row numbers and times are: {own.format_names(counters)}; "
            "`ignore` leaves them out"
        )
    if options.features is None and (folds := [name for name in cells.names if _SPLIT_NAME.match(name)]):
        notes.append(
            f"features with the names of splits: {own.format_names(folds)}; `split_column` uses them as splits, and `ignore` leaves them "
            "out"
        )
    patterns = (_IDENTIFIER_NAME.search, _PERSON_NAME.match)
    identifiers = [name for name in cells.names if options.features is None and any(find(name) for find in patterns)]
    if identifiers:
        notes.append(
            f"features with the names of identifiers: {own.format_names(identifiers)}; if rows belong together, `group` splits by "
            "them, and `ignore` leaves them out"
        )
    return notes


def _is_counter(column: np.typing.NDArray[np.float64]) -> bool:
    """Return True if a column increases or decreases from row to row, or has every integer of a range once."""
    steps = np.diff(column)
    if (steps > 0).all() or (steps < 0).all():
        return True
    return bool(
        np.ptp(column) == len(column) - 1
        and (column == np.round(column)).all()
        and len(np.unique(column)) == len(column)
    )


def check_vectors(
    sheet: sheets.Sheet,
    cells: Cells,
    values: np.typing.NDArray[np.float32],
    used: np.typing.NDArray[np.int64],
    *,
    standardize: bool,
) -> None:
    """Raise if different numbers of a column are equal as vectors of 32 bits, or infinite, or too large for a network.

    Raises:
        InputError: with all such columns, and the cell that is farthest from the others.
    """
    faults, numbers, remedy = [], "numbers", "standardize or rescale"
    if standardize:
        numbers, remedy = "standardized numbers", "correct or rescale"
    for place, (name, column) in enumerate(zip(cells.names, cells.numbers.T, strict=True)):
        before, after = len(np.unique(column)), len(np.unique(values[:, place]))
        largest = float(np.abs(values[:, place]).max())
        # Single pairs of neighbors may fall together, as those of a sum of float64 do.
        if largest <= _LARGEST_FEATURE and after > before / 2:
            continue
        far = int(np.abs(column - np.median(column)).argmax())
        rule = f"{before:,} different numbers would be {after:,} as {numbers} of 32 bits"
        if np.isfinite(largest) and after > before / 2:
            rule = (
                f"{numbers} up to {largest:.2g} are too large for a network, whose sums and squares in 32 bits become infinite: at "
                f"most {_LARGEST_FEATURE:g}"
            )
        rule += f"; {remedy} the column, whose outermost number is in row {sheet.row_numbers[used[far]]}"
        faults.append(Fault(where=sheet.where, key=name, rule=rule, got=float(column[far])))
    verify.raise_faults(faults, where=sheet.where)


def describe_outliers(cells: Cells, used: np.typing.NDArray[np.int64], sheet: sheets.Sheet) -> list[str]:
    """Return a note for each column with numbers far from all others, as a code for missing cells is."""
    notes = []
    for name, column in zip(cells.names, cells.numbers.T, strict=True):
        if far := own.find_distant(column):
            shown = own.format_distant(column, far, sheet.row_numbers[used])
            notes.append(
                f"{own.format_names([name])}: far from all others: {shown}; if it stands for a missing cell, remove it"
            )
    return notes


def describe_label_copies(cells: Cells, labels: np.typing.NDArray[np.float64]) -> list[str]:
    """Return notes on features that have the order of the label, and on features of which the label is a weighted sum."""
    rows = np.unique(np.linspace(0, len(labels) - 1, _COPY_ROWS).astype(np.int64))
    numbers, labels = cells.numbers[rows], labels[rows]
    varying = np.flatnonzero(np.ptp(numbers, axis=0) > 0)
    if len(rows) < _FEWEST_RANKED or not len(varying) or len(np.unique(labels)) < _FEWEST_COUNTED:
        return []
    # The import takes a second, and lists of pipelines need no ranks.
    from scipy.stats import rankdata

    # Of ranks, which another unit, a logarithm or a rounding does not change
    ranks = (rankdata(column) for column in numbers[:, varying].T)
    of_label = rankdata(labels)
    correlations = np.array([np.corrcoef(column, of_label)[0, 1] for column in ranks])
    is_copy = np.abs(correlations) >= _COPY_CORRELATION
    if is_copy.any():
        names = own.format_names([cells.names[place] for place in varying[is_copy]])
        return [
            f"features with the order of the label (rank correlation {_COPY_CORRELATION} or more), as the label in another unit or a "
            f"number made from it has: {names}; `ignore` leaves them out"
        ]
    if len(varying) > min(_MOST_SUMMANDS, len(rows) // 3):
        return []
    centered = numbers[:, varying] - numbers[:, varying].mean(axis=0)
    centered /= centered.std(axis=0)
    target = (labels - labels.mean()) / labels.std()
    weights, _, _, _ = np.linalg.lstsq(centered, target)
    if np.std(target - centered @ weights) > _SUM_REST:
        return []
    names = own.format_names([cells.names[place] for place in varying[np.abs(weights) > _SUM_REST]])
    return [f"the label is a weighted sum of features, as a total is of its parts: {names}; `ignore` leaves them out"]


def describe_repeated_features(cells: Cells, contents: np.typing.NDArray[np.int64], splits: Assignment) -> list[str]:
    """Return a note on test rows with the features of a training row and another label.

    Args:
        cells: the features.
        contents: of each row with its label, as `Cells.list_contents` returns them.
        splits: of the rows.
    """
    train, test = splits.find_rows("train"), splits.find_rows("test")
    features = cells.list_contents(np.zeros(len(contents)))
    with_features, with_label = (np.isin(each[test], each[train]) for each in (features, contents))
    if not (number := int(np.count_nonzero(with_features & ~with_label))):
        return []
    return [
        f"{number:,} of {len(test):,} test rows have the features of a training row and another label: if rows are repeated "
        "measurements, `group` keeps them in one split"
    ]


def make_vectors(
    cells: Cells, train: np.typing.NDArray[np.int64], *, standardize: bool
) -> tuple[np.typing.NDArray[np.float32], list[dict[str, Any]]]:
    """Return the vector of each row, shape `(rows, numbers)`, and the description of each of its numbers.

    Args:
        cells: the feature columns.
        train: positions of the training rows, from which mean, standard deviation and one-hot texts are taken.
        standardize: True standardizes the columns of numbers.
    """
    levels = {name: sorted(set(texts[train].tolist())) for name, texts in cells.texts.items()}
    width = len(cells.names) + sum(map(len, levels.values()))
    vectors, features = np.empty((len(cells.numbers), width), dtype=np.float32), list[dict[str, Any]]()
    for name, column in zip(cells.names, cells.numbers.T, strict=True):
        mean, sd = 0.0, 1.0
        if standardize:
            values = column[train]
            # The computed deviation of equal numbers can be a rounding error, by which nothing must be divided.
            mean, sd = float(values.mean()), 0.0 if np.ptp(values) == 0 else float(values.std())
        vectors[:, len(features)] = (column - mean) / (sd or 1.0)
        features.append({"name": name, "mean": mean, "sd": sd})
    for name, texts in cells.texts.items():
        for text in levels[name]:
            vectors[:, len(features)] = texts == text
            features.append({"name": name, "text": text})
    return vectors, features


def _iterate_batches(division: own.Division, values: np.typing.NDArray[np.float32], split: str) -> Iterator[Columns]:
    """Yield the rows of a split in batches."""
    rows, members = division.rows, division.assignment.find_rows(split)
    for start in range(0, len(members), _BATCH_ROWS):
        chosen = members[start : start + _BATCH_ROWS]
        groups = {} if rows.groups is None else {"group": rows.groups[chosen]}
        yield {
            "sample_id": rows.ids[chosen],
            "label": rows.labels[chosen],
            **groups,
            "features": values[chosen],
        }
