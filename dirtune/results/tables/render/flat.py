"""CSV and JSON of a comparison: CSV with one line per study, metric, arm and region, JSON with the trials as well.

Everything is at full precision; undefined values are empty in CSV and null in JSON, where infinite ones are texts. In
CSV, an apostrophe precedes texts that spreadsheets would run as formulas.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from dirtune.io.jsonfile import format_json
from dirtune.results.spreadsheets import defuse
from dirtune.results.statistics.joint import JointDifference
from dirtune.results.tables.comparison import Comparison
from dirtune.results.tables.render.footer import make_footer
from dirtune.results.tables.table import ArmRow, ArmTable, Cell


def as_csv(table: Comparison) -> str:
    """Return our numbers alone; the published ones, which have neither seeds nor tests, are in the other formats."""
    text = io.StringIO()
    # As in all other formats; the default of the csv module is CR LF.
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for line in make_lines(table):
        writer.writerow("" if _is_undefined(value) else defuse(value) for value in line.values())
    return text.getvalue().rstrip("\n")


def make_lines(table: Comparison) -> Iterator[dict[str, Any]]:
    """Yield the lines of the CSV format: one per study, metric, arm or floor, and region."""
    for part in table.parts:
        for row in part.rows:
            for region in part.regions:
                yield {name: value(part, row, region) for name, value in CSV_COLUMNS.items()}
        for floor in part.floors:
            for region in part.regions:
                known = {
                    **{name: getattr(part, name) for name in ("study", "split", "selection", "metric", "reference")},
                    "arm": floor.label,
                    "region": region,
                    "mean": floor.values[region],
                    "regions_requested": " ".join(part.regions),
                    "margin_requested": part.margin_requested,
                    "shots": part.shots,
                    "bin_width": part.bin_width,
                    "data_fingerprint": " ".join(part.fingerprints),
                }
                yield {name: known.get(name) for name in CSV_COLUMNS}


def as_json(table: Comparison) -> str:
    """Return the request, every cell with its values, trials and test by seed, the published numbers and the footer."""
    plain = {
        "request": asdict(table.request),
        "tables": [_to_plain_table(part) for part in table.parts],
        "published": [asdict(row) for row in table.published],
        "notes": make_footer(table),
    }
    return format_json(plain)


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
    # The reference has neither a difference nor a word: these columns are empty in its lines.
    "difference": lambda table, row, region: getattr(row.cells[region].difference, "mean", None),
    "difference_sd": lambda table, row, region: getattr(row.cells[region].difference, "sd", None),
    "low": lambda table, row, region: getattr(row.cells[region].difference, "low", None),
    "high": lambda table, row, region: getattr(row.cells[region].difference, "high", None),
    "pairs": lambda table, row, region: getattr(row.cells[region].difference, "n", None),
    "reference_mean": lambda table, row, region: row.cells[region].reference_mean,
    "p_seeds": lambda table, row, region: _get_p(row.cells[region], "over_seeds"),
    "p_seeds_and_samples": lambda table, row, region: _get_p(row.cells[region], "over_both"),
    "units": lambda table, row, region: getattr(row.cells[region].difference, "units", None),
    "p_corrected": lambda table, row, region: row.cells[region].p_holm,
    "word": lambda table, row, region: row.cells[region].verdict,
    "no_word": lambda table, row, region: row.cells[region].no_word,
    "chosen_after": lambda table, row, region: (
        "; ".join(table.claim.chosen_after) if row.cells[region].verdict else None
    ),
    "early": lambda table, row, region: "early" if row.cells[region].is_early else None,
    "margin": lambda table, row, region: getattr(row.cells[region].verdict, "margin", None),
    "p_equivalence": lambda table, row, region: getattr(row.cells[region].verdict, "p_equivalence", None),
    "margin_requested": lambda table, row, region: table.margin_requested,
    "regions_requested": lambda table, row, region: " ".join(table.regions),
    # The most that any seed had, because a column of numbers has no room for a list.
    "configurations": lambda table, row, region: row.configurations,
    "missing": lambda table, row, region: "; ".join(f"{each.seed}: {each.reason}" for each in row.missing),
    "shots": lambda table, row, region: table.shots,
    "bin_width": lambda table, row, region: table.bin_width,
    "data_fingerprint": lambda table, row, region: " ".join(table.fingerprints),
}


def _to_plain_table(part: ArmTable) -> dict[str, Any]:
    # By name and not by `asdict`: programs read this, and a new field must not change it by itself.
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
            "samples",
            "group",
            "no_predictions",
            "seeds",
            "arms",
            "data",
            "fingerprints",
            "orphans",
        )
    }
    if part.sequential is not None:
        plain["sequential"] = {"rule": str(part.sequential), "arms": part.sequential.describe_states()}
    rows = []
    for row in part.rows:
        cells = {}
        for region, cell in row.cells.items():
            cells[region] = {
                "mean": cell.mean,
                "sd": cell.sd,
                "n": cell.n,
                "difference": None if cell.difference is None else _to_plain_difference(cell.difference),
                "reference_mean": cell.reference_mean,
                "p_corrected": cell.p_holm,
                "word": None if cell.verdict is None else {"text": str(cell.verdict), **asdict(cell.verdict)},
                "no_word": cell.no_word,
                "is_early": cell.is_early,
                "seeds": {
                    seed: {"trial_id": row.chosen[seed].trial_id, "epoch": row.chosen[seed].epoch, "value": value}
                    for seed, value in cell.values.items()
                },
            }
        rows.append(
            {
                "arm": row.arm,
                "levels": dict(row.levels),
                "tried": dict(row.tried),
                "searched": row.searched,
                "planned": row.planned,
                "unfinished": dict(row.unfinished),
                "missing": [asdict(each) for each in row.missing],
                "cells": cells,
            }
            | ({"cost": row.cost} if part.has_costs else {})
        )
    floors = [asdict(floor) for floor in part.floors]
    return {**plain, "claim": asdict(part.claim), "rows": rows, "floors": floors, "cautions": part.cautions}


def _to_plain_difference(difference: JointDifference) -> dict[str, Any]:
    summary = {
        name: getattr(difference, name) for name in ("mean", "sd", "n", "low", "high", "p", "unpaired_seeds", "limit")
    }
    return {**summary, **asdict(difference)}


def _get_p(cell: Cell, test: str) -> float | None:
    return getattr(getattr(cell.difference, test, None), "p", None)


def _is_undefined(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
