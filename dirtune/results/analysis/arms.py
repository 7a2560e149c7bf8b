"""Runs of each arm of a study: the model chosen for every seed, the number of configurations, and missing values.

Tables and figures start from here. An arm's trials are those that `study.json` plans for it, by `trial_id`; a searched
arm plans none by name and has all that were recorded for it. If the selected configuration of a search is then trained on
the study's seeds, those trials alone are the arm's, and the trials of the search are only counted. Trials that the present
plan does not have (a study that was changed leaves such orphans) are counted and left out. A seed without a complete trial
is missing, with a reason.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.selection import Candidate, Selection, to_loss
from dirtune.results.records import store, studies
from dirtune.results.records.names import EVALUATED_EPOCHS

TRIAL_COLUMNS = (
    "trial_id",
    "arm",
    "cell",
    "role",
    "seed",
    "status",
    "error",
    "objective",
    "data_fingerprint",
)
METRIC_COLUMNS = ("split", "selection", "region", "metric", "value", "n")
LONGEST_REASON = 100
"""Characters of an error that are shown in a table."""


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """Columns of a row of `trials` that tables need, in the order of `TRIAL_COLUMNS`."""

    trial_id: str
    arm: str
    cell: str | None
    role: str | None
    seed: int
    status: str
    error: str | None
    objective: float | None
    data_fingerprint: str | None

    @property
    def is_search(self) -> bool:
        """True if it only helped to select a configuration, which other trials have then been trained with."""
        return self.role == "search"


@dataclass(frozen=True, kw_only=True)
class MissingValue:
    """A value of an arm and seed that is missing or undefined."""

    arm: str
    seed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """Runs of one arm."""

    arm: str
    levels: Mapping[str, object]
    """Its values on the study's axes; empty if it has none or nothing is recorded."""
    chosen: Mapping[int, Candidate]
    """By seed."""
    tried: Mapping[int, int]
    """Recorded configurations by seed."""
    searched: int
    """Recorded configurations of a search whose selection was then trained on the seeds; of several, of the largest."""
    search_trials: int
    """Recorded trials of all these searches."""
    planned: int | None
    """Number of planned trials; None if the study does not give it."""
    unfinished: Mapping[str, int]
    """Number of trials by status, without the complete ones."""
    missing: tuple[MissingValue, ...]


@dataclass(frozen=True, kw_only=True)
class StudyRuns:
    """Runs of all arms, in the order of the study."""

    arms: tuple[ArmRuns, ...]
    metrics: pa.Table
    """Of the whole study."""
    fingerprints: tuple[str, ...]
    """Of the data that the trials saw."""
    orphans: int
    """Recorded trials that the present plan does not have."""


def read_study_runs(storage: Storage, info: studies.StudyInfo, rule: Selection) -> StudyRuns:
    """Read the records of a study and choose one model for every arm and seed.

    Raises:
        InputError: a file is damaged.
    """
    # Both tables at one moment, so that a running sweep cannot add a trial to one of them alone.
    found = store.read_tables(storage, {"trials": TRIAL_COLUMNS, "metrics": METRIC_COLUMNS}, encode=True)
    trials, metrics = to_trial_rows(found["trials"]), found["metrics"]
    candidates = _make_candidates(trials, metrics, info)
    by_arm = list_arm_trials(trials, info)
    used = {trial.trial_id: trial for rows in by_arm.values() for trial in rows}
    searches = list_search_trials(trials, info)
    return StudyRuns(
        arms=tuple(_make_arm_runs(arm, rows, searches[arm], info, candidates, rule) for arm, rows in by_arm.items()),
        metrics=metrics,
        fingerprints=tuple(sorted({t.data_fingerprint for t in used.values() if t.data_fingerprint})),
        orphans=len(trials) - len(used) - sum(map(len, searches.values())),
    )


