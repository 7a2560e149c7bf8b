"""Table of a study: arms by shot regions, mean and spread over seeds, differences to the reference arm.

A table is data (`ArmTable`, of one study and one metric); `dirtune.results.tables.comparison` puts several together, and
`dirtune.results.tables.render` turns them into text. Everything that a reader must know to believe a number is part of it:
the split, the selection rule, the seeds, the trials behind every cell, the number of configurations, missing values with
their reasons, and the fingerprint of the data.

Importing this module imports neither torch nor Ray nor scipy.stats, so that `dirtune table` starts quickly.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER, REGIONS
from dirtune.randomness import get_repetition
from dirtune.results.analysis.arms import (
    ArmRuns,
    MissingValue,
    StudyRuns,
    check_metric,
    filter_rows,
    get_values_by_trial,
    read_study_runs,
)
from dirtune.results.analysis.claims import Claim, choose_column, count_samples, make_claim
from dirtune.results.analysis.costs import (
    compute_costs,
    find_last_epochs,
    read_training_times,
    read_values_at_equal_time,
)
from dirtune.results.analysis.selection import Candidate, get_selection
from dirtune.results.analysis.sequential import SequentialSummary, plan_due_seeds
from dirtune.results.analysis.soundness import Unconverged, judge_trials
from dirtune.results.records import names, studies
from dirtune.results.statistics.joint import JointDifference, Repeated, average_by_repetition
from dirtune.results.statistics.paired import compute_sd, mean
from dirtune.results.statistics.verdict import Verdict
from dirtune.results.tables.floors import FloorRow, describe_cautions, describe_caveats, find_unbeaten, make_floor_rows
from dirtune.results.tables.verdicts import NO_PREDICTIONS, ArmVerdict, ColumnArm, compare_arms, judge_arms

if TYPE_CHECKING:
    from dirtune.results.analysis.recompute import SamplePredictions
    from dirtune.results.analysis.sample_parts import SampleParts
    from dirtune.results.tables.shot_rules import RegionDefinition

EQUAL = ("time",)
"""Budgets at which trainings can be compared."""
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
    difference: JointDifference | None = None
    """To the reference arm; None for the reference itself."""
    reference_mean: float = math.nan
    """Of the paired seeds."""
    p_holm: float = math.nan
    """The difference's p, corrected over the arms; only in the claim's column."""
    verdict: Verdict | None = None
    """None for the reference, in all columns but the claim's, and where there is a reason for no word."""
    no_word: str = ""
    """Reason for having no word in the claim's column."""
    is_early: bool = False
    """The arm's seeds ended at an early look at this column, so that the difference is too large on average."""
    is_repeated: bool = False
    """Seeds belong to splits or searches, which are the unit of tests."""

    @property
    def units(self) -> Mapping[int, float]:
        """Values of the units of tests: of the seeds, or the means of every split or search."""
        return average_by_repetition(self.values) if self.is_repeated else self.values


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
    """Configurations of a search whose selection was then trained on the seeds; of several, of the largest."""
    search_trials: int = 0
    """Trials of all these searches."""
    planned: int | None
    """Number of planned trials; None if the study does not give it."""
    unfinished: Mapping[str, int]
    """Pruned and failed trials."""
    missing: tuple[MissingValue, ...]
    cost: float | None = None
    """Training time per sample, as a multiple of the reference's; None if it is unknown or was not asked for."""

    @property
    def configurations(self) -> int:
        """The most configurations that any seed had, or the search beforehand."""
        return max([*self.tried.values(), self.searched], default=0)


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
    claim: Claim
    """The column that has words; it may be of another metric."""
    margin_requested: str | None = None
    """None means the study's."""
    samples: Mapping[str, int]
    """Samples of the split, by region."""
    group: str = ""
    """What the samples are grouped by, such as "person"; empty if each counts by itself."""
    no_predictions: str = ""
    """Why no interval and no word can be about new test samples; empty if they are."""
    is_searched_once: bool = False
    """Some arm has settings that one search has selected."""
    repetition: studies.Repetition | None = None
    """Splits or searches, if these and not seeds are the unit of all tests."""
    overlap: Mapping[str, float] = field(default_factory=dict)
    """Share of common test samples of two splits, by region; empty with one split."""
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
    floors: tuple[FloorRow, ...] = ()
    """Reference predictors without training, shown below the arms."""
    has_costs: bool = False
    """Costs of the rows were asked for."""
    is_at_equal_time: bool = False
    """Values are those of the best epoch within the training time of the shortest training of each seed."""
    cautions: tuple[str, ...] = ()
    """Sentences on arms whose trainings are not sound, for a footer."""


