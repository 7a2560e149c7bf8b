"""Grids of texts that a comparison is rendered as: row keys, groups of columns, cells and bold.

Every format of a table that is read by people renders these grids and nothing else, so that one check serves all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dirtune.metrics import HIGHER_IS_BETTER, UNDIRECTED_METRICS
from dirtune.results.tables.comparison import ABSENT, Comparison, get_row_key
from dirtune.results.tables.marks import BOLD, SPREADS
from dirtune.results.tables.published import PublishedRow
from dirtune.results.tables.render import cells as celltext
from dirtune.results.tables.table import ArmRow, ArmTable

SEEDS, CONFIGS = "seeds", "configs"
"""Headings of counts that are shown where the arms differ in them."""
COST = "cost"
"""Heading of training times, as multiples of the reference's."""
DEFAULT_SELECTION = "best_val"
"""Not named in a title, but in the footer."""
WORD = "word"
"""Heading of the claim's words."""
CHOSEN_AFTER = ", chosen after the study"
"""Mark behind it if the column, the margin or the reference is not the study's."""


class Shown(NamedTuple):
    """Text of a cell."""

    text: str = ABSENT
    bold: bool = False


class Column(NamedTuple):
    """A column of numbers; neighbors of one group share a heading."""

    group: str
    """Empty if it has no heading."""
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


def make_grids(table: Comparison, *, is_whole: bool = False, extra: int = 0) -> list[Grid]:
    """Return the grid of the means and, with a reference and other arms, those of changes.

    The changes of the claims' columns, with their words, have a grid of their own, so that a terminal of 80 columns has room for
    it; those of the other columns, which are for orientation, are the next grid.

    Args:
        table: the comparison.
        is_whole: return one grid of all changes, and all columns of counts: what a written table may have.
        extra: further digits of all numbers, for comparisons with written ones.
    """
    grids = []
    for parts in table.blocks:
        grids.append(_make_means(table, parts, is_whole=is_whole, extra=extra))
        compared = [part for part in parts if part.reference is not None]
        if any(row.arm != part.reference for part in compared for row in part.rows):
            columns = [[(part, region) for region in part.regions] for part in compared]
            if is_whole:
                grids.append(
                    _make_changes(table, compared, [part.regions for part in compared], is_whole=True, extra=extra)
                )
            for is_claim in () if is_whole else (True, False):
                shown = [[each for each in own if has_words(*each) == is_claim] for own in columns]
                if any(shown):
                    grids.append(
                        _make_changes(table, compared, [[region for _, region in own] for own in shown], extra=extra)
                    )
    return grids


def list_origins(table: Comparison) -> list[str]:
    """Return the sources of the published numbers, in the order of their marks [1], [2], ..."""
    return list(dict.fromkeys(row.origin for row in table.published))


def format_configurations(row: ArmRow) -> str:
    """Return the number of configurations tried per seed, or in the search beforehand: a number, or the range."""
    if row.searched:
        return str(row.searched)
    counts = sorted({count for count in row.tried.values() if count}) or [0]
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"


def _format_direction(metric: str) -> str:
    if metric in UNDIRECTED_METRICS:
        return ""
    return f" ({'higher' if metric in HIGHER_IS_BETTER else 'lower'} is better)"


def _make_means(table: Comparison, parts: Sequence[ArmTable], *, is_whole: bool, extra: int) -> Grid:
    """Return the means of all arms, each followed by the published numbers of its methods."""
    request, spread = table.request, SPREADS[table.request.spread]
    studies = list(dict.fromkeys(part.study for part in parts))
    metrics = ", ".join(
        f"{celltext.format_metric(metric, unit)}{_format_direction(metric)}"
        for metric, unit in dict.fromkeys((part.metric, part.unit) for part in parts)
    )
    counts: Sequence[str] = ()
    if len(studies) == 1:
        counts = [*((SEEDS, CONFIGS) if is_whole else _list_counts(parts)), *([COST] if request.cost else [])]
    shown = [_format_means(table, part, extra) for part in parts]
    rows = []
    for keys, arms in _group_rows(table, parts).items():
        blank = [Shown()] * len(request.regions)
        cells = [
            cell
            for by_arm, arm in zip(shown, arms, strict=True)
            for cell in (blank if arm is None else by_arm[arm.arm])
        ]
        # Seeds and configurations are the same for all metrics of a study, and undefined across studies.
        if counts:
            row = next(arm for arm in arms if arm is not None)
            texts = {SEEDS: f"{_count_seeds(row)}/{len(row.tried)}", CONFIGS: format_configurations(row)}
            texts[COST] = ABSENT if row.cost is None else f"x{row.cost:.2f}"
            cells += [Shown(texts[count]) for count in counts]
        rows.append(Row(keys, tuple(cells)))
        rows += _make_published_rows(table, parts, arms, len(counts))
    rows += _make_floor_rows(table, parts, len(counts), extra)
    selection = "" if request.selection == DEFAULT_SELECTION else f" {request.selection},"
    return Grid(
        title=f"{', '.join(studies)}: {metrics}, {request.split} split,{selection} mean ± {spread.label} over seeds",
        keys=_make_key_headings(table, parts),
        columns=(
            *(column for columns in _group_columns(parts) for column in columns),
            *(Column("", count) for count in counts),
        ),
        rows=tuple(rows),
    )


