"""Table of a study: arms by shot regions, mean and spread over seeds, differences to the reference arm.

A table is data (`ArmTable`, of one study and one metric); `dirtune.results.tables.comparison` puts several together, and
`dirtune.results.tables.render` turns them into text. Everything that a reader must know to believe a number is part of it:
the split, the selection rule, the seeds, the trials behind every cell, the number of configurations, missing values with
their reasons, and the fingerprint of the data.

Importing this module imports neither torch nor Ray nor scipy.stats, so that `dirtune table` starts quickly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from dirtune.errors import Fault, InputError
from dirtune.metrics import REGIONS
from dirtune.results.analysis.arms import (
    ArmRuns,
    MissingValue,
    StudyRuns,
    check_metric,
    filter_rows,
    get_values_by_trial,
    read_study_runs,
)
from dirtune.results.analysis.selection import Candidate, get_selection
from dirtune.results.analysis.sequential import SequentialSummary, plan_due_seeds
from dirtune.results.records import names, studies
from dirtune.results.statistics.paired import Over, PairedDifference, compute_sd, mean
from dirtune.results.statistics.two_way import SAMPLE_METRICS, compare_by_sample
from dirtune.results.statistics.verdict import Verdict
from dirtune.results.tables.verdicts import DEFAULT_MARGIN, Margin, compare_arms

if TYPE_CHECKING:
    from dirtune.results.analysis.recompute import SampleErrors
    from dirtune.results.tables.shot_rules import RegionDefinition

POPULATIONS: tuple[Over, ...] = get_args(Over)
"""Values of `over`."""

Values = Mapping[tuple[str, str], Mapping[str, float | None]]
"""A metric by region and epoch, and by trial."""


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
    """To the reference arm; None for the reference itself."""
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
    """Number of planned trials; None if the study does not give it."""
    unfinished: Mapping[str, int]
    """Pruned and failed trials."""
    missing: tuple[MissingValue, ...]


@dataclass(frozen=True, kw_only=True)
class ArmTable:
    """Table of a study with everything that its footer reports."""

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
    """The objective that the selection uses."""
    reference: str | None
    margin: Margin
    """The largest difference to the reference that counts as none."""
    over: Over = "seeds"
    """Population that differences and verdicts are about."""
    seeds: tuple[int, ...]
    rows: tuple[ArmRow, ...]
    arms: tuple[str, ...]
    """All of the study, shown or not."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant and names of the presets by arm, without the arms that name none."""
    data: str
    fingerprints: tuple[str, ...]
    orphans: int
    """Recorded trials that the study no longer plans."""
    sequential: SequentialSummary | None = None
    """None if its seeds are fixed."""
    shots: str | None = None
    """Limits of many and few; None means as recorded."""
    bin_width: float | None = None
    """Width of the label bins; None means as recorded."""
    region_note: str = ""
    """Description of regions that are not the recorded ones, for a footer."""


def make_arm_table(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str = DEFAULT_MARGIN,
    over: str = "seeds",
    mix_data: bool = False,
) -> ArmTable:
    """Compare the arms of a study by one metric in all regions; arguments and errors as in `make_arm_tables`."""
    return make_arm_tables(
        root,
        study,
        metrics=() if metric is None else (metric,),
        split=split,
        selection=selection,
        reference=reference,
        margin=margin,
        over=over,
        mix_data=mix_data,
    )[0]


