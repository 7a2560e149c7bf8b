"""Own data: options, label bins and splits that `table`, `text_pairs` and `images` share.

The data set is stored under the name that the user gives. The label bins, and the sizes of val and test, are chosen from the
data unless they are given. Without a column with the splits they are made: balanced over the label, as in the published
benchmarks.
"""

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator, Field, field_validator, model_validator

from dirtune.data import shot_rule, store
from dirtune.data.columns import Columns
from dirtune.data.contract import SOURCE_FILE, RawSource
from dirtune.data.sources import Source
from dirtune.data.splits import LEFT_OUT, Assignment, Rows, SplitRecipe, Splitting, make_held_out_rule, split_rows
from dirtune.errors import Fault, InputError
from dirtune.frozen import hash_json
from dirtune.io.storage import Storage
from dirtune.label_transform import compute_binned_range, get_lower_limit, restore_labels, transform_labels
from dirtune.manifest import SPLITS, InputSpec, LabelSpec, LabelTransform, Manifest, ShotRule
from dirtune.pipelines import PIPELINES
from dirtune.pipelines.sheets import Sheet, TextFormat, normalize_name
from dirtune.wording import format_count

if TYPE_CHECKING:
    from ray.data import Dataset

FitRules = Callable[[NDArray[np.int64]], Mapping[str, ShotRule]]
"""Returns shot rules, the default last, for the training rows by label bin."""
Column = Annotated[str, AfterValidator(normalize_name)]
"""Name of a column; headers are normalized, too."""
MOST_BINS = 100_000
"""Largest number of label bins."""
BINS = 100
"""Approximate number of label bins if no width is given."""
SMALL_TEST = 150
"""Rows that val and test of a small set aim for."""
_SPELLINGS = {"training": "train", "dev": "val", "valid": "val", "validation": "val"}
_CHUNK_ROWS = 65_536
# Twice the tolerance of `label_bins` at the edges of bins
_FLOAT32_STEPS = 8
# Beyond these, the decimals of a float are rounding errors.
_DIGITS = 12
# Below half of a turn, the distance of two labels is that around the circle.
_PART_OF_TURN, _MOST_OF_TURN = 0.5, 0.75
_TURNS = {"°": 360.0, "deg": 360.0, "degree": 360.0, "degrees": 360.0, "rad": 2 * math.pi, "radians": 2 * math.pi}
# Of the calendar, by the name of the label
_CYCLES = {
    r"^hour$|(hour|time)[ _.]?of[ _.]?day": 24.0,
    r"^weekday$|day[ _.]?of[ _.]?week": 7.0,
    r"^month$|month[ _.]?of[ _.]?year": 12.0,
    r"day[ _.]?of[ _.]?year": 365.0,
}
_ANGLE_NAME = re.compile(
    r"angle|azimuth|bearing|direction|heading|longitude|orientation|phase|pitch|roll|yaw", re.IGNORECASE
)
# Columns of one role that a note names
_SHOWN_COLUMNS, _SHOWN_CHARACTERS = 20, 80
# Names with several spellings that a note shows, and names that stand for missing ones
_SHOWN_SPELLINGS = 3
_MISSING_NAMES = {"na", "n/a", "#n/a", "nan", "<na>", "null", "none", "missing", "?", "-", "."}
# Labels at each end that a note names
_OUTERMOST = 3
# Share of the rows beyond which one bin is probably the work of a wrong label
_NEARLY_ALL = 0.8
# Factor between high and low labels from which logarithms are looked at
_MAGNITUDE = 10.0
# Share of the rows from which one label, or one bin, is noted
_MANY = 0.3
# Different numbers that make a distribution, and those beside it that are named
_FEWEST_NEAR, _MOST_DISTANT = 9, 5
# Rows of a set that tells nothing about its labels
_TINY = 30
# Fewer values than this, and fewer test rows, are noted.
_FEW_LEVELS, _SMALL_TEST_NOTED = 5, 60


