"""Selection of the arms of a figure: those that were requested, as many as it has room for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dirtune.metrics import REGIONS
from dirtune.results.analysis.arms import ArmRuns, expand_patterns
from dirtune.results.analysis.curves import Curve
from dirtune.results.figures._request import PlotRequest
from dirtune.results.records import names, studies
from dirtune.results.statistics.paired import mean
from dirtune.results.tables.table import ArmRow, ArmTable, Cell

Values = Mapping[int, float]
"""Values by seed."""


@dataclass(frozen=True, kw_only=True)
class ShownArms:
    """The arms of a figure, in the order of the study or of the request."""

    arms: tuple[str, ...]
    note: str
    """Sentence on arms that are not shown, with a leading space, for the end of the caption; or empty."""


@dataclass(frozen=True, kw_only=True)
class ComparedArms:
    """The arms of a figure of differences to the reference, without the reference."""

    table: ArmTable
    reference: str
    arms: tuple[str, ...]
    cells: Mapping[str, Mapping[str, Cell]]
    """Cells of the table by arm, including the reference, and region."""
    note: str
    """As `ShownArms.note`."""


def compare_arms(request: PlotRequest, *, most: int) -> ComparedArms:
    """Return the study's table and the arms to compare with its reference.

    Args:
        request: with arms or patterns, if not all are requested.
        most: maximum number of arms, including the reference.

    Raises:
        InputError: there is no reference, and as `make_arm_table` and `select_arms`.
    """
    table = request.build_table()
    if table.reference is None:
        raise request.make_error("has no reference; give one")
    shown = select_arms(table.rows, request.arms, reference=table.reference, most=most)
    return ComparedArms(
        table=table,
        reference=table.reference,
        note=shown.note,
        arms=tuple(arm for arm in shown.arms if arm != table.reference),
        cells={row.arm: row.cells for row in table.rows},
    )


def select_arms(
    rows: Sequence[ArmRow | ArmRuns], patterns: Sequence[str], *, reference: str | None, most: int
) -> ShownArms:
    """Return all requested arms if there is room, else the reference and the best arms by validation objective.

    Args:
        rows: arms of the study.
        patterns: names or patterns such as `conr*`; empty means all arms.
        reference: is kept if it is requested.
        most: maximum number of arms, including the reference.

    Raises:
        InputError: a pattern matches no arm.
    """
    requested = expand_patterns(patterns, [row.arm for row in rows])
    if len(requested) <= most:
        return ShownArms(arms=tuple(requested), note="")
    losses = {row.arm: mean(chosen.validation for chosen in row.chosen.values()) for row in rows}
    # The mean of an arm without a trial is NaN, which has no order: such arms rank last.
    ranked = sorted(requested, key=lambda arm: (arm != reference, math.isnan(losses[arm]), losses[arm]))
    kept = set(ranked[:most])
    best = "those with the best mean validation objective"
    rule = f"the reference and {best}" if reference in kept else best
    return ShownArms(
        arms=tuple(arm for arm in requested if arm in kept), note=f" {most} of {len(requested)} arms are shown: {rule}."
    )


def select_lines(curve: Curve, patterns: Sequence[str], *, most: int) -> Curve:
    """Return a curve with the first `most` lines whose labels match.

    Trials of further matching lines are added to the counts of trials left out.

    Raises:
        InputError: a pattern matches no line.
    """
    requested = expand_patterns(patterns, [line.label for line in curve.lines])
    lines = [line for line in curve.lines if line.label in requested]
    # Counted, so that the caption accounts for every trial.
    beyond = sum(len(line.values) for line in lines[most:])
    left_out = {**curve.left_out, **({f"of arms beyond the first {most}": beyond} if beyond else {})}
    return replace(curve, lines=tuple(lines[:most]), left_out=left_out)


@dataclass(frozen=True, kw_only=True)
class ComposedArms:
    """The arms with a known configuration, which `dirtune.results.analysis.parts` splits into parts."""

    table: ArmTable
    reference: str
    configs: Mapping[str, Mapping[str, Any]]
    """Resolved configurations by arm, in the order of the study."""


def read_composed_arms(request: PlotRequest) -> ComposedArms:
    """Return the arms with a known configuration, including the reference.

    Raises:
        InputError: the region is unknown, the study has no reference or not its configuration, and as `make_arm_table`.
    """
    names.check_known("region", request.region, REGIONS)
    configs = studies.read_study(studies.open_study(request.root, request.study)).configs
    table = request.build_table()
    if table.reference is None:
        raise request.make_error("has no reference; give one")
    check_independence(request, table)
    known = {arm: configs[arm] for arm in table.arms if arm in configs}
    if table.reference not in known:
        raise request.make_error(f"has no recorded configuration of its reference, {table.reference}")
    return ComposedArms(table=table, reference=table.reference, configs=known)


def check_independence(request: PlotRequest, table: ArmTable) -> None:
    """Raise if the values of a study's arms have rows in common, as those of several splits do.

    Raises:
        InputError: the study has several splits.
    """
    if table.repetition == "splits":
        raise request.make_error(
            "has several splits, whose common rows the tests of this figure would count as new; `forest` has their intervals"
        )


def get_values(table: ArmTable, region: str) -> dict[str, Values]:
    """Return the values of a region by arm and seed, or the means by search of a study that repeats searches."""
    return {row.arm: row.cells[region].units for row in table.rows}
