"""Provenance of a table's numbers: the trials behind every cell, and their epochs.

A published number has no trials and is not in the list.
"""

from dataclasses import asdict, dataclass

from dirtune.errors import Fault, InputError
from dirtune.io.jsonfile import format_json
from dirtune.results.tables.comparison import ABSENT, Comparison
from dirtune.results.tables.render.grids import CHOSEN_AFTER
from dirtune.results.textgrid import as_markdown

FORMATS = ("markdown", "json")


@dataclass(frozen=True, kw_only=True)
class CellProvenance:
    """Origin of one cell; the tuples have one entry per seed."""

    study: str
    metric: str
    arm: str
    region: str
    mean: float
    word: str | None
    """Against the reference, in the column of the claim."""
    seeds: tuple[int, ...]
    trial_ids: tuple[str, ...]
    epochs: tuple[str, ...]
    """Best_val or last."""
    values: tuple[float, ...]


def list_provenance(table: Comparison) -> list[CellProvenance]:
    """Return every cell that has a number, in the order of the table."""
    return [
        CellProvenance(
            study=part.study,
            metric=part.metric,
            arm=row.arm,
            region=region,
            mean=cell.mean,
            word=None if cell.verdict is None else f"{cell.verdict}{CHOSEN_AFTER if part.claim.chosen_after else ''}",
            seeds=tuple(cell.values),
            trial_ids=tuple(row.chosen[seed].trial_id for seed in cell.values),
            epochs=tuple(row.chosen[seed].epoch for seed in cell.values),
            values=tuple(cell.values.values()),
        )
        for part in table.parts
        for row in part.rows
        for region, cell in row.cells.items()
        if cell.n
    ]


def format_provenance(table: Comparison, style: str = "markdown") -> str:
    """Return the trials behind every cell as a Markdown table, or as a JSON list.

    Raises:
        InputError: unknown format.
    """
    if style not in FORMATS:
        raise InputError(Fault(where="trace", rule="unknown format", got=style, known=FORMATS))
    cells = list_provenance(table)
    if style == "json":
        return format_json([asdict(cell) for cell in cells])
    header = ["study", "metric", "arm", "region", "mean", "word", "trials (seed: trial at epoch = value)"]
    lines = []
    for cell in cells:
        seeds = zip(cell.seeds, cell.trial_ids, cell.epochs, cell.values, strict=True)
        trials = ", ".join(f"{seed}: {trial} at {epoch} = {value:.6g}" for seed, trial, epoch, value in seeds)
        lines.append([cell.study, cell.metric, cell.arm, cell.region, f"{cell.mean:.6g}", cell.word or ABSENT, trials])
    return as_markdown(header, lines)