def make_arm_table(
    root: str | Path,
    study: str,
    *,
    metric: str | None = None,
    split: str = "test",
    selection: str = "best_val",
    reference: str | None = None,
    margin: str | None = None,
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
    margin: str | None = None,
    mix_data: bool = False,
    shots: str | None = None,
    bin_width: float | None = None,
    cost: bool = False,
    equal: str | None = None,
) -> tuple[ArmTable, ...]:
    """Compare the arms of a study, one table per metric.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        metrics: empty for the metric of the study's claim.
        regions: the columns, in this order.
        split: test or val.
        selection: a rule of `dirtune.results.analysis.selection.SELECTIONS`.
        reference: the arm that the others are compared with; None means the study's.
        margin: the largest difference that is no difference, as a share of the reference's mean (`2%`), or a number in the
            metric's unit; None means that of the study's claim.
        mix_data: allow trials that saw different data in one table.
        shots: other limits of many and few, such as `50/10`: regions are then recomputed from the stored predictions.
        bin_width: of wider label bins, in the label's unit: likewise.
        cost: compute the training time of every arm against the reference's.
        equal: `time`: on the validation split, compare the best epochs within the training time of the shortest training of
            each seed. None: compare whole trainings.

    Raises:
        InputError: a name is unknown, the margin or the limits are unreadable, test values at equal time are requested, trials saw different data, predictions
            are needed and not stored, or a file is damaged.
    """
    storage = studies.open_study(root, study)
    rule = get_selection(selection)
    if equal is not None:
        names.check_known("equal", equal, EQUAL)
        _check_equal_time(split=split, selection=selection, recomputed=shots is not None or bin_width is not None)
    info, outcome = plan_due_seeds(storage, studies.read_study(storage))
    names.check_known("split", split, names.EVALUATED_SPLITS)
    for region in regions:
        names.check_known("region", region, REGIONS)
    runs = read_study_runs(storage, info, rule)
    # A study without a reference has a table without differences.
    if reference:
        names.check_known("arm", reference, [arm.arm for arm in runs.arms])
    if not mix_data and len(runs.fingerprints) > 1:
        text = (
            "trials saw different data, and one table must not mix them unasked; "
            f"data fingerprints: {', '.join(runs.fingerprints)}"
        )
        raise InputError(Fault(where=f"study {study}", rule=text))
    claim = make_claim(info, runs.metrics)
    metrics = [check_metric(runs.metrics, each) for each in metrics or (claim.metric,)]
    asked = {
        "reference": None if reference in {None, info.reference} else reference,
        "shots": shots,
        "bin width": None if bin_width is None else f"{bin_width:g}",
    }
    judged = choose_column(claim, metrics=metrics, regions=regions, margin=margin, others=asked)
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
        reference=reference or info.reference,
        claim=judged,
        margin_requested=margin,
        samples={},
        is_searched_once=any(info.spaces.values()) and info.searches == 1,
        repetition=info.repetition,
        # Without a study file, the seeds are those of the records.
        seeds=info.seeds or tuple(sorted({seed for arm in runs.arms for seed in arm.tried})),
        rows=(),
        arms=tuple(arm.arm for arm in runs.arms),
        data=info.data,
        fingerprints=runs.fingerprints,
        presets=info.presets,
        orphans=runs.orphans,
        sequential=outcome,
        shots=shots,
        bin_width=bin_width,
        has_costs=cost,
        is_at_equal_time=equal is not None,
    )
    tables = _fill_tables(root, storage, template, metrics, runs, info)
    if cost:
        if template.reference is None:
            raise InputError(Fault(where="cost", rule="is a multiple of a reference arm's; give --reference"))
        costs = compute_costs(runs.arms, template.reference, read_training_times(storage))
        tables = tuple(
            replace(table, rows=tuple(replace(row, cost=costs.get(row.arm)) for row in table.rows)) for table in tables
        )
    convergence = _judge_trials(storage, info, runs)
    return tuple(_add_soundness(root, table, storage, info, convergence) for table in tables)


