"""Comparison of a results table as one value: studies, metrics, regions and arms, each chosen by name.

A `TableRequest` has everything that a table depends on, except for the store. It is written into every file that a table
is put into, so that the file can be made, and checked, once more.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.metrics import REGIONS
from dirtune.results.analysis.arms import match_arms
from dirtune.results.records.names import check_known
from dirtune.results.records.store import read_once
from dirtune.results.statistics.margin import Margin
from dirtune.results.tables.marks import BOLD, SPREADS
from dirtune.results.tables.published import SPLIT_KINDS, PublishedRow, find_published
from dirtune.results.tables.table import ArmRow, ArmTable, make_arm_tables

ARM = "arm"
"""The row key that every study has; the others are its axes."""
LAYOUTS = ("stacked", "wide")
ABSENT = "-"
"""Text of a cell without a value."""


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """Contents and form of a table.

    Raises:
        InputError: a name is unknown, where that does not need the store, or the margin is unreadable.
    """

    studies: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    """Empty for the metric of each study's claim."""
    regions: tuple[str, ...] = REGIONS
    arms: tuple[str, ...] = ()
    """Names or patterns such as conr*, in the order shown; empty for all."""
    rows: tuple[str, ...] = (ARM,)
    """Row keys: arm, axes by their dotted path, or both."""
    layout: str = "stacked"
    """Several studies stacked as grids, or wide, as groups of columns."""
    split: str = "test"
    selection: str = "best_val"
    reference: str | None = None
    """None means each study's."""
    margin: str | None = None
    """The largest difference that counts as none: 2%, or 0.5 in the metric's unit; None means each study's."""
    mix_data: bool = False
    shots: str | None = None
    """Other limits of many and few: 50/10; None means as recorded."""
    bin_width: float | None = None
    """Of wider label bins, in the label's unit; None means as recorded."""
    cost: bool = False
    """Show the training time of every arm against the reference's."""
    equal: str | None = None
    """time: compare at equal training time; None: whole trainings."""
    spread: str = "sd"
    """The number after ±, a name of `SPREADS`."""
    bold: str = "better"
    """A name of `BOLD`."""
    published: str | None = None
    """The split kind of the published numbers shown: dir or natural."""
    published_as: Mapping[str, str] = field(default_factory=dict)
    """Published method by arm."""

    def __post_init__(self) -> None:
        if not self.studies:
            raise InputError(Fault(where="table", rule="needs a study"))
        if not self.regions or not self.rows:
            raise InputError(Fault(where="table", rule=f"needs a {'row key' if self.regions else 'region'}"))
        for region in self.regions:
            check_known("region", region, REGIONS)
        check_known("layout", self.layout, LAYOUTS)
        check_known("spread", self.spread, tuple(SPREADS))
        check_known("bold", self.bold, tuple(BOLD))
        # Parsed here to fail before any record is read.
        if self.margin is not None:
            Margin.parse(self.margin)
        if self.published_as and self.published is None:
            rule = "has an effect only with published numbers: choose them, dir or natural, by --published"
            raise InputError(Fault(where="table", key="published_as", rule=rule))
        if self.published is not None:
            check_known("published split", self.published, SPLIT_KINDS)
            if self.shots is not None or self.bin_width is not None:
                rule = "belong to the data set's own regions and cannot be combined with other regions"
                raise InputError(Fault(where="published numbers", rule=rule))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Numbers that a request asks for."""

    request: TableRequest
    parts: tuple[ArmTable, ...]
    """One per study and metric, the metrics of a study together."""
    published: tuple[PublishedRow, ...] = ()

    @property
    def blocks(self) -> list[tuple[ArmTable, ...]]:
        """Parts that share a grid: all of them, or those of one study."""
        if self.request.layout == "wide":
            return [self.parts]
        studies = dict.fromkeys(part.study for part in self.parts)
        return [tuple(part for part in self.parts if part.study == study) for study in studies]


@read_once()
def compare(root: str | Path, request: TableRequest) -> Comparison:
    """Read everything that a request asks for; each study is read once.

    Raises:
        InputError: a name is unknown, trials saw different data, or a file is damaged; and as `make_arm_tables`.
    """
    whole = [
        part
        for study in dict.fromkeys(request.studies)
        for part in make_arm_tables(
            root,
            study,
            metrics=request.metrics,
            regions=request.regions,
            split=request.split,
            selection=request.selection,
            reference=request.reference,
            margin=request.margin,
            mix_data=request.mix_data,
            shots=request.shots,
            bin_width=request.bin_width,
            cost=request.cost,
            equal=request.equal,
        )
    ]
    # Names are checked over all studies: an arm that one of them lacks is no error.
    _check_names(request, whole)
    data: dict[str, set[str]] = {}
    for part in whole:
        data.setdefault(part.data, set()).update(part.fingerprints)
    # Different data sets may share a table; two contents under one name are a mistake.
    for name, fingerprints in data.items():
        if name and len(fingerprints) > 1 and not request.mix_data:
            rule = "studies saw different data of one name, and one table must not mix them unasked"
            raise InputError(Fault(where=f"data set {name}", rule=rule, got=sorted(fingerprints)))
    parts = []
    for part in whole:
        # Selected after the tests, because their correction is over all arms, shown or not.
        rows = {row.arm: row for row in part.rows}
        parts.append(replace(part, rows=tuple(rows[name] for name in match_arms(request.arms, part.arms))))
    published: list[PublishedRow] = []
    for part in parts if request.published is not None else []:
        published += find_published(
            [row.arm for row in part.rows],
            dataset=part.data,
            split_kind=str(request.published),
            metric=part.metric,
            names=request.published_as,
        )
    return Comparison(request=request, parts=tuple(parts), published=tuple(published))


def from_table(table: ArmTable) -> Comparison:
    """Wrap a table of one study and metric as a comparison."""
    request = TableRequest(
        studies=(table.study,),
        metrics=(table.metric,),
        regions=table.regions,
        split=table.split,
        selection=table.selection,
        reference=table.reference,
        margin=table.margin_requested,
        shots=table.shots,
        bin_width=table.bin_width,
        cost=table.has_costs,
        equal="time" if table.is_at_equal_time else None,
    )
    return Comparison(request=request, parts=(table,))


def get_row_key(row: ArmRow, keys: Sequence[str]) -> tuple[str, ...]:
    """Return the texts that name a row, one per key; with axes among the keys, an arm's name loses their values."""
    name = row.arm
    for path in keys:
        if path in row.levels:
            level = f"{path.rsplit('.', 1)[-1]}={json.dumps(row.levels[path])}"
            name = " ".join(name.replace(level, "").split())
    if ARM not in keys and not any(key in row.levels for key in keys):
        # Nothing of the arm is recorded yet.
        return (row.arm, *[ABSENT] * (len(keys) - 1))
    return tuple(name if key == ARM else str(row.levels.get(key, ABSENT)) for key in keys)


def _check_names(request: TableRequest, parts: Sequence[ArmTable]) -> None:
    """Raise if arms or row keys of the request are unknown, or if the keys do not identify the arms of a study."""
    known = list(dict.fromkeys(arm for part in parts for arm in part.arms))
    faults = [
        Fault(where="arms", rule="unknown arm", got=pattern, known=known)
        for pattern in [*request.arms, *request.published_as]
        if not match_arms([pattern], known)
    ]
    if faults:
        raise InputError(faults)
    axes = dict.fromkeys(axis for part in parts for row in part.rows for axis in row.levels)
    for key in request.rows:
        check_known("row", key, (ARM, *axes))
    for part in parts:
        keys = [get_row_key(row, request.rows) for row in part.rows]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            rule = f"must identify the arms of study {part.study}, but several are {twice}"
            raise InputError(Fault(where="rows", rule=rule, got=list(request.rows)))