def _list_counts(parts: Sequence[ArmTable]) -> list[str]:
    """Return the columns of counts that tell arms apart; the footer has the counts that all arms share."""
    rows = parts[0].rows
    counts = []
    if any(_count_seeds(row) != len(row.tried) for row in rows) or len({len(row.tried) for row in rows}) > 1:
        counts.append(SEEDS)
    if len({format_configurations(row) for row in rows}) > 1:
        counts.append(CONFIGS)
    return counts


def _count_seeds(row: ArmRow) -> int:
    return max(cell.n for cell in row.cells.values())


def _make_changes(
    table: Comparison,
    parts: Sequence[ArmTable],
    regions: Sequence[Sequence[str]],
    *,
    is_whole: bool = False,
    extra: int,
) -> Grid:
    """Return changes against the reference, with a column of words behind that of a claim.

    Args:
        table: the whole comparison.
        parts: of one grid, with a reference.
        regions: columns of every part.
        is_whole: have the number of pairs also where it is the same for all arms.
    """
    references = ", ".join(dict.fromkeys(str(part.reference) for part in parts))
    pairs = {cell.difference.n for part in parts for row in part.rows for cell in row.cells.values() if cell.difference}
    # Where all arms have the same number, the footer has it.
    has_pairs = len({part.study for part in parts}) == 1 and (is_whole or len(pairs) > 1)
    rows = []
    for keys, arms in _group_rows(table, parts).items():
        # A row that has nothing but the reference is left out.
        if all(arm is None or arm.arm == part.reference for part, arm in zip(parts, arms, strict=True)):
            continue
        cells = []
        for part, arm, own in zip(parts, arms, regions, strict=True):
            for region in own:
                cells.append(Shown(celltext.format_change(arm, region, part, extra=extra)))
                if has_words(part, region):
                    cells.append(Shown(celltext.format_word(arm, region)))
        if has_pairs:
            known = [cell.difference.n for arm in arms if arm for cell in arm.cells.values() if cell.difference]
            cells.append(Shown(str(max(known, default=0))))
        rows.append(Row(keys, tuple(cells)))
    units = " or ".join(
        dict.fromkeys("in %" if celltext.is_relative(part) else "in the metric's unit" for part in parts)
    )
    is_about_new_samples = not any(part.no_predictions for part in parts)
    unit = parts[0].repetition or "seeds"
    about = f"new {unit} and new test samples" if is_about_new_samples else f"new {unit} on these test samples"
    columns = [
        column
        for part, groups, own in zip(parts, _group_columns(parts), regions, strict=True)
        for region, shown in zip(part.regions, groups, strict=True)
        if region in own
        for column in (
            # With the number of test samples, where it is known
            Column(shown.group, f"{shown.name} ({part.samples[region]})") if region in part.samples else shown,
            *([Column(shown.group, format_word_heading(part))] if has_words(part, region) else []),
        )
    ]
    is_claim = any(has_words(part, region) for part, own in zip(parts, regions, strict=True) for region in own)
    return Grid(
        title=f"change against {references} {units} [95 % interval for {about}]"
        if is_claim
        else f"change against {references} {units}, other columns [95 % intervals, for orientation]",
        keys=_make_key_headings(table, parts),
        columns=(*columns, *((Column("", "pairs"),) if has_pairs else ())),
        rows=tuple(rows),
    )


def has_words(part: ArmTable, region: str) -> bool:
    """Return True if a column is the claim's."""
    return (part.metric, region) == (part.claim.metric, part.claim.region)