def _check_equal_time(*, split: str, selection: str, recomputed: bool) -> None:
    """Raise if values at equal time are not in the records."""
    rule = "needs the values of every epoch, which are recorded"
    if split != "val":
        raise InputError(Fault(where="equal time", rule=f"{rule} for the val split alone; use --split val", got=split))
    if selection != "best_val" or recomputed:
        raise InputError(Fault(where="equal time", rule=f"{rule} for the recorded regions and selection best_val"))


def _judge_trials(storage: Storage, info: studies.StudyInfo, runs: StudyRuns) -> Unconverged | None:
    """Return those of the chosen trials that have not converged or cannot be judged; None if that is not known."""
    try:
        return judge_trials(storage, [one.trial_id for arm in runs.arms for one in arm.chosen.values()], info)
    except InputError:
        # A table is possible without learning curves; `dirtune check` reports the damaged file.
        return None


def _add_soundness(
    root: str | Path, table: ArmTable, storage: Storage, info: studies.StudyInfo, judged: Unconverged | None
) -> ArmTable:
    """Return the table with its floors, and with caveats at its words."""
    definition = None
    if table.shots is not None or table.bin_width is not None:
        from dirtune.results.tables.shot_rules import RegionDefinition

        definition = RegionDefinition.parse(root, table.study, shots=table.shots, bin_width=table.bin_width)
    floors = make_floor_rows(
        storage, info, metric=table.metric, split=table.split, regions=table.regions, definition=definition
    )
    region = table.claim.region
    unsound = judged or Unconverged()
    trials = {row.arm: [one.trial_id for one in row.chosen.values()] for row in table.rows}
    unbeaten = {row.arm: find_unbeaten(row.cells[region].mean, region, table.metric, floors) for row in table.rows}
    base = next((row for row in table.rows if row.arm == table.reference), None)
    rows = []
    for row in table.rows:
        cell = row.cells[region]
        if cell.verdict is not None and base is not None:
            both = trials[row.arm] + trials[base.arm]
            caveats = describe_caveats(
                unbeaten[row.arm],
                unbeaten[base.arm],
                late=len(unsound.late.intersection(both)),
                short=len(unsound.short.intersection(both)),
                trials=len(both),
            )
            cell = replace(cell, verdict=replace(cell.verdict, caveats=caveats))
        rows.append(replace(row, cells={**row.cells, region: cell}))
    cautions = describe_cautions(unbeaten, trials, unsound, table.metric, region)
    if judged is None:
        cautions += (f"Convergence is not judged here: dirtune check {table.study}.",)
    return replace(table, rows=tuple(rows), floors=floors, cautions=cautions)


def _fill_tables(
    root: str | Path,
    storage: Storage,
    template: ArmTable,
    metrics: Sequence[str],
    runs: StudyRuns,
    info: studies.StudyInfo,
) -> tuple[ArmTable, ...]:
    """Return one table per metric, from the recorded values or, where these do not do, from the stored predictions."""
    definition, transfers = None, tuple(info.transfers)
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
            # Filtered once by metric and split, which is most of the work.
            recorded = filter_rows(runs.metrics, metric=metric, split=template.split)
            epochs = {one.epoch for arm in runs.arms for one in arm.chosen.values()} or {names.EVALUATED_EPOCHS[0]}
            key = {"metric": metric, "split": template.split}
            values = {
                (region, epoch): get_values_by_trial(recorded, region=region, selection=epoch, **key)
                for region in template.regions
                for epoch in sorted(epochs)
            }
            if template.is_at_equal_time:
                values = _read_values_at_equal_time(storage, template, metric, runs, info)
        else:
            trials = {one.trial_id for arm in runs.arms for one in arm.chosen.values()}
            values = definition.compute_values(metric, template.split, trials)
        is_repeated = template.repetition is not None
        rows = [_make_row(arm, metric, values, template.regions, is_repeated=is_repeated) for arm in runs.arms]
        samples = count_samples(runs.metrics, metric=metric, split=template.split)
        tables.append(replace(template, metric=metric, rows=tuple(rows), samples=samples))
    if not any(row.arm == template.reference for row in tables[0].rows) or len(template.arms) < 2:
        return tuple(tables)
    # Read once for all metrics and regions.
    if template.repetition == "splits":
        return tuple(_compare_rows(_add_overlap(table, storage, runs, definition), "", transfers) for table in tables)
    found = _read_predictions(storage, template, runs, definition)
    return tuple(_compare_rows(table, found, transfers) for table in tables)