class OwnOptions(Splitting, TextFormat):
    """Settings of the ingest that own data share; those of the splits and of text files are inherited.

    `split` is `published` if there is a split column, otherwise `grouped` if there is a column of groups, otherwise `made`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    """Name of the data set, by which studies refer to it."""
    label: Column
    """Column of the label."""
    unit: str = "units"
    """Unit of the label, for display."""
    id: Column | None = None
    """Column of the sample ids; null: the number of the row in the file (`images`: the path)."""
    group: Column | None = None
    """Column of groups that must not cross splits, such as the person; `split=made` ignores them."""
    split_column: Column | None = None
    """Column with the split of each row: train, val, test or left_out."""
    low: float | None = None
    """Lower end of the label bins; null: from the data. Labels below it are faults."""
    high: float | None = None
    """Upper end of the label bins; null: from the data. Labels above it are faults."""
    bin_width: float | None = Field(default=None, gt=0)
    """Width of the label bins; null: about 100 bins, see `choose_label_spec`."""
    label_transform: LabelTransform | Literal["auto"] = "none"
    """Function of the label in which bins have equal widths, for labels over orders of magnitude: log, or log1p for labels
    that begin at zero; studies then set `model.label_transform`. auto: log for positive labels that span a factor of ten
    or more and are less skewed in logarithms (`choose_label_transform`)."""
    label_period: float | None = Field(default=None, gt=0)
    """Length after which labels repeat, such as 360 for degrees; null: found for angles of a full turn. Errors are differences of
    numbers all the same, of which ingest and plan remind."""
    held_back: float | None = Field(default=None, gt=0, le=0.3)
    """Maximum share of the rows in val, and again in test, if the splits are made here (`choose_recipe`); null: a tenth;
    of small sets without groups up to a fifth, which gives 150 rows."""
    many_above: int | None = Field(default=None, ge=0)
    """Shot region many: label bins with more training rows than this, 100 if only `few_below` is given. If neither is given,
    the regions have a third of the test rows each (`dirtune.data.shot_rule`)."""
    few_below: int | None = Field(default=None, ge=0)
    """Shot region few: label bins with fewer training rows than this, 20 if only `many_above` is given."""
    skip_bad: int = Field(default=0, ge=0)
    """Maximum number of unusable rows, which are left out and listed in the manifest's notes; more are an error."""

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name in PIPELINES:
            raise ValueError("this name belongs to another data set")
        return name

    @model_validator(mode="after")
    def _check_limits(self) -> "OwnOptions":
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low < high must hold, but got low={self.low:g}, high={self.high:g}")
        limits = self.make_count_rule()
        if limits.few_below > limits.many_above + 1:
            raise ValueError("a bin must not be many and few: few_below <= many_above + 1")
        return self

    def make_count_rule(self) -> ShotRule:
        """Return the shot rule by counts, with the published limits for what is not given."""
        given = {"many_above": self.many_above, "few_below": self.few_below}
        return ShotRule.model_validate({name: value for name, value in given.items() if value is not None})

    @property
    def splitting(self) -> Splitting:
        """Settings of the splits: without a split column, and unless `split` is set, they are made, grouped if there are groups."""
        if self.split_column is not None or "split" in self.model_fields_set:
            return self
        return self.model_copy(update={"split": "made" if self.group is None else "grouped"})

    @property
    def roles(self) -> dict[str, str | None]:
        """Columns that every set has, by option."""
        return {"label": self.label, "id": self.id, "group": self.group, "split_column": self.split_column}


def describe_columns(roles: Mapping[str, str | Sequence[str] | None], sheet: Sheet) -> list[str]:
    """Return notes on the columns by role, and on those that are not used.

    Args:
        roles: columns by role; roles without a column are left out.
        sheet: the table.
    """
    lists = {role: [names] if isinstance(names, str) else list(names or ()) for role, names in roles.items()}
    used = {name for names in lists.values() for name in names}
    unused = [name for name in sheet.table.column_names if name not in used]
    parts = [f"{role.replace('_', ' ')}: {format_names(names)}" for role, names in lists.items() if names]
    notes = [f"columns: {'; '.join(parts)}"]
    if unused:
        notes.append(f"columns that are not used: {format_names(unused)}")
    return notes


