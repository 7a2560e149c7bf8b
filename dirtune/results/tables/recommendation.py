"""Recommendation from a finished study: one sentence about its claim, then where the method costs something.

The sentence says no more than the table's words: a method is named if its word is `helps`, after the correction over all
arms, and otherwise plain training is. A floor that no arm beats comes first, because then no training is worth its time.
"""

from __future__ import annotations

import math
from pathlib import Path

from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.selection import to_loss
from dirtune.results.analysis.status import describe_failures
from dirtune.results.records import names, studies
from dirtune.results.records.store import read_once
from dirtune.results.tables.floors import FloorRow, find_unbeaten, format_floor
from dirtune.results.tables.render.numbers import format_change
from dirtune.results.tables.table import ArmRow, ArmTable, make_arm_table
from dirtune.wording import format_count


@read_once()
def describe_recommendation(root: str | Path, study: str) -> list[str]:
    """Return the recommended method as a sentence, and one sentence each on costs, undecided methods and floors.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.

    Raises:
        InputError: there is no such study, or a file is damaged.
    """
    table = make_arm_table(root, study)
    region, rows = table.claim.region, {row.arm: row for row in table.rows}
    measured = {name: row for name, row in rows.items() if row.cells[region].n}
    if table.reference not in measured:
        return [_describe_unmeasured(root, study, table)]
    base = measured.pop(str(table.reference))
    by_word: dict[str, list[ArmRow]] = {}
    for row in measured.values():
        verdict = row.cells[region].verdict
        by_word.setdefault(verdict.decision if verdict is not None else "open", []).append(row)
    # The largest gain first: its interval is one of several, which Holm's correction of the words accounts for.
    helping = sorted(by_word.get("helps", ()), key=lambda row: to_loss(row.cells[region].mean, table.metric))
    best = helping[0] if helping else base
    constant = [floor for floor in table.floors if floor.name in names.CONSTANT_FLOORS]
    if find_unbeaten(best.cells[region].mean, region, table.metric, constant):
        answer = [
            f"No recommendation: {best.arm}, at {best.cells[region].mean:.4g}{_format_unit(table)} in {_name_column(table)}, is no "
            f"better than a constant prediction; dirtune check {study} says why."
        ]
    elif helping:
        answer = [_describe_best(table, best, base)]
    else:
        answer = [
            f"Keep {base.arm}: no method is shown to be better in {_name_column(table)}, where it has "
            f"{base.cells[region].mean:.4g}{_format_unit(table)}."
        ]
    answer += _describe_costs(table, best)
    others = {
        "also helps": [_name_with_caveats(table, row) for row in helping[1:]],
        "hurts": [_name_with_caveats(table, row) for row in by_word.get("hurts", ())],
        "makes no difference": [row.arm for row in by_word.get("same", ())],
        "undecided": [_describe_open(table, row) for row in by_word.get("open", ())],
        "not measured": [name for name in rows if name not in measured and name != base.arm],
    }
    answer += [f"{word.capitalize()}: {', '.join(arms)}." for word, arms in others.items() if arms]
    return [*answer, *_describe_floors(table, best), *table.cautions]


def _describe_unmeasured(root: str | Path, study: str, table: ArmTable) -> str:
    """Return the sentence on a reference without a complete trial."""
    failures, retry = describe_failures(studies.open_study(root, study), study, table.reference)
    rows = [row for row in table.rows if row.arm == table.reference]
    seeds = " on fresh seeds" if any(row.searched for row in rows) else ""
    if failures:
        state = f"complete, failed: {failures}; {retry} runs them again."
    else:
        state = "recorded; more minutes, or run it again."
    return f"No recommendation: no trial of {table.reference}{seeds} is {state}"


def _describe_best(table: ArmTable, best: ArmRow, base: ArmRow) -> str:
    cell = best.cells[table.claim.region]
    verdict, level = cell.verdict, cell.reference_mean
    share = abs(cell.mean - level) / abs(level) if level else math.nan
    verb = "raises" if table.metric in HIGHER_IS_BETTER else "lowers"
    caveats = f"; but: {'; '.join(verdict.caveats)}" if verdict is not None and verdict.caveats else ""
    return (
        f"Use {best.arm}: it {verb} {_name_column(table)} by {share:.1%} against {base.arm}, from {level:.4g} to "
        f"{cell.mean:.4g}{_format_unit(table)} (difference {_format_difference(best, table)}{caveats})."
    )


def _describe_costs(table: ArmTable, best: ArmRow) -> list[str]:
    """Return a sentence on the regions in which an arm is worse than the reference, beyond its interval."""
    worse = []
    for region, cell in best.cells.items():
        if region == table.claim.region or cell.difference is None:
            continue
        # As losses, so that a positive difference is worse for every metric.
        low, high = sorted(to_loss(end, table.metric) for end in (cell.difference.low, cell.difference.high))
        if low > 0 and not math.isnan(high):
            worse.append(f"{region} ({_format_difference(best, table, region)})")
    return [f"It is worse in region {', '.join(worse)}."] if worse else []


def _name_with_caveats(table: ArmTable, row: ArmRow) -> str:
    verdict = row.cells[table.claim.region].verdict
    return f"{row.arm} (but: {'; '.join(verdict.caveats)})" if verdict is not None and verdict.caveats else row.arm


def _describe_open(table: ArmTable, row: ArmRow) -> str:
    cell = row.cells[table.claim.region]
    reason = cell.no_word or (str(cell.verdict.limit) if cell.verdict is not None and cell.verdict.limit else "")
    more = f"; {reason}" if reason else ""
    return f"{row.arm} ({_format_difference(row, table)}{more})"


def _describe_floors(table: ArmTable, best: ArmRow) -> list[str]:
    region = table.claim.region
    known = [floor for floor in table.floors if not math.isnan(floor.values[region])]
    if not known:
        return []

    def get_loss(floor: FloorRow) -> float:
        return to_loss(floor.values[region], table.metric)

    strongest = min(known, key=get_loss)
    name, level = format_floor(strongest.name), strongest.values[region]
    if get_loss(strongest) <= to_loss(best.cells[region].mean, table.metric):
        return [f"Without a training run, {name} is better than {best.arm}: {level:.4g}{_format_unit(table)}."]
    return [f"{best.arm} is better than every floor; the best of them is {name} with {level:.4g}{_format_unit(table)}."]


def _format_difference(row: ArmRow, table: ArmTable, region: str | None = None) -> str:
    difference = row.cells[region or table.claim.region].difference
    if difference is None or not difference.n:
        return "no pair"
    counted = format_count(difference.n, "seed") + (
        f" and {format_count(difference.units, 'test sample')}" if difference.units else ""
    )
    return f"{format_change(difference.mean, difference.low, difference.high, decimals=2)} over {counted}"


def _name_column(table: ArmTable) -> str:
    return f"{table.metric} in region {table.claim.region}"


def _format_unit(table: ArmTable) -> str:
    return f" {table.unit}" if table.unit and table.metric in {"mae", "balanced_mae", "rmse", "gmean"} else ""
