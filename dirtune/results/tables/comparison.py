"""What a results table of a paper compares, as one value: studies, metrics, regions and arms, each chosen by name.

A `TableRequest` says everything that a table depends on besides the store. It is written into every file that a table
is put into, so that the file can be made, and checked, once more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.analysis.arms import arms_named
from dirtune.results.records.schema import REGIONS
from dirtune.results.tables.judging import DEFAULT_MARGIN, Margin
from dirtune.results.tables.marks import BOLD, SPREADS
from dirtune.results.tables.published import SPLIT_KINDS, PublishedRow, published_rows
from dirtune.results.tables.table import ArmRow, ArmTable, arm_tables, check_known

# The row key that every study has; the others are its axes
ARM = "arm"
LAYOUTS = ("below", "beside")
ABSENT = "-"


@dataclass(frozen=True, kw_only=True)
class TableRequest:
    """What a table shows and how.

    Raises:
        InputError: a name is unknown, as far as that can be said without the store, or the margin is unreadable.
    """

    studies: tuple[str, ...]
    metrics: tuple[str, ...] = ()
    """None: the metric of each study's objective."""
    regions: tuple[str, ...] = REGIONS
    arms: tuple[str, ...] = ()
    """Names or patterns such as conr*, in the order shown; none: all."""
    rows: tuple[str, ...] = (ARM,)
    """What names a row: arm, axes by their dotted path, or both."""
    layout: str = "below"
    """Of several studies: below or beside each other."""
    split: str = "test"
    selection: str = "best_val"
    reference: str | None = None
    """None: each study's."""
    margin: str = DEFAULT_MARGIN
    """What counts as no difference: 2%, or 0.5 in the metric's unit."""
    mix_data: bool = False
    shots: str | None = None
    """Other limits of many and few: 50/10; none: as recorded."""
    bin_width: float | None = None
    """Of wider label bins, in the label's unit; none: as recorded."""
    spread: str = "sd"
    """What ± is: of SPREADS."""
    bold: str = "better"
    """Of BOLD."""
    published: str | None = None
    """The split kind of the published numbers shown: dir or natural."""
    published_as: Mapping[str, str] = field(default_factory=dict)
    """Published method by arm."""

    def __post_init__(self) -> None:
        if not self.studies:
            raise InputError(Fault(where="table", rule="needs a study"))
        for region in self.regions:
            check_known("region", region, REGIONS)
        check_known("layout", self.layout, LAYOUTS)
        check_known("spread", self.spread, tuple(SPREADS))
        check_known("bold", self.bold, tuple(BOLD))
        Margin.read(self.margin)
        if self.published is not None:
            check_known("published split", self.published, SPLIT_KINDS)
            if self.shots is not None or self.bin_width is not None:
                rule = "are of the data set's own regions and stand beside no others"
                raise InputError(Fault(where="published numbers", rule=rule))


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The numbers that a request asks for."""

    request: TableRequest
    parts: tuple[ArmTable, ...]
    """One per study and metric, the metrics of a study together."""
    published: tuple[PublishedRow, ...] = ()

    @property
    def blocks(self) -> list[tuple[ArmTable, ...]]:
        """The parts that share a grid: all of them, or those of one study."""
        if self.request.layout == "beside":
            return [self.parts]
        studies = dict.fromkeys(part.study for part in self.parts)
        return [tuple(part for part in self.parts if part.study == study) for study in studies]


def compare(root: str | Path, request: TableRequest) -> Comparison:
    """Read everything that a request asks for; each study is read once.

    Raises:
        InputError: a name is unknown, trials saw different data, or a file is damaged.
    """
    whole = [
        part
        for study in dict.fromkeys(request.studies)
        for part in arm_tables(
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
        )
    ]
    _check_arms(request, whole)
    _check_row_keys(request, whole)
    if not request.mix_data:
        _check_data(whole)
    parts = tuple(_with_arms(part, request.arms) for part in whole)
    return Comparison(request=request, parts=parts, published=tuple(_published(request, parts)))


def of_one_study(table: ArmTable) -> Comparison:
    """A table of one study and metric as the smallest comparison there is."""
    request = TableRequest(
        studies=(table.study,),
        metrics=(table.metric,),
        regions=table.regions,
        split=table.split,
        selection=table.selection,
        reference=table.reference,
        margin=table.margin.text,
        shots=table.shots,
        bin_width=table.bin_width,
    )
    return Comparison(request=request, parts=(table,))


def row_key(row: ArmRow, keys: Sequence[str]) -> tuple[str, ...]:
    """The texts that name a row, one per key; beside its axes an arm goes by its name without their values."""
    name = row.arm
    for path in keys:
        if path in row.levels:
            level = f"{path.rsplit('.', 1)[-1]}={json.dumps(row.levels[path])}"
            name = " ".join(name.replace(level, "").split())
    if ARM not in keys and not any(key in row.levels for key in keys):
        # Nothing is recorded of it yet
        return (row.arm, *[ABSENT] * (len(keys) - 1))
    return tuple(name if key == ARM else str(row.levels.get(key, ABSENT)) for key in keys)


def _check_arms(request: TableRequest, parts: Sequence[ArmTable]) -> None:
    known = list(dict.fromkeys(arm for part in parts for arm in part.arms))
    faults = [
        Fault(where="arms", rule="unknown arm", got=pattern, known=known)
        for pattern in [*request.arms, *request.published_as]
        if not arms_named([pattern], known)
    ]
    if faults:
        raise InputError(faults)


def _check_row_keys(request: TableRequest, parts: Sequence[ArmTable]) -> None:
    axes = dict.fromkeys(axis for part in parts for row in part.rows for axis in row.levels)
    for key in request.rows:
        check_known("row", key, (ARM, *axes))
    for part in parts:
        keys = [row_key(row, request.rows) for row in part.rows]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            rule = f"must tell the arms of study {part.study} apart, but several are {twice}"
            raise InputError(Fault(where="rows", rule=rule, got=list(request.rows)))


def _check_data(parts: Sequence[ArmTable]) -> None:
    """Refuse two studies on data sets of one name that are not the same."""
    seen: dict[str, set[str]] = {}
    for part in parts:
        seen.setdefault(part.data, set()).update(part.fingerprints)
    for data, fingerprints in seen.items():
        if data and len(fingerprints) > 1:
            rule = "studies saw different data of one name, and one table must not mix them unasked"
            raise InputError(Fault(where=f"data set {data}", rule=rule, got=sorted(fingerprints)))


def _with_arms(part: ArmTable, patterns: Sequence[str]) -> ArmTable:
    rows = {row.arm: row for row in part.rows}
    names = arms_named(patterns, part.arms)
    return replace(part, rows=tuple(rows[name] for name in names))


def _published(request: TableRequest, parts: Sequence[ArmTable]) -> Iterator[PublishedRow]:
    if request.published is None:
        return
    for part in parts:
        arms = [row.arm for row in part.rows]
        yield from published_rows(
            arms, dataset=part.data, split_kind=request.published, metric=part.metric, names=request.published_as
        )