def _read_values_at_equal_time(
    storage: Storage, template: ArmTable, metric: str, runs: StudyRuns, info: studies.StudyInfo
) -> Values:
    """Return a metric by region and epoch, and by trial, at the best epochs within equal training time."""
    by_name = {f"val/{region}/{metric}": region for region in template.regions}
    found = read_values_at_equal_time(
        storage,
        find_last_epochs(runs.arms, read_training_times(storage)),
        objective=f"val/{info.region}/{info.metric}",
        maximize=info.metric in HIGHER_IS_BETTER,
        names=by_name,
    )
    return {(region, names.EVALUATED_EPOCHS[0]): found[name] for name, region in by_name.items()}


def _add_overlap(table: ArmTable, storage: Storage, runs: StudyRuns, definition: RegionDefinition | None) -> ArmTable:
    """Return the table of a study with several splits with the share of their common test samples."""
    from dirtune.results.analysis.recompute import read_split_overlap

    trials = {get_repetition(seed): chosen.trial_id for arm in runs.arms for seed, chosen in sorted(arm.chosen.items())}
    try:
        overlap = read_split_overlap(
            storage,
            list(trials.values()),
            split=table.split,
            rule=None if definition is None else definition.rule,
            bin_width=table.bin_width,
        )
    except InputError as error:
        return replace(table, no_predictions=_format_faults(error, storage))
    return replace(table, overlap=overlap)


def _format_faults(error: InputError, storage: Storage) -> str:
    return "; ".join(str(fault).replace(f"{storage.path()}/", "") for fault in error.faults)


def _check_epochs(template: ArmTable, runs: StudyRuns) -> None:
    """Raise if the selection has chosen an epoch whose predictions are not stored."""
    if any(one.epoch != names.PREDICTED_EPOCH for arm in runs.arms for one in arm.chosen.values()):
        rule = f"has chosen another epoch than {names.PREDICTED_EPOCH}, the only one whose predictions are stored"
        raise InputError(Fault(where="selection", rule=rule, got=template.selection))


def _read_predictions(
    storage: Storage, template: ArmTable, runs: StudyRuns, definition: RegionDefinition | None
) -> SamplePredictions | str:
    """Return the predictions of the chosen trials, or why they cannot be used."""
    from dirtune.results.analysis.recompute import read_sample_predictions
    from dirtune.results.analysis.sample_parts import select_seeds

    try:
        _check_epochs(template, runs)
        return read_sample_predictions(
            storage,
            {
                arm.chosen[seed].trial_id
                for arm in runs.arms
                for seed in select_seeds(arm.chosen, is_repeated=template.repetition is not None)
            },
            split=template.split,
            rule=None if definition is None else definition.rule,
            bin_width=template.bin_width,
        )
    except InputError as error:
        # A table is possible without: it then has no words.
        return _format_faults(error, storage)


def _make_row(
    arm: ArmRuns, metric: str, values: Values, regions: Sequence[str], *, is_repeated: bool = False
) -> ArmRow:
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
        cells[region] = Cell(
            values=found,
            mean=mean(found.values()),
            sd=compute_sd(found.values()),
            n=len(found),
            is_repeated=is_repeated,
        )
    return ArmRow(
        arm=arm.arm,
        levels=arm.levels,
        cells=cells,
        chosen=arm.chosen,
        tried=arm.tried,
        searched=arm.searched,
        search_trials=arm.search_trials,
        planned=arm.planned,
        unfinished=arm.unfinished,
        missing=tuple(missing),
    )