def format_names(names: Sequence[str]) -> str:
    """Return names of columns for a note: the first of many, and the begin of long ones."""
    hidden = len(names) - _SHOWN_COLUMNS
    cut = [
        name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}..." for name in names[:_SHOWN_COLUMNS]
    ]
    return ", ".join(cut) + (f" and {hidden} more" if hidden > 0 else "")


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Columns that every set has, one entry per row of the sheet, which records the faults of their cells."""

    ids: NDArray[Any]
    labels: NDArray[np.float64]
    groups: NDArray[Any] | None
    published: NDArray[Any] | None


@dataclass(frozen=True, kw_only=True)
class Division:
    """Usable rows of a sheet with their splits."""

    options: OwnOptions
    rows: Rows
    positions: NDArray[np.int64]
    """Position of each row in the sheet."""
    assignment: Assignment

    @property
    def train(self) -> NDArray[np.int64]:
        """Positions of the training rows among these rows."""
        return self.assignment.find_rows("train")

    def make_table(self, columns: Mapping[str, Sequence[Any] | pa.Array]) -> pa.Table:
        """Return the rows with `sample_id`, `split`, `label`, `group` if there are groups, and the given columns."""
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


def describe_source(pipeline: str, sheet: Sheet, options: OwnOptions, **chosen: str) -> RawSource:
    """Return the source of a data set, from which new rows of the same form are read.

    Args:
        pipeline: its name.
        sheet: the raw file, as it was read.
        options: settings of the ingest.
        chosen: settings that the ingest has chosen itself.
    """
    plain = options.model_dump(mode="json") | chosen
    return RawSource(pipeline=pipeline, options=plain, columns=tuple(sheet.table.column_names))


def make_request(pipeline: str, recipe: int, source: Source, options: OwnOptions, more: object = None) -> str:
    """Return the identity of an ingest: a hash of the options, the content of the table, and further dependencies."""
    asked = options.model_dump()
    # Added later: sets that were ingested without them keep their identity.
    for name, default in {"label_transform": "none", "label_period": None}.items():
        if asked[name] == default:
            del asked[name]
    # In earlier releases these were in the unit of the transformed label.
    if options.label_transform != "none" and (options.bands is not None or options.profile != "none"):
        asked["bands_and_peaks"] = "in the unit of the label"
    # By content, unlike image files: a table is read as a whole anyway.
    raw = source.compute_hash()
    return hash_json({"pipeline": pipeline, "recipe": recipe, "options": asked, "raw": raw, "more": more})


def read_entries(sheet: Sheet, options: OwnOptions, *, ids: NDArray[Any] | None = None) -> Entries:
    """Read labels, ids, groups and splits of a sheet.

    Args:
        sheet: the table; faults of its cells are added to it.
        options: the columns.
        ids: of the rows if no column holds them; None means `row-` and the number of the row.
    """
    if options.id is not None:
        ids = sheet.read_names(options.id)
    elif ids is None:
        numbers = sheet.row_numbers
        digits = max(7, len(str(numbers.max(initial=0))))
        # Python objects would take twice the memory. (Sorts of numpy's StringDType end the process for millions of rows.)
        ids = np.empty(len(numbers), dtype=f"<U{len('row-') + digits}")
        for start in range(0, len(ids), _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            ids[chunk] = [f"row-{number:07d}" for number in numbers[chunk].tolist()]
    first: dict[str, int] = {}
    # Numbers of rows are unique.
    for row, sample_id in enumerate(ids.tolist() if ids.dtype == object else ()):
        # An empty cell is a fault already.
        if sample_id and first.setdefault(sample_id, row) != row:
            rule = f"the sample id is already in row {sheet.row_numbers[first[sample_id]]}"
            sheet.add_fault(row, options.id or "id", rule, sample_id)
    return Entries(
        ids=ids,
        labels=_read_labels(sheet, options),
        groups=None if options.group is None else sheet.read_names(options.group),
        published=None if options.split_column is None else _read_splits(sheet, options.split_column),
    )


def _read_labels(sheet: Sheet, options: OwnOptions) -> NDArray[np.float64]:
    hint = "; a label is one number per row: ingest one set per number" if sheet.is_list(options.label) else ""
    labels = sheet.read_numbers(options.label, hint=hint)
    low = -np.inf if options.low is None else options.low
    high = np.inf if options.high is None else options.high
    for row in np.flatnonzero((labels < low) | (labels > high)).tolist():
        sheet.add_fault(row, options.label, f"must be within {low:g}..{high:g}", float(labels[row]))
    return labels


def _read_splits(sheet: Sheet, column: str) -> NDArray[Any]:
    names = [text.strip().lower() for text in sheet.read_texts(column).tolist()]
    splits = [_SPELLINGS.get(name, name) for name in names]
    known = ", ".join((*SPLITS, LEFT_OUT))
    for row, split in enumerate(splits):
        if split and split not in (*SPLITS, LEFT_OUT):
            sheet.add_fault(row, column, f"must be one of {known}", names[row])
    return np.array(splits)


def divide(
    options: OwnOptions, entries: Entries, positions: NDArray[np.int64], contents: Sequence[Hashable] | NDArray[Any]
) -> Division:
    """Choose the label bins and split the usable rows.

    Args:
        options: the settings of the ingest.
        entries: the columns of all rows of the sheet.
        positions: of the usable rows in the sheet.
        contents: content of each usable row; rows of equal content are the same sample.

    Raises:
        InputError: the labels are all equal, or the rows cannot be split as the options ask.
    """
    is_whole = len(positions) == len(entries.labels)
    labels = entries.labels if is_whole else entries.labels[positions]
    transform = options.label_transform
    label = choose_label_spec(
        labels,
        transform=choose_label_transform(labels) if transform == "auto" else transform,
        where=options.name,
        name=options.label,
        unit=options.unit,
        low=options.low,
        high=options.high,
        bin_width=options.bin_width,
    )
    label = label.model_copy(update={"period": options.label_period or _find_turn(labels, label)})
    rows = Rows(
        name=options.name,
        label=label,
        ids=entries.ids if is_whole else entries.ids[positions],
        labels=labels,
        groups=None if entries.groups is None else entries.groups[positions],
        published=None if entries.published is None else entries.published[positions],
    )
    # Chosen after unusable rows are out: they would count in the shares.
    splitting = options.splitting
    largest = 0.1 if splitting.split == "grouped" else 0.2
    recipe = choose_recipe(rows, options.held_back or float(np.clip(SMALL_TEST / len(rows.ids), 0.1, largest)))
    assignment = split_rows(rows, splitting, recipe, contents=contents)
    return Division(options=options, rows=rows, positions=positions, assignment=assignment)


def choose_label_spec(
    labels: NDArray[np.float64],
    *,
    where: str,
    name: str,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    bin_width: float | None = None,
    transform: LabelTransform = "none",
) -> LabelSpec:
    """Return the label's bins; ends and width that are not given come from the labels of all rows.

    Val and test must be in range, too, hence all rows. The width is the number among 1, 2 and 5 times a power of ten that is
    nearest to a hundredth of the range, on a logarithmic scale, but not less than the smallest distance of two labels: whole
    years are binned by the year. The ends are multiples of it. If all labels are on bin edges, a label at the upper end has a
    bin of its own, else it is in the last bin. With a transform, all of this is about the transformed labels.

    Args:
        labels: shape `(rows,)`, finite, within `low..high` where these are given.
        where: the data set, for messages.
        name: of the label.
        unit: of the label.
        low: lower end of the bins.
        high: upper end of the bins.
        bin_width: in the unit of the transformed label.
        transform: of the label.

    Raises:
        InputError: all labels are equal, or so large compared with their differences that float32, in which models are
            trained, cannot represent neighboring bins; or the transform is not defined for all of them.
    """
    ends = [each for each in (low, high) if each is not None]
    outside = np.count_nonzero(labels <= get_lower_limit(transform)) + sum(
        each <= get_lower_limit(transform) for each in ends
    )
    if outside:
        other = "; log1p is made for labels that begin at zero" if transform == "log" and labels.min() >= 0 else ""
        rule = f"{transform} needs labels above {get_lower_limit(transform):g}, and {outside:,} are not{other}; the lowest is"
        raise InputError(Fault(where=where, key="label_transform", rule=rule, got=float(min([labels.min(), *ends]))))
    labels = transform_labels(labels, transform)
    low, high = (None if each is None else float(transform_labels(each, transform)) for each in (low, high))
    distinct = np.unique(labels)
    start = float(distinct[0]) if low is None else low
    end = float(distinct[-1]) if high is None else high
    if start >= end:
        rule = "the labels must differ, or low and high must be given; all are"
        raise InputError(Fault(where=where, key=name, rule=rule, got=float(restore_labels(start, transform))))
    # A width below the smallest gap would leave bins empty by construction.
    gap = float(np.diff(distinct).min()) if len(distinct) > 1 else 0.0
    width = bin_width or _round_digits(max(round_to_nice_width((end - start) / BINS), gap))
    smallest = _FLOAT32_STEPS * float(np.finfo(np.float32).eps) * max(abs(start), abs(end))
    if bin_width is not None and (bin_width < smallest or (end - start) / bin_width > MOST_BINS):
        least = max(smallest, (end - start) / MOST_BINS)
        rule = f"must be at least {_round_up(least):g} for labels from {start:g} to {end:g}"
        raise InputError(Fault(where=where, key="bin_width", rule=rule, got=bin_width))
    if width < smallest:
        rule = (
            f"the labels are too large for their differences: numbers of 32 bits cannot represent bins of {width:g}; subtract a "
            "constant"
        )
        raise InputError(Fault(where=where, key=name, rule=rule))
    if width < np.finfo(np.float32).tiny:
        rule = f"the labels are too small: numbers of 32 bits cannot represent bins of {width:g}; multiply the labels by a constant"
        raise InputError(Fault(where=where, key=name, rule=rule))
    # Rounding must not put the outermost label out of range.
    if low is None:
        low = min(start, _round_digits(math.floor(_round_digits(start / width)) * width))
    if high is None:
        high = max(end, _round_digits(math.ceil(_round_digits(end / width)) * width))
    inner = math.ceil(_round_digits((high - low) / width))
    # If all labels are on edges, as whole years are, the largest would share a bin with the one before it.
    positions = (distinct - low) / width
    on_edges = bool(np.allclose(positions, np.round(positions), rtol=0, atol=1e-6))
    has_last_edge = high <= float(distinct[-1]) and on_edges
    # Rounding of the exponential must not put an end out of range either.
    low, high = (float(each) for each in restore_labels([low, high], transform))
    exact = restore_labels(distinct[[0, -1]], transform)
    return LabelSpec(
        name=name,
        unit=unit,
        low=min(low, float(exact[0])),
        high=max(high, float(exact[1])),
        bin_width=width,
        num_bins=inner + has_last_edge,
        transform=transform,
    )


def choose_label_transform(labels: NDArray[np.float64]) -> LabelTransform:
    """Return log for positive labels whose 5th and 95th percentile are a factor of ten apart, and that it makes less skewed.

    Skewness is that of the deciles around the median, which a few labels far away do not change. Labels that begin at zero
    are never chosen for: log1p is nearly linear below one, so that it depends on their unit.
    """
    if labels.min() <= 0 or np.quantile(labels, 0.95) < _MAGNITUDE * np.quantile(labels, 0.05):
        return "none"
    before, after = (_compute_skewness(each) for each in (labels, np.log(labels)))
    return "log" if after < before else "none"


def _compute_skewness(labels: NDArray[np.float64]) -> float:
    low, center, high = np.quantile(labels, [0.1, 0.5, 0.9])
    return abs(float(low + high - 2 * center)) / float(high - low)


def round_to_nice_width(width: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of ten, on a logarithmic scale."""
    power = math.floor(math.log10(width))
    candidates = [float(f"{step}e{power}") for step in (1, 2, 5, 10)]
    return min(candidates, key=lambda each: abs(math.log(each / width)))