def to_trial_rows(trials: pa.Table) -> list[TrialRow]:
    """Return the rows of the table `trials`; a column that no trial has is None.

    Raises:
        InputError: a record lacks what no trial is without.
    """
    known = set(trials.column_names)
    columns = [trials[name].to_pylist() if name in known else [None] * len(trials) for name in TRIAL_COLUMNS]
    names = [each.name for each in fields(TrialRow)]
    rows = [TrialRow(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    if faults := [
        Fault(where=f"record of trial {row.trial_id}", key=name, rule="is missing")
        for row in rows
        for name in ("arm", "seed", "status")
        if getattr(row, name) is None
    ]:
        raise InputError(faults)
    return rows


def list_arm_trials(trials: Sequence[TrialRow], info: studies.StudyInfo) -> dict[str, list[TrialRow]]:
    """Return the trials of every arm, the arms in the order of the study, or of their names if it has no list."""
    by_arm = {}
    for arm in _list_arms(trials, info):
        # By identity: a run that two arms share is recorded once, with the name of the arm that ran it.
        planned = info.plans[arm].trial_ids if arm in info.plans else None
        if planned:
            by_arm[arm] = [trial for trial in trials if trial.trial_id in planned]
        else:
            by_arm[arm] = [trial for trial in trials if trial.arm == arm and not trial.is_search]
    return by_arm


def list_search_trials(trials: Sequence[TrialRow], info: studies.StudyInfo) -> dict[str, list[TrialRow]]:
    """Return the search trials of every arm whose selection is trained on the study's seeds; they are no runs of it."""
    return {
        arm: [trial for trial in trials if trial.is_search and trial.arm == arm] for arm in _list_arms(trials, info)
    }


def match_arms(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the known arms that match names or patterns (`conr*`), in their order; without patterns all.

    A text that is the name of an arm means that arm alone, whatever characters it has.
    """
    if not patterns:
        return list(known)
    # A name may contain brackets, which fnmatch would read as a set of characters.
    found = [
        arm
        for pattern in patterns
        for arm in ([pattern] if pattern in known else known)
        if arm == pattern or fnmatchcase(arm, pattern)
    ]
    return list(dict.fromkeys(found))


def expand_patterns(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the known arms that match names or patterns, or all without patterns.

    Raises:
        InputError: a pattern matches no arm; every such pattern is reported.
    """
    unknown = [pattern for pattern in patterns if not match_arms([pattern], known)]
    if unknown:
        raise InputError(Fault(where="arms", rule="unknown arm", got=pattern, known=known) for pattern in unknown)
    return match_arms(patterns, known)


def check_metric(metrics: pa.Table, metric: str) -> str:
    """Return the name of a metric if any trial has it, or if no metrics are recorded yet.

    Raises:
        InputError: trials have metrics, and this is none of them.
    """
    known = pc.unique(metrics["metric"]).to_pylist()
    # Before the first trial is recorded no name can be wrong: the table then has missing values alone.
    if known and metric not in known:
        raise InputError(Fault(where="metric", rule="unknown metric", got=metric, known=known))
    return metric


def get_values_by_trial(
    metrics: pa.Table, *, metric: str, region: str, split: str, selection: str
) -> dict[str, float | None]:
    """Return one number per trial of the table `metrics`; None where it is undefined."""
    metrics = filter_rows(metrics, metric=metric, region=region, split=split, selection=selection)
    return dict(zip(metrics["trial_id"].to_pylist(), metrics["value"].to_pylist(), strict=True))


def filter_rows(metrics: pa.Table, **conditions: str) -> pa.Table:
    """Return the rows of the table `metrics`, whose texts may be dictionaries, whose columns have these values."""
    for column, value in conditions.items():
        if pa.types.is_dictionary(metrics[column].type):
            encoded = metrics[column].combine_chunks()
            texts = encoded.dictionary.to_pylist()
            code = texts.index(value) if value in texts else -1
            metrics = metrics.filter(pc.equal(encoded.indices, pa.array([code], pa.int32())[0]))
            continue
        # Making an Arrow scalar of a Python text imports pandas, 0.3 s; the column's own values are scalars already.
        known = pc.unique(metrics[column])
        own = next((each for each in known if each.as_py() == value), None)
        if own is None:
            return metrics.slice(0, 0)
        # With one value all rows match.
        if len(known) > 1:
            metrics = metrics.filter(pc.equal(metrics[column], own))
    return metrics


def _make_candidates(
    trials: Sequence[TrialRow], metrics: pa.Table, info: studies.StudyInfo
) -> dict[str, list[Candidate]]:
    """Return the models that each complete trial offers."""
    metrics = filter_rows(metrics, metric=info.metric, region=info.region)

    def get_values(split: str, epoch: str) -> dict[str, float | None]:
        return get_values_by_trial(metrics, metric=info.metric, region=info.region, split=split, selection=epoch)

    objectives = {trial.trial_id: trial.objective for trial in trials}
    # The trials table has the objective of the best epoch only; that of the last is one of the metrics.
    validation = {"best_val": objectives, "last": get_values("val", "last")}
    test = {epoch: get_values("test", epoch) for epoch in EVALUATED_EPOCHS}
    return {
        trial.trial_id: [
            Candidate(
                trial_id=trial.trial_id,
                epoch=epoch,
                validation=to_loss(validation[epoch].get(trial.trial_id), info.metric),
                test=to_loss(test[epoch].get(trial.trial_id), info.metric),
            )
            for epoch in EVALUATED_EPOCHS
        ]
        for trial in trials
        if trial.status == "complete"
    }


def _list_arms(trials: Sequence[TrialRow], info: studies.StudyInfo) -> list[str]:
    return list(info.arms) or sorted({trial.arm for trial in trials})


def _make_arm_runs(
    arm: str,
    trials: Sequence[TrialRow],
    search: Sequence[TrialRow],
    info: studies.StudyInfo,
    candidates: Mapping[str, Sequence[Candidate]],
    rule: Selection,
) -> ArmRuns:
    """Choose a model for every seed of an arm."""
    # Without a study file, the seeds are those of the records.
    plan = info.plans.get(arm, studies.ArmPlan(seeds=info.seeds))
    by_seed: dict[int, list[TrialRow]] = {seed: [] for seed in plan.seeds}
    for trial in trials:
        by_seed.setdefault(trial.seed, []).append(trial)
    chosen: dict[int, Candidate] = {}
    missing: list[MissingValue] = []
    for seed, rows in sorted(by_seed.items()):
        offered = [c for trial in rows for c in candidates.get(trial.trial_id, ())]
        if offered:
            chosen[seed] = rule.choose(offered)
        else:
            missing.append(MissingValue(arm=arm, seed=seed, reason=_format_reason(rows)))
    # A trial that another arm has recorded carries that arm's cell.
    cells = (trial.cell for trial in trials if trial.arm == arm and trial.cell)
    return ArmRuns(
        arm=arm,
        levels=_read_levels(next(cells, "{}"), arm),
        chosen=chosen,
        tried={seed: len(rows) for seed, rows in sorted(by_seed.items())},
        # With several searches of the arm, the configurations of the largest; they have seeds of their own
        searched=max(Counter(trial.seed for trial in search).values(), default=0),
        search_trials=len(search),
        planned=plan.trials,
        unfinished=Counter(t.status for t in (*trials, *search) if t.status != "complete"),
        missing=tuple(missing),
    )


def _read_levels(cell: str, arm: str) -> dict[str, object]:
    """Return the values of an arm on the axes."""
    try:
        levels = json.loads(cell)
    except ValueError:
        levels = None
    if not isinstance(levels, dict):
        raise InputError(Fault(where=f"records of arm {arm!r}", key="cell", rule="must be a JSON object", got=cell))
    return levels


def _format_reason(trials: Sequence[TrialRow]) -> str:
    """Return why none of a seed's trials is complete."""
    if not trials:
        return "not recorded"
    if len(trials) > 1:
        counts = Counter(trial.status for trial in trials)
        return "no complete trial: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    # The first line of an error is its message; a table has no room for a trace.
    error = (trials[0].error or "").strip().split("\n")[0]
    reason = f"{trials[0].status}: {error}" if error else trials[0].status
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."
