"""Which arms a figure has room for, and the sentence that says which were left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dirtune.errors import Fault, InputError
from dirtune.results.analysis.arms import ArmRuns, arms_named
from dirtune.results.analysis.curves import Curve
from dirtune.results.figures._request import PlotRequest
from dirtune.results.statistics.paired import mean
from dirtune.results.tables.table import ArmRow, ArmTable, Cell


@dataclass(frozen=True, kw_only=True)
class Shown:
    """The arms of a figure, in the order of the study or as asked."""

    arms: tuple[str, ...]
    note: str
    """For the caption: empty, or a sentence that begins with a blank."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The arms of a figure of differences, without the reference."""

    table: ArmTable
    reference: str
    arms: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    """By arm, the reference too, and region."""
    note: str
    """As that of `Shown`."""


def compared(request: PlotRequest, *, most: int) -> Compared:
    """The study's table, and the arms of it that there is room to compare with the reference.

    Raises:
        InputError: there is no reference, and as `arm_table` and `shown_arms`.
    """
    table = request.table()
    if table.reference is None:
        raise request.nothing("names no reference; give one")
    shown = shown_arms(table.rows, request.arms, reference=table.reference, most=most)
    return Compared(
        table=table,
        reference=table.reference,
        note=shown.note,
        arms=tuple(arm for arm in shown.arms if arm != table.reference),
        cells={row.arm: row.cells for row in table.rows},
    )


def shown_arms(rows: Sequence[ArmRow | ArmRuns], patterns: Sequence[str], *, reference: str | None, most: int) -> Shown:
    """All arms that are asked for, if there is room; else the reference and those best on validation data.

    Args:
        rows: of the study.
        patterns: names or patterns such as `conr*`; none: all arms.
        reference: stays whenever it is asked for.
        most: arms that there is room for, the reference included.

    Raises:
        InputError: a pattern fits no arm.
    """
    asked = asked_arms(patterns, [row.arm for row in rows])
    if len(asked) <= most:
        return Shown(arms=tuple(asked), note="")
    losses = {row.arm: _validation_loss(row) for row in rows}
    ranked = sorted(asked, key=lambda arm: (arm != reference, losses[arm]))
    kept = set(ranked[:most])
    best = "those with the best mean validation objective"
    rule = f"the reference and {best}" if reference in kept else best
    return Shown(
        arms=tuple(arm for arm in asked if arm in kept), note=f" {most} of {len(asked)} arms are shown: {rule}."
    )


def asked_arms(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The known arms that names or patterns ask for; none asked: all.

    Raises:
        InputError: a pattern fits no arm.
    """
    unknown = [pattern for pattern in patterns if not arms_named([pattern], known)]
    if unknown:
        raise InputError(Fault(where="arms", rule="unknown arm", got=pattern, known=known) for pattern in unknown)
    return arms_named(patterns, known)


def shown_lines(curve: Curve, patterns: Sequence[str], *, most: int) -> Curve:
    """A curve with the lines that are asked for, by their labels, and of them the first that there is room for.

    The trials of the others that were asked for are counted among those left out.

    Raises:
        InputError: a pattern fits no line.
    """
    asked = asked_arms(patterns, [line.label for line in curve.lines])
    lines = [line for line in curve.lines if line.label in asked]
    beyond = sum(len(line.values) for line in lines[most:])
    left_out = {**curve.left_out, **({f"of arms beyond the first {most}": beyond} if beyond else {})}
    return replace(curve, lines=tuple(lines[:most]), left_out=left_out)


def _validation_loss(row: ArmRow | ArmRuns) -> float:
    loss = mean(chosen.validation for chosen in row.chosen.values())
    return math.inf if math.isnan(loss) else loss