def _compare_rows(table: ArmTable, predictions: SamplePredictions | str, transfers: Collection[str]) -> ArmTable:
    """Return the table with its differences to the reference arm, and the words of the claim's column.

    Args:
        table: with rows that have values only.
        predictions: or why there are none; with several splits, whose tests need none, an empty text.
        transfers: arms with the settings that the reference's search has selected.
    """
    base = next(row for row in table.rows if row.arm == table.reference)
    others = [row for row in table.rows if row is not base]
    table, parts = _add_samples(table, predictions)
    # With predictions, but without their parts in the metric
    unknown = "" if parts is None else table.no_predictions
    cells: dict[str, dict[str, Cell]] = {row.arm: {} for row in others}
    for region, level in base.cells.items():
        columns = {}
        for row in others:
            seeds = sorted(row.cells[region].values.keys() & level.values.keys())
            ours, theirs = ({seed: each.chosen[seed].trial_id for seed in seeds} for each in (row, base))
            columns[row.arm] = ColumnArm(
                values=row.cells[region].values,
                parts=None if parts is None else parts.compute_difference(ours, theirs, region),
                configurations=base.configurations if row.arm in transfers else row.configurations,
            )
        reference = ColumnArm(values=level.values, parts=None, configurations=base.configurations)
        for arm, found in _judge_column(table, region, columns, reference, unknown=unknown).items():
            paired = level.values.keys() & columns[arm].values.keys()
            reference_mean = mean(level.values[seed] for seed in sorted(paired))
            row = next(each for each in others if each.arm == arm)
            cells[arm][region] = replace(row.cells[region], reference_mean=reference_mean, **vars(found))
    return replace(table, rows=tuple(replace(row, cells=cells.get(row.arm, row.cells)) for row in table.rows))


def _add_samples(table: ArmTable, predictions: SamplePredictions | str) -> tuple[ArmTable, SampleParts | None]:
    """Return the table with the facts on its samples, and their parts, if predictions can be used."""
    if isinstance(predictions, str):
        return replace(table, no_predictions=table.no_predictions or predictions), None
    from dirtune.results.analysis.sample_parts import SampleParts

    parts = SampleParts(table.metric, predictions, table.repetition is not None)
    regions = predictions.regions
    table = replace(
        table,
        no_predictions="" if parts.is_known else f"the part of each test sample in {table.metric} is not known",
        group="" if predictions.groups is None else predictions.group,
        samples={region: int(np.count_nonzero(regions[region])) for region in REGIONS},
    )
    return table, parts


def _judge_column(
    table: ArmTable, region: str, columns: Mapping[str, ColumnArm], reference: ColumnArm, *, unknown: str
) -> dict[str, ArmVerdict]:
    """Compare the arms of a column, with words if it is the claim's.

    Args:
        table: the table.
        region: of the column.
        columns: the arms in it.
        reference: the reference arm in it.
        unknown: why the parts of test samples are not known; empty if they are, or if there are no predictions.
    """
    claim = table.claim
    repeated = None
    if table.repetition is not None:
        repeated = Repeated(unit=table.repetition, overlap=table.overlap.get(region, math.nan))
    is_claim = (table.metric, region) == (claim.metric, claim.region)
    if not is_claim or (reason := _find_bias(table)):
        found = compare_arms(columns, reference, repeated)
        return {arm: replace(each, no_word=reason) for arm, each in found.items()} if is_claim else found
    found = judge_arms(columns, reference, claim=claim, sequential=table.sequential, repeated=repeated)
    return {
        arm: replace(each, no_word=unknown) if unknown and each.no_word == NO_PREDICTIONS else each
        for arm, each in found.items()
    }


def _find_bias(table: ArmTable) -> str:
    """Return why the tests of a table would not keep their level; empty if they do."""
    if table.split != "test":
        return "the models were chosen on these data; words are about test data"
    if table.selection == "oracle":
        return "the models were chosen on the test data"
    if table.repetition == "splits" and table.no_predictions:
        return table.no_predictions
    # Seeds that were added by looks at one column cannot be tested in another as if they were fixed.
    if table.sequential is not None and table.claim.chosen_after:
        return "seeds were added by looks at the study's claim"
    return ""
