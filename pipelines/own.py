"""What `table`, `text_pairs` and `images` share: a researcher's own data, from a sheet to splits and label bins.

The set gets the name that the user gives; the label's bins, and how many rows go to val and test, are chosen from the data
unless they are given. Without a column that names the splits they are made: balanced over the label, as in the
published benchmarks.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dirtune.data.splits import LEFT_OUT, Assignment, Recipe, Rows, make_held_out_rule, split_rows
from dirtune.data.store import write_dataset
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.manifest import SPLITS, InputSpec, Manifest, ShotRule
from pipelines.own_bins import label_spec
from pipelines.own_options import OwnOptions
from pipelines.sheets import Sheet

if TYPE_CHECKING:
    from ray.data import Dataset

_SPELLINGS = {"training": "train", "dev": "val", "valid": "val", "validation": "val"}


@dataclass(frozen=True, kw_only=True)
class Entries:
    """The columns that every set has, one entry per row of the sheet; where a cell is at fault, the sheet knows."""

    ids: NDArray[Any]
    labels: NDArray[np.float64]
    groups: NDArray[Any] | None
    published: NDArray[Any] | None


@dataclass(frozen=True, kw_only=True)
class Division:
    """The rows that are used, split."""

    options: OwnOptions
    rows: Rows
    positions: NDArray[np.int64]
    """Of these rows in the sheet."""
    assignment: Assignment

    @property
    def train(self) -> NDArray[np.int64]:
        """Which of these rows are trained on."""
        return self.assignment.find_rows("train")

    def table(self, columns: Mapping[str, Sequence[Any] | pa.Array]) -> pa.Table:
        """These rows with `sample_id`, `split`, `label`, `group` if there are groups, and the columns given."""
        rows = self.rows
        groups = {} if rows.groups is None else {"group": rows.groups.tolist()}
        return pa.table(
            {
                "sample_id": rows.ids.tolist(),
                "split": self.assignment.splits.tolist(),
                "label": rows.labels,
                **groups,
                **columns,
            }
        )


def request_of(pipeline: str, recipe: int, file: Path, options: OwnOptions, more: object = None) -> str:
    """The identity of an ingest: the options, the content of the file, and what else it depends on."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    asked = options.model_dump()
    return hash_json({"pipeline": pipeline, "recipe": recipe, "options": asked, "raw": sha256, "more": more})


def read_entries(sheet: Sheet, options: OwnOptions, *, ids: NDArray[Any] | None = None) -> Entries:
    """Labels, ids, groups and split names of a sheet.

    Args:
        ids: of the rows if no column holds them; none: `row-` and the number of the row.
    """
    if options.id is not None:
        ids = sheet.texts(options.id)
    elif ids is None:
        ids = np.array([f"row-{number:07d}" for number in sheet.row_numbers], dtype=object)
    _blame_repeated(sheet, ids, options.id or "id")
    return Entries(
        ids=ids,
        labels=_labels(sheet, options),
        groups=None if options.group is None else sheet.texts(options.group),
        published=None if options.split_column is None else _splits(sheet, options.split_column),
    )


def _blame_repeated(sheet: Sheet, ids: NDArray[Any], column: str) -> None:
    first: dict[str, int] = {}
    for row, sample_id in enumerate(ids.tolist()):
        # An empty cell is a fault already.
        if sample_id and first.setdefault(sample_id, row) != row:
            rule = f"the sample id stands in row {sheet.row_numbers[first[sample_id]]} already"
            sheet.blame(row, column, rule, sample_id)


def _labels(sheet: Sheet, options: OwnOptions) -> NDArray[np.float64]:
    labels = sheet.numbers(options.label)
    low = -np.inf if options.low is None else options.low
    high = np.inf if options.high is None else options.high
    for row in np.flatnonzero((labels < low) | (labels > high)).tolist():
        sheet.blame(row, options.label, f"must be within {low:g}..{high:g}", float(labels[row]))
    return labels


def _splits(sheet: Sheet, column: str) -> NDArray[Any]:
    names = [text.strip().lower() for text in sheet.texts(column).tolist()]
    splits = [_SPELLINGS.get(name, name) for name in names]
    known = ", ".join((*SPLITS, LEFT_OUT))
    for row, split in enumerate(splits):
        if split and split not in (*SPLITS, LEFT_OUT):
            sheet.blame(row, column, f"must be one of {known}", names[row])
    return np.array(splits)


def divide(
    options: OwnOptions, entries: Entries, positions: NDArray[np.int64], contents: Sequence[Hashable]
) -> Division:
    """Choose the label bins and split the rows that can be used.

    Args:
        positions: of these rows in the sheet.
        contents: what makes two of them the same sample, in their order.

    Raises:
        InputError: the labels are all equal, or the rows cannot be split as asked.
    """
    labels = entries.labels[positions]
    label = label_spec(
        labels,
        where=options.name,
        name=options.label,
        unit=options.unit,
        low=options.low,
        high=options.high,
        bin_width=options.bin_width,
    )
    rows = Rows(
        name=options.name,
        label=label,
        ids=entries.ids[positions],
        labels=labels,
        groups=None if entries.groups is None else entries.groups[positions],
        published=None if entries.published is None else entries.published[positions],
    )
    recipe = balanced_recipe(rows, options.held_back)
    assignment = split_rows(rows, options.splitting, recipe, contents=contents)
    return Division(options=options, rows=rows, positions=positions, assignment=assignment)


def balanced_recipe(rows: Rows, share: float) -> Recipe:
    """The recipe for balanced splits whose val and test hold no more than a share of the rows each, and nearly as much.

    Val and test get at most a third of a bin's rows each, so that bins with one or two rows give nothing. The bins drawn
    from are the label bins or, where these are too sparse for the share, the narrowest multiples (2, 5, 10, 20, ...)
    that are not; then `per_bin` is the largest number that stays within the share.
    """
    wanted, one_in = share * len(rows.ids), 3
    for multiple in (step * 10**power for power in range(10) for step in (1, 2, 5)):
        width = rows.label.bin_width * multiple
        most = np.bincount(rows.compute_bins(width)) // one_in
        fits = np.count_nonzero(most) <= wanted <= most.sum()
        if fits or width >= rows.label.range:
            break
    sizes = range(1, int(most.max()) + 1)
    per_bin = bisect_right(sizes, wanted, key=lambda size: int(np.minimum(most, size).sum()))
    return Recipe(per_bin=max(1, per_bin), one_in=one_in, bin_width=width)


def write_own(
    storage: Storage,
    division: Division,
    splits: Mapping[str, Dataset],
    inputs: Mapping[str, InputSpec],
    *,
    sheet: Sheet,
    request: str,
    notes: Sequence[str] = (),
    side_files: Mapping[str, bytes] | None = None,
) -> Manifest:
    """Write the set; see `write_dataset`."""
    options, label, held = division.options, division.rows.label, division.assignment.held_out
    limits = ShotRule(many_above=options.many_above, few_below=options.few_below)
    rules = {"counts": limits}
    if held:
        rules["held_out"] = make_held_out_rule(held, label.num_bins)
    return write_dataset(
        storage,
        options.name,
        splits,
        inputs=inputs,
        label=label,
        group=options.group,
        shot_rules=rules,
        default_shot_rule="counts",
        source={"raw": str(sheet.path), "request": request},
        notes=(*division.assignment.notes, *notes, *sheet.notes),
        side_files=side_files,
    )
