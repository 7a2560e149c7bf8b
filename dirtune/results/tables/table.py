"""The table of a study: arms by shot regions, mean and spread over seeds, paired differences to the reference arm.

A table is data (`ArmTable`, of one study and one metric); `dirtune.results.tables.comparison` puts several together, and
`dirtune.results.tables.render.formats` shows them. Everything that a reader must know to believe a number is part of it: the split,
the selection rule, the seeds, the trials behind every cell, how many configurations were tried, what is missing and
why, and the fingerprint of the data.

Importing this module brings in neither torch nor Ray nor scipy.stats, so that `dirtune table` answers at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from dirtune.errors import Fault, InputError
from dirtune.metrics import REGIONS
from dirtune.results.analysis.arms import ArmRuns, Hole, StudyRuns, known_metric, narrowed, study_runs, values_by_trial
from dirtune.results.analysis.selection import Candidate, selection_named
from dirtune.results.analysis.sequential import Outcome, with_seeds_due
from dirtune.results.records.names import EVALUATED_EPOCHS, EVALUATED_SPLITS, check_known
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.statistics.paired import PairedDifference, mean, sd
from dirtune.results.statistics.verdict import Verdict
from dirtune.results.tables.verdicts import DEFAULT_MARGIN, Margin, judged


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm in one region; statistics over seeds, in the metric's unit."""

    values: Mapping[int, float]
    """By seed."""
    mean: float
    """NaN without any value."""
    sd: float
    """NaN below two values."""
    n: int
    """Seeds with a value."""
    difference: PairedDifference | None = None
    """To the reference arm; none for itself."""
    p_holm: float = math.nan
    """The difference's p, corrected over the arms of this region."""
    verdict: Verdict | None = None
    """None for the reference, and without a pair."""


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm."""

    arm: str
    levels: Mapping[str, object]
    """Its values on the study's axes."""
    cells: Mapping[str, Cell]
    """By region."""
    chosen: Mapping[int, Candidate]
    """The trial and epoch behind the values, by seed."""
    tried: Mapping[int, int]
    """Configurations by seed."""
    searched: int = 0
    """Configurations of a search whose selection was then trained on the seeds."""
    planned: int | None
    """Trials in all, if the study says."""
    unfinished: Mapping[str, int]
    """Pruned and failed trials."""
    holes: tuple[Hole, ...]


@dataclass(frozen=True, kw_only=True)
class ArmTable:
    """The table and everything its footer says."""

    study: str
    question: str
    metric: str
    unit: str
    """Of the label; empty if unknown."""
    regions: tuple[str, ...]
    """The columns."""
    split: str
    selection: str
    description: str
    """Of the selection."""
    objective: str
    """What the selection looks at."""
    reference: str | None
    margin: Margin
    """What counts as no difference to it."""
    seeds: tuple[int, ...]
    rows: tuple[ArmRow, ...]
    arms: tuple[str, ...]
    """All of the study, shown or not."""
    data: str
    fingerprints: tuple[str, ...]
    orphans: int
    """Recorded trials that the study no longer plans."""
    sequential: Outcome | None = None
    """None: its seeds are fixed."""
    shots: str | None = None
    """The limits of many and few asked for; none: as recorded."""
    bin_width: float | None = None
    """Of the label bins asked for; none: as recorded."""
    regrouping: str = ""
    """What the two mean, for a footer."""


def arm_table(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str = DEFAULT_MARGIN,
    mix_data: bool = False,
) -> ArmTable:
    """Compare the arms of a study by one metric in all regions; the arguments and errors are those of `arm_tables`."""
    metrics = () if metric is None else (metric,)
    return arm_tables(
        root,
        study,
        metrics=metrics,
        split=split,
        selection=selection,
        reference=reference,
        margin=margin,
        mix_data=mix_data,
    )[0]


def arm_tables(
    root: str | Path,
    study: str,
    *,
    metrics: Sequence[str] = (),
    regions: Sequence[str] = REGIONS,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str = DEFAULT_MARGIN,
    mix_data: bool = False,
    shots: str | None = None,
    bin_width: float | None = None,
) -> tuple[ArmTable, ...]:
    """Compare the arms of a study, one table per metric.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metrics: none: the metric of the study's objective.
        regions: the columns, in this order.
        split: test or val.
        selection: a rule of `dirtune.results.analysis.selection.SELECTIONS`.
        reference: the arm that the others are compared with; none: the study's.
        margin: what counts as no difference: a share of the reference's mean (`2%`), or a number in the metric's unit.
        mix_data: allow trials that saw different data in one table.
        shots: other limits of many and few, such as `50/10`: regions are then formed anew from the stored predictions.
        bin_width: of wider label bins, in the label's unit: likewise.

    Raises:
        InputError: a name is unknown, the margin or the limits unreadable, trials saw different data, there are no
            predictions to form regions from, or a file is damaged.
    """
    storage = open_study(root, study)
    rule = selection_named(selection)
    info, outcome = with_seeds_due(storage, read_study(storage))
    check_known("split", split, EVALUATED_SPLITS)
    for region in regions:
        check_known("region", region, REGIONS)
    runs = study_runs(storage, info, rule)
    if reference := reference or info.reference:
        check_known("arm", reference, [arm.arm for arm in runs.arms])
    if not mix_data:
        _check_one_data_set(study, runs.fingerprints)
    template = ArmTable(
        study=study,
        question=info.question,
        metric="",
        unit=info.unit,
        regions=tuple(regions),
        split=split,
        selection=selection,
        description=rule.description,
        objective=f"{info.metric} in region {info.region}",
        reference=reference,
        margin=Margin.read(margin),
        seeds=_seeds(runs, info),
        rows=(),
        arms=tuple(arm.arm for arm in runs.arms),
        data=info.data,
        fingerprints=runs.fingerprints,
        orphans=runs.orphans,
        sequential=outcome,
        shots=shots,
        bin_width=bin_width,
    )
    metrics = tuple(metrics) or (info.metric,)
    if shots is None and bin_width is None:
        return tuple(_filled(template, metric, runs) for metric in metrics)
    return _regrouped(root, template, metrics, runs)