def _round_up(value: float) -> float:
    """Return the next number of two significant digits."""
    power = math.floor(math.log10(value)) - 1
    return float(f"{math.ceil(value / 10.0**power)}e{power}")


def _round_digits(value: float) -> float:
    """Return the value without its last digits, in which `0.1 + 0.2` differs from `0.3`."""
    return float(f"{value:.{_DIGITS}g}")


def choose_recipe(rows: Rows, share: float) -> SplitRecipe:
    """Return the recipe for balanced splits whose val and test hold at most a share of the rows each, and nearly as much.

    Val and test get at most a third of a bin's rows each, so that bins with one or two rows give nothing. Rows are drawn from
    the label bins or, where these are too sparse for the share, from their narrowest multiples (2, 5, 10, 20, ...) that are
    not; then `per_bin` is the largest number that does not exceed the share.
    """
    # A third of a bin leaves at least a third of it for training.
    wanted, one_in = share * len(rows.ids), 3
    for multiple in (step * 10**power for power in range(10) for step in (1, 2, 5)):
        width = rows.label.bin_width * multiple
        most = np.bincount(rows.compute_bins(width)) // one_in
        fits = np.count_nonzero(most) <= wanted <= most.sum()
        if fits or width >= compute_binned_range(rows.label):
            break
    # The number of selected rows grows with the size, so that bisection finds the largest one.
    sizes = range(1, int(most.max()) + 1)
    per_bin = bisect_right(sizes, wanted, key=lambda size: int(np.minimum(most, size).sum()))
    return SplitRecipe(per_bin=max(1, per_bin), one_in=one_in, bin_width=width, group_share=share)


