"""A comparison for programs: CSV with one line per study, metric, arm and region, and JSON with the trials as well.

Everything is at full precision; what is undefined is empty in CSV and null in JSON.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from dirtune.results.tables.comparison import Comparison
from dirtune.results.tables.footer import footer
from dirtune.results.tables.table import ArmRow, ArmTable, Cell


def as_csv(table: Comparison) -> str:
    """Our numbers alone; the published ones, which have neither seeds nor tests, are in the other forms."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for part in table.parts:
        for row in part.rows:
            for region in part.regions:
                values = (value(part, row, region) for value in CSV_COLUMNS.values())
                writer.writerow("" if _is_nothing(value) else value for value in values)
    return text.getvalue().rstrip("\n")


def as_json(table: Comparison) -> str:
    """The request, every cell with its values, trials and test by seed, the published numbers and the footer."""
    plain = {
        "request": asdict(table.request),
        "tables": [_plain_table(part) for part in table.parts],
        "published": [asdict(row) for row in table.published],
        "notes": footer(table),
    }
    return json.dumps(_without_nan(plain), indent=1)


CSV_COLUMNS: dict[str, Callable[[ArmTable, ArmRow, str], object]] = {
    "study": lambda table, row, region: table.study,
    "arm": lambda table, row, region: row.arm,
    "split": lambda table, row, region: table.split,
    "selection": lambda table, row, region: table.selection,
    "metric": lambda table, row, region: table.metric,
    "region": lambda table, row, region: region,
    "mean": lambda table, row, region: row.cells[region].mean,
    "sd": lambda table, row, region: row.cells[region].sd,
    "n": lambda table, row, region: row.cells[region].n,
    "reference": lambda table, row, region: table.reference,
    "difference": lambda table, row, region: _of_difference(row.cells[region], "mean"),
    "difference_sd": lambda table, row, region: _of_difference(row.cells[region], "sd"),
    "low": lambda table, row, region: _of_difference(row.cells[region], "low"),
    "high": lambda table, row, region: _of_difference(row.cells[region], "high"),
    "pairs": lambda table, row, region: _of_difference(row.cells[region], "n"),
    "p": lambda table, row, region: _of_difference(row.cells[region], "p"),
    "p_holm": lambda table, row, region: row.cells[region].p_holm,
    "verdict": lambda table, row, region: _of_verdict(row.cells[region], "decision"),
    "margin": lambda table, row, region: _of_verdict(row.cells[region], "margin"),
    "margin_asked": lambda table, row, region: table.margin.text,
    "p_equivalence": lambda table, row, region: _of_verdict(row.cells[region], "p_equivalence"),
    "further_seeds": lambda table, row, region: _of_verdict(row.cells[region], "further_seeds"),
    "configurations": lambda table, row, region: max([*row.tried.values(), row.searched], default=0),
    "holes": lambda table, row, region: "; ".join(f"{h.seed}: {h.reason}" for h in row.holes),
    "shots": lambda table, row, region: table.shots,
    "bin_width": lambda table, row, region: table.bin_width,
    "data_fingerprint": lambda table, row, region: " ".join(table.fingerprints),
}


def _plain_table(part: ArmTable) -> dict[str, Any]:
    plain = {
        name: getattr(part, name)
        for name in (
            "study",
            "question",
            "metric",
            "unit",
            "split",
            "selection",
            "description",
            "objective",
            "reference",
            "seeds",
            "arms",
            "data",
            "fingerprints",
            "orphans",
        )
    }
    if part.sequential is not None:
        plain["sequential"] = {"rule": part.sequential[0], "arms": dict(part.sequential[1])}
    return {**plain, "margin": asdict(part.margin), "rows": [_plain_row(row) for row in part.rows]}


def _plain_row(row: ArmRow) -> dict[str, Any]:
    return {
        "arm": row.arm,
        "levels": dict(row.levels),
        "tried": dict(row.tried),
        "searched": row.searched,
        "planned": row.planned,
        "unfinished": dict(row.unfinished),
        "holes": [asdict(hole) for hole in row.holes],
        "halved": list(row.halved),
        "cells": {region: _plain_cell(row, cell) for region, cell in row.cells.items()},
    }


def _plain_cell(row: ArmRow, cell: Cell) -> dict[str, Any]:
    by_seed = {
        seed: {"trial_id": row.chosen[seed].trial_id, "epoch": row.chosen[seed].epoch, "value": value}
        for seed, value in cell.values.items()
    }
    difference = None if cell.difference is None else asdict(cell.difference)
    verdict = None if cell.verdict is None else asdict(cell.verdict)
    return {
        "mean": cell.mean,
        "sd": cell.sd,
        "n": cell.n,
        "difference": difference,
        "p_holm": cell.p_holm,
        "verdict": verdict,
        "seeds": by_seed,
    }


def _of_difference(cell: Cell, name: str) -> object:
    return getattr(cell.difference, name, None)


def _of_verdict(cell: Cell, name: str) -> object:
    return getattr(cell.verdict, name, None)


def _is_nothing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _without_nan(value: Any) -> Any:
    """JSON cannot write NaN."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if _is_nothing(value) else value
