"""How a table of arms is shown: in a terminal, as Markdown, as CSV. The numbers are `dirtune.results.tables`'s.

Terminal and Markdown show two grids, the arms and their paired differences to the reference, and a footer without
which the numbers mean little. CSV has one line per arm and region with everything, at full precision.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.markup import escape

from dirtune.errors import Fault, InputError
from dirtune.results import textgrid
from dirtune.results.schema import REGIONS
from dirtune.results.selection import HIGHER_IS_BETTER
from dirtune.results.tables import ArmRow, ArmTable, Cell

NOTHING = "-"
SIGNIFICANT = 0.05
METRIC_LABELS = {  # as papers print them, and the unit given the label's
    "mae": ("MAE", "{}"),
    "balanced_mae": ("balanced MAE", "{}"),
    "rmse": ("RMSE", "{}"),
    "mse": ("MSE", "{}²"),
    "gmean": ("GM", "{}"),
    "r2": ("R²", ""),
    "pearson": ("Pearson r", ""),
    "spearman": ("Spearman rho", ""),
}


class Grid(NamedTuple):
    """A table as text."""

    title: str
    header: list[str]
    rows: list[list[str]]


def render(table: ArmTable, style: str = "table") -> str:
    """The table as text; `style` is one of `STYLES`.

    Raises:
        InputError: unknown style.
    """
    if style not in STYLES:
        raise InputError(
            Fault(where="format", rule="unknown format", got=style, known=list(STYLES))
        )
    return STYLES[style](table)


def as_rich(table: ArmTable) -> RenderableType:
    """For a rich console."""
    grids = [textgrid.as_rich(grid.header, grid.rows, grid.title) for grid in grids_of(table)]
    return Group(*grids, *(escape(line) for line in footer(table)))


def as_text(table: ArmTable) -> str:
    """Plain text, as wide as it needs to be."""
    return textgrid.plain_text(as_rich(table))


def as_markdown(table: ArmTable) -> str:
    """GitHub's tables, and the footer as a list."""
    grids = [
        f"**{grid.title}**\n\n{textgrid.as_markdown(grid.header, grid.rows)}\n"
        for grid in grids_of(table)
    ]
    return "\n".join([*grids, *(f"* {line}" for line in footer(table))])


