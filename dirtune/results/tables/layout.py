"""Where the numbers of a comparison stand: grids of texts with their row keys, groups of columns, and marks.

Every form of a table that is read by people shows these grids and nothing else, so that one check serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.tables.celltext import (
    decimals_of,
    difference_text,
    mean_text,
    metric_label,
    published_text,
    verdict_text,
)
from dirtune.results.tables.comparison import ABSENT, Comparison, row_key
from dirtune.results.tables.marks import BOLD, SPREADS
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.table import ArmRow, ArmTable


class Shown(NamedTuple):
    """The text of a cell."""

    text: str = ABSENT
    bold: bool = False


class Column(NamedTuple):
    """A column of numbers; neighbours of one group stand under one heading."""

    group: str
    """Empty: no heading."""
    name: str


class Row(NamedTuple):
    """A line of a grid."""

    keys: tuple[str, ...]
    cells: tuple[Shown, ...]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A table as texts."""

    title: str
    keys: tuple[str, ...]
    """Headings of the row keys."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]

    @property
    def header(self) -> list[str]:
        """One line of headings, the groups in front of their columns."""
        return [*self.keys, *(" ".join(filter(None, column)) for column in self.columns)]

    @property
    def has_groups(self) -> bool:
        return any(column.group for column in self.columns)


def grids_of(table: Comparison) -> list[Grid]:
    """The arms, and, where there is a reference and something to compare, the differences to it and what they say."""
    grids = []
    for parts in table.blocks:
        grids.append(_means(table, parts))
        if any(row.arm != part.reference for part in _compared(parts) for row in part.rows):
            grids += [_differences(table, parts), _verdicts(table, parts)]
    return grids


def origins(table: Comparison) -> list[str]:
    """The sources of the published numbers, in the order of their marks [1], [2], ..."""
    return list(dict.fromkeys(row.origin for row in table.published))


def _means(table: Comparison, parts: Sequence[ArmTable]) -> Grid:
    request, spread = table.request, SPREADS[table.request.spread]
    studies = ", ".join(dict.fromkeys(part.study for part in parts))
    metrics = ", ".join(
        f"{metric_label(metric, unit)} ({'higher' if metric in HIGHER_IS_BETTER else 'lower'} is better)"
        for metric, unit in dict.fromkeys((part.metric, part.unit) for part in parts)
    )
    title = f"{studies}: {metrics}, {request.split} split, {request.selection}, mean ± {spread.label} over seeds"
    alone = len({part.study for part in parts}) == 1
    counts = (Column("", "seeds"), Column("", "configs")) if alone else ()
    shown = [_mean_cells(table, part) for part in parts]
    rows = []
    for keys, arms in _rows_by_key(table, parts).items():
        blank = [Shown()] * len(table.request.regions)
        cells = [
            cell
            for of_part, arm in zip(shown, arms, strict=True)
            for cell in (blank if arm is None else of_part[arm.arm])
        ]
        tail = _counts(arms) if alone else []
        rows.append(Row(keys, (*cells, *tail)))
        rows += _published_rows(table, parts, arms, len(tail))
    return Grid(title=title, keys=_key_headings(table, parts), columns=(*_columns(parts), *counts), rows=tuple(rows))


def _differences(table: Comparison, parts: Sequence[ArmTable]) -> Grid:
    parts = _compared(parts)
    alone = len({part.study for part in parts}) == 1
    rows = []
    for keys, arms in _others_by_key(table, parts).items():
        cells = [
            Shown(difference_text(arm, region, decimals_of(part)))
            for part, arm in zip(parts, arms, strict=True)
            for region in part.regions
        ]
        tail = [Shown(str(_pairs(arms)))] if alone else []
        rows.append(Row(keys, (*cells, *tail)))
    return Grid(
        title=f"difference to {_references(parts)}, paired by seed, mean [95 % interval]",
        keys=_key_headings(table, parts),
        columns=(*_columns(parts), *((Column("", "pairs"),) if alone else ())),
        rows=tuple(rows),
    )


def _verdicts(table: Comparison, parts: Sequence[ArmTable]) -> Grid:
    parts = _compared(parts)
    rows = [
        Row(
            keys,
            tuple(
                Shown(verdict_text(arm, region))
                for part, arm in zip(parts, arms, strict=True)
                for region in part.regions
            ),
        )
        for keys, arms in _others_by_key(table, parts).items()
    ]
    return Grid(
        title=f"verdict against {_references(parts)}, margin: {parts[0].margin}",
        keys=_key_headings(table, parts),
        columns=tuple(_columns(parts)),
        rows=tuple(rows),
    )


def _references(parts: Sequence[ArmTable]) -> str:
    return ", ".join(dict.fromkeys(str(part.reference) for part in parts))


def _others_by_key(table: Comparison, parts: Sequence[ArmTable]) -> dict[tuple[str, ...], list[ArmRow | None]]:
    """The arms of every row, those rows left out that have nothing but the reference."""
    return {
        keys: arms
        for keys, arms in _rows_by_key(table, parts).items()
        if any(arm is not None and arm.arm != part.reference for part, arm in zip(parts, arms, strict=True))
    }


def _compared(parts: Sequence[ArmTable]) -> list[ArmTable]:
    return [part for part in parts if part.reference is not None]


def _key_headings(table: Comparison, parts: Sequence[ArmTable]) -> tuple[str, ...]:
    """Where studies stand below each other, the heading says which one a grid is of."""
    first, *others = table.request.rows
    several = len(table.blocks) > 1
    return (f"{parts[0].study}: {first}" if several else first, *others)


def _columns(parts: Sequence[ArmTable]) -> list[Column]:
    """Studies and metrics are named in the groups where there are several of them."""
    studies, metrics = ({getattr(part, name) for part in parts} for name in ("study", "metric"))
    columns = []
    for part in parts:
        names = [part.study] if len(studies) > 1 else []
        names += [metric_label(part.metric, part.unit)] if len(metrics) > 1 else []
        columns += [Column(" ".join(names), region) for region in part.regions]
    return columns


def _rows_by_key(table: Comparison, parts: Sequence[ArmTable]) -> dict[tuple[str, ...], list[ArmRow | None]]:
    """The arms of every row, one per part, in the order asked or of first appearance."""
    rows: dict[tuple[str, ...], list[ArmRow | None]] = {}
    for position, part in enumerate(parts):
        for row in part.rows:
            found = rows.setdefault(row_key(row, table.request.rows), [None] * len(parts))
            found[position] = row
    return rows


def _mean_cells(table: Comparison, part: ArmTable) -> dict[str, list[Shown]]:
    """The cells of every arm, one per region."""
    cells: dict[str, list[Shown]] = {row.arm: [] for row in part.rows}
    decimals, spread = decimals_of(part), SPREADS[table.request.spread]
    for region in part.regions:
        column = {row.arm: row.cells[region] for row in part.rows}
        bold = BOLD[table.request.bold].choose(column, part.metric)
        for row in part.rows:
            usual = max(cell.n for cell in row.cells.values())
            cells[row.arm].append(Shown(mean_text(row.cells[region], spread, usual, decimals), row.arm in bold))
    return cells


def _counts(arms: Sequence[ArmRow | None]) -> list[Shown]:
    row = next(arm for arm in arms if arm is not None)
    n = max(cell.n for cell in row.cells.values())
    return [Shown(f"{n}/{len(row.tried)}"), Shown(configurations(row))]


def configurations(row: ArmRow) -> str:
    """How many configurations were tried per seed, or in the search beforehand: a number, or the range."""
    if row.searched:
        return str(row.searched)
    counts = sorted({count for count in row.tried.values() if count}) or [0]
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"


def _published_rows(
    table: Comparison, parts: Sequence[ArmTable], arms: Sequence[ArmRow | None], tail: int
) -> Iterator[Row]:
    """What is published of a row's arms, one line per method and source."""
    found: dict[tuple[str, str], dict[int, PublishedRow]] = {}
    for position, (part, arm) in enumerate(zip(parts, arms, strict=True)):
        for row in table.published:
            if arm is not None and (row.arm, row.dataset, row.metric) == (arm.arm, part.data, part.metric):
                found.setdefault((row.method, row.origin), {})[position] = row
    for (method, origin), by_part in found.items():
        label = f"published {method} [{origins(table).index(origin) + 1}]"
        cells = [
            Shown(published_text(by_part.get(position), region, decimals_of(part)))
            for position, part in enumerate(parts)
            for region in part.regions
        ]
        blanks = [ABSENT] * (len(table.request.rows) - 1)
        yield Row((label, *blanks), (*cells, *[Shown()] * tail))


def _pairs(arms: Sequence[ArmRow | None]) -> int:
    cells = [cell for arm in arms if arm is not None for cell in arm.cells.values()]
    return max((cell.difference.n for cell in cells if cell.difference), default=0)
