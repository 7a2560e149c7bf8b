"""The table of a study: arms by shot regions, mean and spread over seeds, paired differences to the reference arm.

A table is data (`ArmTable`); `dirtune.results.rendering` shows it. Everything that a reader must know to believe a
number is part of it: the split, the selection rule, the seeds, how many configurations were tried, what is missing and
why, and the fingerprint of the data.

Importing this module brings in neither torch nor Ray nor scipy.stats, so that `dirtune table` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dirtune.errors import Fault, InputError
from dirtune.results.arms import (
    ArmRuns,
    Hole,
    StudyRuns,
    known_metric,
    study_runs,
    values_by_trial,
)
from dirtune.results.schema import REGIONS
from dirtune.results.selection import EPOCHS, selection_named
from dirtune.results.statistics import PairedDifference, holm, mean, paired_difference, sd
from dirtune.results.studies import StudyInfo, open_studies, read_study

SPLITS = ("val", "test")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm in one region; statistics over seeds, in the metric's unit."""

    values: Mapping[int, float]  # by seed
    mean: float  # NaN without any value
    sd: float  # NaN below two values
    n: int  # seeds with a value
    difference: PairedDifference | None = None  # to the reference arm; none for itself
    p_holm: float = math.nan  # the difference's p, corrected over the arms of this region


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm."""

    arm: str
    cells: Mapping[str, Cell]  # by region
    tried: Mapping[int, int]  # configurations by seed
    planned: int | None  # trials in all, if the study says
    unfinished: Mapping[str, int]  # pruned and failed trials
    holes: tuple[Hole, ...]


@dataclass(frozen=True, kw_only=True)
class ArmTable:
    """The table and everything its footer says."""

    study: str
    question: str
    metric: str
    unit: str  # of the label; empty if unknown
    split: str
    selection: str
    description: str  # of the selection
    objective: str  # what the selection looks at
    reference: str | None
    seeds: tuple[int, ...]
    rows: tuple[ArmRow, ...]
    data: str
    fingerprints: tuple[str, ...]
    orphans: int  # recorded trials that the study no longer plans


def arm_table(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    mix_data: bool = False,
) -> ArmTable:
    """Compare the arms of a study.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metric: none: the metric of the study's objective.
        split: test or val.
        selection: a rule of `dirtune.results.selection.SELECTIONS`.
        reference: the arm that the others are compared with; none: the study's.
        mix_data: allow trials that saw different data in one table.

    Raises:
        InputError: a name is unknown, trials saw different data, or a file is damaged.
    """
    storage = open_studies(root, [study])[study]
    info, rule = read_study(storage), selection_named(selection)
    check_known("split", split, SPLITS)
    runs = study_runs(storage, info, rule)
    metric = known_metric(runs.metrics, metric or info.metric)
    reference = reference or info.reference
    if reference is not None:
        check_known("arm", reference, [arm.arm for arm in runs.arms])
    if not mix_data:
        _check_one_data_set(study, runs.fingerprints)
    rows = _rows(runs, metric, split)
    return ArmTable(
        study=study,
        question=info.question,
        metric=metric,
        unit=info.unit,
        split=split,
        selection=selection,
        description=rule.description,
        objective=f"{info.metric} in region {info.region}",
        reference=reference,
        seeds=_seeds(runs, info),
        rows=_compared(rows, reference),
        data=info.data,
        fingerprints=runs.fingerprints,
        orphans=runs.orphans,
    )


def check_known(what: str, name: str, known: Sequence[str]) -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        InputError: with the known ones.
    """
    if name not in known:
        raise InputError(Fault(where=what, rule=f"unknown {what}", got=name, known=known))


# The verb of the command line is also a call: `dirtune.table("results", "quickstart")`.
table = arm_table


def _check_one_data_set(study: str, fingerprints: tuple[str, ...]) -> None:
    if len(fingerprints) > 1:
        rule = (
            "trials saw different data, and one table must not mix them unasked; "
            f"data fingerprints: {', '.join(fingerprints)}"
        )
        raise InputError(Fault(where=f"study {study}", rule=rule))


def _seeds(runs: StudyRuns, info: StudyInfo) -> tuple[int, ...]:
    return info.seeds or tuple(sorted({seed for arm in runs.arms for seed in arm.tried}))


def _rows(runs: StudyRuns, metric: str, split: str) -> list[ArmRow]:
    values = {
        (region, epoch): values_by_trial(
            runs.metrics, metric=metric, region=region, split=split, selection=epoch
        )
        for region in REGIONS
        for epoch in EPOCHS
    }
    return [_row(arm, metric, values) for arm in runs.arms]


def _row(
    arm: ArmRuns, metric: str, values: Mapping[tuple[str, str], Mapping[str, float | None]]
) -> ArmRow:
    cells: dict[str, Cell] = {}
    holes = list(arm.holes)
    for region in REGIONS:
        found: dict[int, float] = {}
        for seed, chosen in arm.chosen.items():
            value = values[region, chosen.epoch].get(chosen.trial_id)
            if value is None or math.isnan(value):
                holes.append(Hole(arm=arm.arm, seed=seed, reason=f"{metric} undefined in {region}"))
            else:
                found[seed] = value
        cells[region] = Cell(
            values=found, mean=mean(found.values()), sd=sd(found.values()), n=len(found)
        )
    return ArmRow(
        arm=arm.arm,
        cells=cells,
        tried=arm.tried,
        planned=arm.planned,
        unfinished=arm.unfinished,
        holes=tuple(holes),
    )


def _compared(rows: list[ArmRow], reference: str | None) -> tuple[ArmRow, ...]:
    """The rows with the differences to the reference arm, corrected over the arms of each region."""
    base = next((row for row in rows if row.arm == reference), None)
    if base is None:
        return tuple(rows)
    others = [row for row in rows if row is not base]
    cells: dict[str, dict[str, Cell]] = {row.arm: {} for row in others}
    for region in REGIONS:
        differences = {
            row.arm: paired_difference(row.cells[region].values, base.cells[region].values)
            for row in others
        }
        corrected = holm({arm: difference.p for arm, difference in differences.items()})
        for row in others:
            cells[row.arm][region] = replace(
                row.cells[region], difference=differences[row.arm], p_holm=corrected[row.arm]
            )
    return tuple(replace(row, cells=cells.get(row.arm, row.cells)) for row in rows)