def make_arm_tables(
    root: str | Path,
    study: str,
    *,
    metrics: Sequence[str] = (),
    regions: Sequence[str] = REGIONS,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str = DEFAULT_MARGIN,
    over: str = "seeds",
    mix_data: bool = False,
    shots: str | None = None,
    bin_width: float | None = None,
) -> tuple[ArmTable, ...]:
    """Compare the arms of a study, one table per metric.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metrics: empty for the metric of the study's objective.
        regions: the columns, in this order.
        split: test or val.
        selection: a rule of `dirtune.results.analysis.selection.SELECTIONS`.
        reference: the arm that the others are compared with; None means the study's.
        margin: the largest difference that is no difference, as a share of the reference's mean (`2%`), or a number in the
            metric's unit.
        over: the population that intervals, tests and verdicts are about: new `seeds` on these test samples, new test
            `samples` with these models, or `both`. The last two compare the stored predictions, sample by sample, and
            exist for the metrics of `dirtune.results.statistics.two_way.SAMPLE_METRICS`.
        mix_data: allow trials that saw different data in one table.
        shots: other limits of many and few, such as `50/10`: regions are then recomputed from the stored predictions.
        bin_width: of wider label bins, in the label's unit: likewise.

    Raises:
        InputError: a name is unknown, the margin or the limits are unreadable, trials saw different data, predictions
            are needed and not stored, the metric has no interval over samples, or a file is damaged.
    """
    storage = studies.open_study(root, study)
    rule = get_selection(selection)
    info, outcome = plan_due_seeds(storage, studies.read_study(storage))
    names.check_known("split", split, names.EVALUATED_SPLITS)
    names.check_known("over", over, POPULATIONS)
    for region in regions:
        names.check_known("region", region, REGIONS)
    runs = read_study_runs(storage, info, rule)
    # A study without a reference has a table without differences.
    if reference := reference or info.reference:
        names.check_known("arm", reference, [arm.arm for arm in runs.arms])
    if not mix_data and len(runs.fingerprints) > 1:
        text = (
            "trials saw different data, and one table must not mix them unasked; "
            f"data fingerprints: {', '.join(runs.fingerprints)}"
        )
        raise InputError(Fault(where=f"study {study}", rule=text))
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
        margin=Margin.parse(margin),
        # Taken from the tuple, so that the checked text has the literal type.
        over=next(each for each in POPULATIONS if each == over),
        # Without a study file, the seeds are those of the records.
        seeds=info.seeds or tuple(sorted({seed for arm in runs.arms for seed in arm.tried})),
        rows=(),
        arms=tuple(arm.arm for arm in runs.arms),
        presets=info.presets,
        data=info.data,
        fingerprints=runs.fingerprints,
        orphans=runs.orphans,
        sequential=outcome,
        shots=shots,
        bin_width=bin_width,
    )
    return _fill_tables(root, template, tuple(metrics) or (info.metric,), runs)


def _fill_tables(root: str | Path, template: ArmTable, metrics: Sequence[str], runs: StudyRuns) -> tuple[ArmTable, ...]:
    """Return one table per metric, from the recorded values or, where these do not do, from the stored predictions."""
    definition = None
    if template.shots is not None or template.bin_width is not None:
        # A table of recorded values starts without these imports.
        from dirtune.results.tables.shot_rules import RegionDefinition

        _check_epochs(template, runs)
        definition = RegionDefinition.parse(root, template.study, shots=template.shots, bin_width=template.bin_width)
        template = replace(template, region_note=definition.description)
    tables = []
    values: Values
    for metric in metrics:
        if definition is None:
            metric = check_metric(runs.metrics, metric)
            # Filtered once by metric and split, which is most of the work.
            recorded = filter_rows(runs.metrics, metric=metric, split=template.split)
            epochs = {one.epoch for arm in runs.arms for one in arm.chosen.values()} or {names.EVALUATED_EPOCHS[0]}
            key = {"metric": metric, "split": template.split}
            values = {
                (region, epoch): get_values_by_trial(recorded, region=region, selection=epoch, **key)
                for region in template.regions
                for epoch in sorted(epochs)
            }
        else:
            trials = {one.trial_id for arm in runs.arms for one in arm.chosen.values()}
            values = definition.compute_values(metric, template.split, trials)
        rows = [_make_row(arm, metric, values, template.regions) for arm in runs.arms]
        tables.append(replace(template, metric=metric, rows=tuple(rows)))
    # Read once for all metrics and regions.
    errors = None if template.over == "seeds" else _read_sample_errors(root, template, metrics, runs, definition)
    return tuple(replace(table, rows=_compare_rows(table, errors)) for table in tables)