def describe_labels(division: Division, sheet: Sheet) -> list[str]:
    """Return notes on the outermost labels, on bins that hold nearly all rows, and on angles that wrap."""
    labels, label = division.rows.labels, division.rows.label
    order = np.argsort(labels, kind="stable")
    number = min(_OUTERMOST, len(order) // 2)
    lowest, highest = (
        ", ".join(f"{labels[row]:g} (row {sheet.row_numbers[division.positions[row]]})" for row in rows)
        for rows in (order[:number], order[::-1][:number])
    )
    notes = [f"labels: lowest {lowest}; highest {highest}"]
    counts = np.bincount(division.rows.bins, minlength=label.num_bins)
    fullest = int(counts.argmax())
    # One label of many rows, such as zero, fills a bin of any width.
    values, repeats = np.unique(labels[division.rows.bins == fullest], return_counts=True)
    is_crowded = counts[fullest] > _NEARLY_ALL * len(labels) and len(values) > len(np.unique(labels)) / 2
    if not is_crowded and (far := find_distant(labels)):
        shown = format_distant(labels, far, sheet.row_numbers[division.positions])
        notes.append(
            f"labels far from all others: {shown}; if they are wrong or stand for missing ones, correct or remove them, or "
            "set low and high"
        )
    if is_crowded:
        notes.append(
            f"one label bin of {label.bin_width:g} {label.unit} holds {counts[fullest]:,} of {len(labels):,} rows with "
            f"{len(values):,} different labels: correct the outermost labels, or set low, high and bin_width"
        )
    elif len(labels) > _TINY and counts[fullest] > _MANY * len(labels):
        spike, share = float(values[repeats.argmax()]), int(repeats.max())
        positive = labels[labels > 0]
        is_plain = label.transform == "none"
        is_wide = is_plain and spike == 0 == labels.min() and choose_label_transform(positive) == "log"
        log1p_hint = "; they span orders of magnitude, for which there is label_transform=log1p" if is_wide else ""
        if share > _MANY * len(labels):
            notes.append(
                f"{share:,} of {len(labels):,} labels are {spike + 0.0:g}: errors on the others are in the rarer regions"
                + log1p_hint
            )
        elif choose_label_transform(labels) == "log" and label.transform == "none":
            notes.append(
                f"{counts[fullest]:,} of {len(labels):,} labels are in one bin of {label.bin_width:g} {label.unit}, of "
                f"{label.num_bins}: the logarithm of such labels is learned and binned better (option label_transform=log)"
            )
    if label.transform != "none":
        low, high = np.quantile(labels, [0.05, 0.95])
        notes.append(
            f"labels from {low:.3g} to {high:.3g} (5th and 95th percentile): bins are of {label.transform}(label), which "
            f"model.label_transform={label.transform} trains"
        )
    if (levels := len(np.unique(labels))) <= _FEW_LEVELS and len(labels) > _TINY:
        notes.append(f"the label has {levels} values: it may be a class, for which regression is no method")
    if (tested := len(division.assignment.find_rows("test"))) < _SMALL_TEST_NOTED:
        notes.append(f"test rows: {tested}; only large differences between methods can be shown")
    return notes + ([] if label.period is None else [_describe_turn(labels, label, label.period)])


def _describe_turn(labels: NDArray[np.float64], label: LabelSpec, turn: float) -> str:
    """Return a note on labels that repeat after a length, with the part of it that they cover."""
    covered = float(np.ptp(labels)) / turn
    if covered < _PART_OF_TURN:
        return (
            f"labels repeat after {turn:.4g} and cover {covered:.1%} of it, from {labels.min():g} to {labels.max():g}: errors, which are "
            "differences of numbers, are those of labels that do not repeat; check label_period"
        )
    if covered > 1:
        return (
            f"labels repeat after {turn:.4g} and extend over {covered:.3g} times that, from {labels.min():g} to {labels.max():g}: numbers "
            "that mean the same are learned as different ones; take the remainder, or check label_period"
        )
    turns = "a full turn" if covered >= _MOST_OF_TURN else f"{covered:.0%} of a turn"
    return (
        f"labels of {turns} ({turn:.4g}): errors are differences of numbers, so that {labels.min():g} and "
        f"{labels.max():g} are {np.ptp(labels):g} {label.unit} apart; sine and cosine, one set for each, do not jump"
    )


def describe_similar_names(column: str, names: NDArray[Any]) -> list[str]:
    """Return notes on names that are different but mean one thing, and on those that stand for missing ones.

    Args:
        column: for the note.
        names: of all rows, such as groups or categories.
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(set(names.tolist())):
        spellings.setdefault(_simplify_name(name), []).append(name)
    notes = []
    if alike := [each for each in spellings.values() if len(each) > 1]:
        shown = "; ".join(" and ".join(map(repr, each)) for each in alike[:_SHOWN_SPELLINGS])
        more = f" and {len(alike) - _SHOWN_SPELLINGS:,} more" if len(alike) > _SHOWN_SPELLINGS else ""
        notes.append(f"{column}: spellings that are taken as different names: {shown}{more}")
    return notes + describe_missing_names(column, names.tolist())


def describe_missing_names(column: str, names: Sequence[str]) -> list[str]:
    """Return a note on names and texts that stand for missing ones."""
    counts = Counter(name for name in names if name.strip().lower() in _MISSING_NAMES)
    if not counts:
        return []
    shown = ", ".join(f"{name!r} in {format_count(counts[name], 'row')}" for name in sorted(counts))
    return [f"{column}: {shown} is taken as a text; if it stands for a missing one, remove it"]


def _simplify_name(name: str) -> str:
    """Return a name without what its spellings differ in: case, separators, and the form of a number."""
    try:
        return repr(float(name))
    except ValueError:
        return re.sub(r"[\s_.-]+", "", name.casefold()) or name


def find_distant(numbers: NDArray[np.float64]) -> list[float]:
    """Return the numbers that are farther from most others than these are from one another, as codes for missing cells are.

    A number that occurs once, which a wide distribution may have by chance, must be four times as far.
    """
    values, counts = np.unique(numbers, return_counts=True)
    low, high, far = 0, len(values), list[float]()
    while high - low > _FEWEST_NEAR:
        gaps = np.diff(values[low:high])
        widest = low + 1 + int(gaps.argmax())
        rows_below, rows_above = int(counts[low:widest].sum()), int(counts[widest:high].sum())
        near = (low, widest) if rows_below >= rows_above else (widest, high)
        outer = (widest, high) if rows_below >= rows_above else (low, widest)
        span = values[near[1] - 1] - values[near[0]]
        factor = 1 if counts[slice(*outer)].max() > 1 else 4
        is_far = outer[1] - outer[0] <= _MOST_DISTANT and gaps.max() > factor * span
        if not is_far or near[1] - near[0] <= _FEWEST_NEAR or 2 * counts[slice(*near)].sum() <= len(numbers):
            break
        far += values[slice(*outer)].tolist()
        low, high = near
    return sorted(far)


def format_distant(numbers: NDArray[np.float64], far: Sequence[float], row_numbers: NDArray[np.int64]) -> str:
    """Return the numbers with their first row, and how many further rows have them."""
    parts = []
    for value in far:
        rows = np.flatnonzero(numbers == value)
        rest = f" and {len(rows) - 1:,} more" if len(rows) > 1 else ""
        parts.append(f"{value:g} (row {row_numbers[rows[0]]}{rest})")
    return ", ".join(parts)


def _find_turn(labels: NDArray[np.float64], label: LabelSpec) -> float | None:
    """Return the length of a turn in the label's unit if the labels look like angles that cover it, else None."""
    low, high = float(labels.min()), float(labels.max())
    for pattern, cycle in _CYCLES.items():
        if re.search(pattern, label.name, re.IGNORECASE) and low >= 0 and 0.9 * (cycle - 1) <= high - low <= cycle:
            return cycle
    unit = _TURNS.get(label.unit.lower())
    for turn in (360.0, 2 * math.pi) if unit is None else (unit,):
        # From end to end, which is no chance at 360; standardized labels reach from -pi to pi.
        ends = ((0.0, turn), (-turn / 2, turn / 2)) if turn == _TURNS["°"] else ()
        covers = any(abs(low - start) < 0.02 * turn and abs(high - end) < 0.02 * turn for start, end in ends)
        is_named = unit is not None or _ANGLE_NAME.search(label.name) is not None
        if covers or (is_named and 0.9 * turn < high - low <= turn):
            return turn
    return None


def write_own(
    storage: Storage,
    division: Division,
    splits: "Mapping[str, Dataset | Iterator[Columns]]",
    inputs: Mapping[str, InputSpec],
    *,
    sheet: Sheet,
    request: str,
    source: RawSource,
    notes: Sequence[str] = (),
    side_files: Mapping[str, bytes] | None = None,
    fit_rules: FitRules | None = None,
) -> Manifest:
    """Write the data set, with a side file on its raw file; see `write_dataset`."""
    options, label, held = division.options, division.rows.label, division.assignment.held_out
    rules, notes = {"counts": options.make_count_rule()}, [*notes]
    if options.group is not None and division.rows.groups is not None:
        notes += describe_similar_names(options.group, division.rows.groups)
    counts = {
        split: np.bincount(division.rows.bins[division.assignment.find_rows(split)], minlength=label.num_bins)
        for split in ("train", "test")
    }
    if fit_rules is not None:
        rules |= fit_rules(counts["train"])
    elif (
        options.many_above is None
        and options.few_below is None
        and (fitted := shot_rule.fit_shot_rule(counts["train"].tolist(), counts["test"].tolist())) is not None
    ):
        rules["thirds"] = fitted
        notes.append("shot regions: a third of the test rows each, by the density of the training labels")
    # The rule that was fitted, if there is one
    default = [*rules][-1]
    if held:
        rules["held_out"] = make_held_out_rule(held, label.num_bins)
    return store.write_dataset(
        storage,
        options.name,
        splits,
        inputs=inputs,
        label=label,
        group=options.group,
        shot_rules=rules,
        default_shot_rule=default,
        source={"raw": sheet.where, "request": request},
        notes=(*division.assignment.notes, *describe_labels(division, sheet), *notes, *sheet.notes),
        side_files={**(side_files or {}), SOURCE_FILE: source.model_dump_json(indent=1).encode()},
    )