def _check_one_data_set(study: str, fingerprints: tuple[str, ...]) -> None:
    if len(fingerprints) > 1:
        rule = (
            "trials saw different data, and one table must not mix them unasked; "
            f"data fingerprints: {', '.join(fingerprints)}"
        )
        raise InputError(Fault(where=f"study {study}", rule=rule))


def _seeds(runs: StudyRuns, info: StudyInfo) -> tuple[int, ...]:
    return info.seeds or tuple(sorted({seed for arm in runs.arms for seed in arm.tried}))


def _filled(template: ArmTable, metric: str, runs: StudyRuns) -> ArmTable:
    """The table with the recorded values of a metric."""
    metric = known_metric(runs.metrics, metric)
    of_metric = narrowed(runs.metrics, metric=metric, split=template.split)
    chosen = {one.epoch for arm in runs.arms for one in arm.chosen.values()} or {EVALUATED_EPOCHS[0]}
    values = {
        (region, epoch): _values(of_metric, metric, region, template.split, epoch)
        for region in template.regions
        for epoch in sorted(chosen)
    }
    return _with_rows(template, metric, runs, values)


def _regrouped(root: str | Path, template: ArmTable, metrics: Sequence[str], runs: StudyRuns) -> tuple[ArmTable, ...]:
    """The tables with what the stored predictions of the chosen trials say in other regions."""
    # A table of recorded values starts without the parts of this one.
    from dirtune.results.tables.shot_rules import PREDICTED, Regrouping

    regrouping = Regrouping.of(root, template.study, shots=template.shots, bin_width=template.bin_width)
    chosen = [one for arm in runs.arms for one in arm.chosen.values()]
    if any(one.epoch != PREDICTED for one in chosen):
        rule = f"looks at another epoch than {PREDICTED}, the only one whose predictions are stored"
        raise InputError(Fault(where="selection", rule=rule, got=template.selection))
    template = replace(template, regrouping=regrouping.description)
    trials = {one.trial_id for one in chosen}
    found = ((metric, regrouping.values(metric, template.split, trials)) for metric in metrics)
    return tuple(_with_rows(template, metric, runs, values) for metric, values in found)


def _with_rows(
    template: ArmTable, metric: str, runs: StudyRuns, values: Mapping[tuple[str, str], Mapping[str, float | None]]
) -> ArmTable:
    rows = [_row(arm, metric, values, template.regions) for arm in runs.arms]
    return replace(template, metric=metric, rows=_compared(rows, metric, template))


def _values(metrics: pa.Table, metric: str, region: str, split: str, epoch: str) -> Mapping[str, float | None]:
    return values_by_trial(metrics, metric=metric, region=region, split=split, selection=epoch)


def _row(
    arm: ArmRuns, metric: str, values: Mapping[tuple[str, str], Mapping[str, float | None]], regions: Sequence[str]
) -> ArmRow:
    cells: dict[str, Cell] = {}
    holes = list(arm.holes)
    for region in regions:
        found: dict[int, float] = {}
        for seed, chosen in arm.chosen.items():
            value = values[region, chosen.epoch].get(chosen.trial_id)
            if value is None or math.isnan(value):
                holes.append(Hole(arm=arm.arm, seed=seed, reason=f"{metric} undefined in {region}"))
            else:
                found[seed] = value
        cells[region] = Cell(values=found, mean=mean(found.values()), sd=sd(found.values()), n=len(found))
    return ArmRow(
        arm=arm.arm,
        levels=arm.levels,
        cells=cells,
        chosen=arm.chosen,
        tried=arm.tried,
        searched=arm.searched,
        planned=arm.planned,
        unfinished=arm.unfinished,
        holes=tuple(holes),
    )


def _compared(rows: list[ArmRow], metric: str, template: ArmTable) -> tuple[ArmRow, ...]:
    """The rows with the differences to the reference arm and their verdicts."""
    base = next((row for row in rows if row.arm == template.reference), None)
    if base is None:
        return tuple(rows)
    others = [row for row in rows if row is not base]
    cells: dict[str, dict[str, Cell]] = {row.arm: {} for row in others}
    for region, level in base.cells.items():
        values = {row.arm: row.cells[region].values for row in others}
        found = judged(values, level.values, metric=metric, margin=template.margin)
        for row in others:
            cells[row.arm][region] = replace(row.cells[region], **vars(found[row.arm]))
    return tuple(replace(row, cells=cells.get(row.arm, row.cells)) for row in rows)