def _check_epochs(template: ArmTable, runs: StudyRuns) -> None:
    """Raise if the selection has chosen an epoch whose predictions are not stored."""
    from dirtune.results.tables.shot_rules import PREDICTED_EPOCH

    if any(one.epoch != PREDICTED_EPOCH for arm in runs.arms for one in arm.chosen.values()):
        rule = f"has chosen another epoch than {PREDICTED_EPOCH}, the only one whose predictions are stored"
        raise InputError(Fault(where="selection", rule=rule, got=template.selection))


def _read_sample_errors(
    root: str | Path,
    template: ArmTable,
    metrics: Sequence[str],
    runs: StudyRuns,
    definition: RegionDefinition | None,
) -> SampleErrors:
    """Read the errors of all chosen trials by sample.

    Raises:
        InputError: a metric has no interval over samples, or predictions are not stored.
    """
    from dirtune.results.analysis.recompute import read_sample_errors

    # Before the predictions of all trials are read.
    for metric in metrics:
        if metric not in SAMPLE_METRICS:
            rule = f"has no interval over {template.over}: it is no function of a mean over samples; use seeds"
            raise InputError(Fault(where=f"metric {metric}", rule=rule, known=tuple(SAMPLE_METRICS)))
    _check_epochs(template, runs)
    return read_sample_errors(
        root,
        template.study,
        split=template.split,
        rule=None if definition is None else definition.rule,
        bin_width=template.bin_width,
        trials={one.trial_id for arm in runs.arms for one in arm.chosen.values()},
    )


def _make_row(arm: ArmRuns, metric: str, values: Values, regions: Sequence[str]) -> ArmRow:
    cells: dict[str, Cell] = {}
    missing = list(arm.missing)
    for region in regions:
        found: dict[int, float] = {}
        for seed, chosen in arm.chosen.items():
            # Undefined values, such as a correlation of constant predictions, are listed and not averaged.
            value = values[region, chosen.epoch].get(chosen.trial_id)
            if value is None or math.isnan(value):
                missing.append(MissingValue(arm=arm.arm, seed=seed, reason=f"{metric} undefined in {region}"))
            else:
                found[seed] = value
        cells[region] = Cell(values=found, mean=mean(found.values()), sd=compute_sd(found.values()), n=len(found))
    return ArmRow(
        arm=arm.arm,
        levels=arm.levels,
        cells=cells,
        chosen=arm.chosen,
        tried=arm.tried,
        searched=arm.searched,
        planned=arm.planned,
        unfinished=arm.unfinished,
        missing=tuple(missing),
    )


def _compare_rows(table: ArmTable, errors: SampleErrors | None) -> tuple[ArmRow, ...]:
    """Return the rows with their differences to the reference arm and their verdicts.

    Args:
        table: with rows that have values only.
        errors: by sample, for differences that are not over seeds.
    """
    base = next((row for row in table.rows if row.arm == table.reference), None)
    if base is None:
        return table.rows
    others = [row for row in table.rows if row is not base]
    cells: dict[str, dict[str, Cell]] = {row.arm: {} for row in others}
    for region, level in base.cells.items():
        differences = None
        if errors is not None and table.over != "seeds":
            mask = errors.regions[region]
            # The seeds with a value in this region, as in the differences over seeds.
            by_seed = {
                row.arm: {seed: errors.errors[row.chosen[seed].trial_id][mask] for seed in row.cells[region].values}
                for row in table.rows
            }
            differences = {
                row.arm: compare_by_sample(by_seed[row.arm], by_seed[base.arm], over=table.over, metric=table.metric)
                for row in others
            }
        # One family of tests per region: the correction is over all arms, shown or not.
        found = compare_arms(
            {row.arm: row.cells[region].values for row in others},
            level.values,
            metric=table.metric,
            margin=table.margin,
            differences=differences,
        )
        for row in others:
            cells[row.arm][region] = replace(row.cells[region], **vars(found[row.arm]))
    return tuple(replace(row, cells=cells.get(row.arm, row.cells)) for row in table.rows)