def format_word_heading(part: ArmTable) -> str:
    """Return the heading of the words, marked if they are not those of the study's claim."""
    return f"{WORD}{CHOSEN_AFTER if part.claim.chosen_after else ''}"


def _make_key_headings(table: Comparison, parts: Sequence[ArmTable]) -> tuple[str, ...]:
    """Return the headings of the row keys; the first names the study where studies are stacked."""
    first, *others = table.request.rows
    several = len(table.blocks) > 1
    return (f"{parts[0].study}: {first}" if several else first, *others)


def _group_columns(parts: Sequence[ArmTable]) -> list[list[Column]]:
    """Return the columns of every part; studies and metrics are named in the groups where there are several of them."""
    studies, metrics = ({getattr(part, name) for part in parts} for name in ("study", "metric"))
    columns = []
    for part in parts:
        names = [part.study] if len(studies) > 1 else []
        names += [celltext.format_metric(part.metric, part.unit)] if len(metrics) > 1 else []
        columns.append([Column(" ".join(names), region) for region in part.regions])
    return columns


def _group_rows(table: Comparison, parts: Sequence[ArmTable]) -> dict[tuple[str, ...], list[ArmRow | None]]:
    """Return the arms of every row, one per part, in the order asked or of first appearance."""
    rows: dict[tuple[str, ...], list[ArmRow | None]] = {}
    for position, part in enumerate(parts):
        for row in part.rows:
            found = rows.setdefault(get_row_key(row, table.request.rows), [None] * len(parts))
            found[position] = row
    return rows


def _format_means(table: Comparison, part: ArmTable, extra: int) -> dict[str, list[Shown]]:
    """Return the cells of every arm, one per region."""
    cells: dict[str, list[Shown]] = {row.arm: [] for row in part.rows}
    spread = SPREADS[table.request.spread]
    for region in part.regions:
        column, decimals = {row.arm: row.cells[region] for row in part.rows}, _count_decimals(table, part, region)
        # Over the rows that are shown: a mark for the best must be on a row that the reader has.
        bold = BOLD[table.request.bold].choose(column, part.metric)
        for row in part.rows:
            # The number of seeds is written only where it differs from that of the row.
            usual = max(cell.n for cell in row.cells.values())
            text = celltext.format_mean(row.cells[region], spread, usual, decimals, extra=extra)
            cells[row.arm].append(Shown(text, row.arm in bold))
    return cells


def _count_decimals(table: Comparison, part: ArmTable, region: str) -> int:
    return celltext.count_decimals(part, region, SPREADS[table.request.spread])


def _make_floor_rows(table: Comparison, parts: Sequence[ArmTable], counts: int, extra: int) -> list[Row]:
    """Return a line for every floor; `counts` is the number of columns behind the regions."""
    rows = []
    for label in dict.fromkeys(floor.label for part in parts for floor in part.floors):
        cells = []
        for part in parts:
            values = next((floor.values for floor in part.floors if floor.label == label), {})
            cells += [
                Shown(
                    celltext.format_floor(
                        values.get(region, math.nan), _count_decimals(table, part, region), extra=extra
                    )
                )
                for region in part.regions
            ]
        blanks = [ABSENT] * (len(table.request.rows) - 1)
        rows.append(Row((label, *blanks), (*cells, *[Shown()] * counts)))
    return rows


def _make_published_rows(
    table: Comparison, parts: Sequence[ArmTable], arms: Sequence[ArmRow | None], counts: int
) -> list[Row]:
    """Return the published numbers of a row's arms, one line per method and source.

    Args:
        table: the whole comparison.
        parts: of one grid.
        arms: of one row, one per part.
        counts: number of columns behind the regions.
    """
    # By source, too: two papers that report one method may have used different recipes.
    found: dict[tuple[str, str], dict[int, PublishedRow]] = {}
    for position, (part, arm) in enumerate(zip(parts, arms, strict=True)):
        for row in table.published:
            if arm is not None and (row.arm, row.dataset, row.metric) == (arm.arm, part.data, part.metric):
                found.setdefault((row.method, row.origin), {})[position] = row
    rows = []
    for (method, origin), by_part in found.items():
        cells = [
            Shown(celltext.format_published(by_part.get(position), region, _count_decimals(table, part, region)))
            for position, part in enumerate(parts)
            for region in part.regions
        ]
        label = f"published {method} [{list_origins(table).index(origin) + 1}]"
        blanks = [ABSENT] * (len(table.request.rows) - 1)
        rows.append(Row((label, *blanks), (*cells, *[Shown()] * counts)))
    return rows
