"""Which trials stand behind every number of a table, and at which of their epochs.

A published number cannot be traced and is not in the list.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from dirtune.errors import Fault, InputError
from dirtune.results.tables.comparison import ABSENT, Comparison
from dirtune.results.textgrid import as_markdown

FORMATS = ("markdown", "json")


@dataclass(frozen=True, kw_only=True)
class Traced:
    """One cell; the tuples have one entry per seed."""

    study: str
    metric: str
    arm: str
    region: str
    mean: float
    verdict: str | None
    """Against the reference."""
    seeds: tuple[int, ...]
    trial_ids: tuple[str, ...]
    epochs: tuple[str, ...]
    """Best_val or last."""
    values: tuple[float, ...]


def trace(table: Comparison) -> list[Traced]:
    """Every cell that has a number, in the order of the table."""
    return [
        Traced(
            study=part.study,
            metric=part.metric,
            arm=row.arm,
            region=region,
            mean=cell.mean,
            verdict=None if cell.verdict is None else cell.verdict.decision,
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


def trace_text(table: Comparison, style: str = "markdown") -> str:
    """The trace as a Markdown table, or as a JSON list.

    Raises:
        InputError: unknown format.
    """
    if style not in FORMATS:
        raise InputError(Fault(where="trace", rule="unknown format", got=style, known=FORMATS))
    traced = trace(table)
    if style == "json":
        return json.dumps([asdict(cell) for cell in traced], indent=1)
    header = ["study", "metric", "arm", "region", "mean", "verdict", "trials (seed: trial at epoch = value)"]
    return as_markdown(header, [_line(cell) for cell in traced])


def _line(cell: Traced) -> list[str]:
    seeds = zip(cell.seeds, cell.trial_ids, cell.epochs, cell.values, strict=True)
    trials = ", ".join(f"{seed}: {trial} at {epoch} = {value:.6g}" for seed, trial, epoch, value in seeds)
    verdict = cell.verdict or ABSENT
    return [cell.study, cell.metric, cell.arm, cell.region, f"{cell.mean:.6g}", verdict, trials]