def as_csv(table: ArmTable) -> str:
    """One line per arm and region, at full precision; nothing where something is undefined."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(name for name, _ in _CSV_COLUMNS)
    for row in table.rows:
        for region in REGIONS:
            values = (value(table, row, region) for _, value in _CSV_COLUMNS)
            writer.writerow("" if _is_nothing(value) else value for value in values)
    return text.getvalue().rstrip("\n")


def grids_of(table: ArmTable) -> list[Grid]:
    """The arms, and, where there is a reference and something to compare, the differences to it."""
    decimals = _decimals(table)
    label = metric_label(table.metric, table.unit)
    better = "higher" if table.metric in HIGHER_IS_BETTER else "lower"
    grids = [
        Grid(
            f"{table.study}: {label} ({better} is better), {table.split} split, {table.selection}, "
            "mean ± sd over seeds",
            ["arm", *REGIONS, "seeds", "configs"],
            [_mean_row(row, decimals) for row in table.rows],
        )
    ]
    compared = [row for row in table.rows if row.cells["all"].difference]
    if compared:
        title = f"difference to {table.reference}, paired by seed, mean [95 % interval]"
        rows = [_difference_row(row, decimals) for row in compared]
        grids.append(Grid(title, ["arm", *REGIONS, "pairs"], rows))
    return grids


def metric_label(metric: str, unit: str) -> str:
    """A metric with its unit, for headings and axes."""
    name, template = METRIC_LABELS.get(metric, (metric, ""))
    return f"{name} [{template.format(unit)}]" if unit and template else name


def footer(table: ArmTable) -> list[str]:
    """What a reader must know to believe the numbers, one sentence per line."""
    seeds = ", ".join(map(str, table.seeds)) or "none"
    lines = [
        f"Split: {table.split}. Selection {table.selection}: {table.description} "
        f"(objective: {table.objective}).",
        f"Seeds ({len(table.seeds)}): {seeds}. ± is the standard deviation over seeds.",
        f"Configurations tried per seed: {'; '.join(map(_tried, table.rows))}.",
        f"Holes: {'; '.join(_holes(table)) or 'none'}.",
        f"Data: {' '.join([table.data, *table.fingerprints]).strip() or 'unknown'}.",
    ]
    tests = sum(row.cells["all"].difference is not None for row in table.rows)
    if tests:
        lines.insert(
            2,
            f"Intervals: Student's t. * p < {SIGNIFICANT}, paired t test, "
            f"Holm-corrected over the arms of a column (at most {tests}).",
        )
    if table.orphans:
        lines.append(f"Left out: {table.orphans} recorded trials that the study no longer plans.")
    return lines


STYLES: dict[str, Callable[[ArmTable], str]] = {
    "table": as_text,
    "markdown": as_markdown,
    "csv": as_csv,
}

_CSV_COLUMNS: tuple[tuple[str, Callable[[ArmTable, ArmRow, str], object]], ...] = (
    ("study", lambda table, row, region: table.study),
    ("arm", lambda table, row, region: row.arm),
    ("split", lambda table, row, region: table.split),
    ("selection", lambda table, row, region: table.selection),
    ("metric", lambda table, row, region: table.metric),
    ("region", lambda table, row, region: region),
    ("mean", lambda table, row, region: row.cells[region].mean),
    ("sd", lambda table, row, region: row.cells[region].sd),
    ("n", lambda table, row, region: row.cells[region].n),
    ("reference", lambda table, row, region: table.reference),
    ("difference", lambda table, row, region: _of_difference(row.cells[region], "mean")),
    ("difference_sd", lambda table, row, region: _of_difference(row.cells[region], "sd")),
    ("low", lambda table, row, region: _of_difference(row.cells[region], "low")),
    ("high", lambda table, row, region: _of_difference(row.cells[region], "high")),
    ("pairs", lambda table, row, region: _of_difference(row.cells[region], "n")),
    ("p", lambda table, row, region: _of_difference(row.cells[region], "p")),
    ("p_holm", lambda table, row, region: row.cells[region].p_holm),
    ("configurations", lambda table, row, region: max(row.tried.values(), default=0)),
    ("holes", lambda table, row, region: "; ".join(f"{h.seed}: {h.reason}" for h in row.holes)),
    ("data_fingerprint", lambda table, row, region: " ".join(table.fingerprints)),
)


def _of_difference(cell: Cell, name: str) -> object:
    return getattr(cell.difference, name, None)


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _decimals(table: ArmTable) -> int:
    """Enough for three digits of the smallest mean, as the papers print."""
    means = [abs(cell.mean) for row in table.rows for cell in row.cells.values()]
    smallest = min((value for value in means if value > 0), default=1.0)
    return 2 if smallest >= 1 else 3


def _mean_row(row: ArmRow, decimals: int) -> list[str]:
    cells = [_mean(row.cells[region], row.cells["all"].n, decimals) for region in REGIONS]
    return [row.arm, *cells, f"{row.cells['all'].n}/{len(row.tried)}", _configurations(row)]


def _mean(cell: Cell, usual: int, decimals: int) -> str:
    if not cell.n:
        return NOTHING
    spread = "" if math.isnan(cell.sd) else f" ± {cell.sd:.{decimals}f}"
    return f"{cell.mean:.{decimals}f}{spread}" + ("" if cell.n == usual else f" (n={cell.n})")


def _difference_row(row: ArmRow, decimals: int) -> list[str]:
    cells = [_difference(row.cells[region], decimals) for region in REGIONS]
    difference = row.cells["all"].difference
    return [row.arm, *cells, str(difference.n if difference else 0)]


def _difference(cell: Cell, decimals: int) -> str:
    found = cell.difference
    if found is None or not found.n:
        return NOTHING
    if math.isnan(found.low):
        return f"{found.mean:+.{decimals}f}"
    mark = "*" if cell.p_holm < SIGNIFICANT else ""
    return (
        f"{found.mean:+.{decimals}f} [{found.low:+.{decimals}f}, {found.high:+.{decimals}f}]{mark}"
    )


def _configurations(row: ArmRow) -> str:
    counts = sorted({count for count in row.tried.values() if count}) or [0]
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}..{counts[-1]}"


def _tried(row: ArmRow) -> str:
    unfinished = ", ".join(f"{n} {status}" for status, n in sorted(row.unfinished.items()))
    recorded = sum(row.tried.values())
    if row.planned is not None and recorded < row.planned:
        unfinished = ", ".join(filter(None, [unfinished, f"{row.planned - recorded} not recorded"]))
    return f"{row.arm} {_configurations(row)}" + (f" ({unfinished})" if unfinished else "")


def _holes(table: ArmTable) -> Iterator[str]:
    for row in table.rows:
        seeds: dict[str, list[str]] = {}
        for hole in row.holes:
            seeds.setdefault(hole.reason, []).append(str(hole.seed))
        for reason, missing in seeds.items():
            yield f"{row.arm} seed{'s' * (len(missing) > 1)} {', '.join(missing)}: {reason}"
