"""What a study has of each arm: the model chosen for every seed, how many were tried, and the holes.

Tables and figures start from here. An arm's trials are those that `study.json` plans for it, by `trial_id`; a searched
arm plans none by name and has all that were recorded for it. If what a search has selected is then trained on the study's
seeds, those trials alone are the arm's, and the trials of the search are only counted. What the present plan does not know (a study that was
changed leaves such trials) is counted and left out. A seed without a complete trial is a hole with a reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.selection import Candidate, Selection, as_loss
from dirtune.results.records.names import EVALUATED_EPOCHS
from dirtune.results.records.store import read_tables
from dirtune.results.records.studies import ArmPlan, StudyInfo

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
METRIC_COLUMNS = ("split", "selection", "region", "metric", "value")
# Characters of an error that a table has room for
LONGEST_REASON = 100


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """The part of a row of `trials` that tables need, in the order of `TRIAL_COLUMNS`."""

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
    def is_of_search(self) -> bool:
        """It only helped to select a configuration, which other trials have then been trained with."""
        return self.role == "search"


@dataclass(frozen=True, kw_only=True)
class Hole:
    """A value that should be there and is not."""

    arm: str
    seed: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """One arm."""

    arm: str
    levels: Mapping[str, object]
    """Its values on the axes; none if it has none or nothing is recorded."""
    chosen: Mapping[int, Candidate]
    """By seed."""
    tried: Mapping[int, int]
    """Recorded configurations by seed."""
    searched: int
    """Recorded configurations of a search whose selection was then trained on the seeds."""
    planned: int | None
    """Trials in all, if the study says."""
    unfinished: Mapping[str, int]
    """Number of trials by status, the complete ones aside."""
    holes: tuple[Hole, ...]


@dataclass(frozen=True, kw_only=True)
class StudyRuns:
    """All arms, in the order of the study."""

    arms: tuple[ArmRuns, ...]
    metrics: pa.Table
    """Of the whole study."""
    fingerprints: tuple[str, ...]
    """Of the data that the trials saw."""
    orphans: int
    """Recorded trials that the present plan does not know."""


def study_runs(storage: Storage, info: StudyInfo, rule: Selection) -> StudyRuns:
    """Choose one model for every arm and seed.

    Raises:
        InputError: a file is damaged.
    """
    found = read_tables(storage, {"trials": TRIAL_COLUMNS, "metrics": METRIC_COLUMNS})
    trials, metrics = trial_rows(found["trials"]), found["metrics"]
    candidates = _candidates(trials, metrics, info)
    members = members_of_arms(trials, info)
    used = {trial.trial_id: trial for rows in members.values() for trial in rows}
    searches = searches_of_arms(trials, info)
    return StudyRuns(
        arms=tuple(_arm_runs(arm, rows, searches[arm], info, candidates, rule) for arm, rows in members.items()),
        metrics=metrics,
        fingerprints=tuple(sorted({t.data_fingerprint for t in used.values() if t.data_fingerprint})),
        orphans=len(trials) - len(used) - sum(map(len, searches.values())),
    )


def trial_rows(trials: pa.Table) -> list[TrialRow]:
    """The rows of the table `trials`."""
    # Of settings only those that some trial has
    known = set(trials.column_names)
    columns = [trials[name].to_pylist() if name in known else [None] * len(trials) for name in TRIAL_COLUMNS]
    names = [each.name for each in fields(TrialRow)]
    return [TrialRow(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def members_of_arms(trials: Sequence[TrialRow], info: StudyInfo) -> dict[str, list[TrialRow]]:
    """The trials of every arm, the arms in the order of the study, or of their names if it does not say."""
    return {arm: _members(trials, info, arm) for arm in _arms(trials, info)}


def searches_of_arms(trials: Sequence[TrialRow], info: StudyInfo) -> dict[str, list[TrialRow]]:
    """Of every arm, the trials of a search whose selection is trained on the study's seeds: they stand for no arm."""
    return {arm: [trial for trial in trials if trial.is_of_search and trial.arm == arm] for arm in _arms(trials, info)}


def arms_named(patterns: Sequence[str], known: Sequence[str]) -> list[str]:
    """The known arms that names or patterns (`conr*`) ask for, in the order asked; none asked: all.

    A text that is the name of an arm means that arm alone, whatever characters it has.
    """
    found = [
        arm
        for pattern in patterns or ("*",)
        for arm in ([pattern] if pattern in known else known)
        if arm == pattern or fnmatchcase(arm, pattern)
    ]
    return list(dict.fromkeys(found))


def known_metric(metrics: pa.Table, metric: str) -> str:
    """The name of a metric, if any trial has it, or if there is none yet.

    Raises:
        InputError: trials have metrics, and this is none of them.
    """
    known = pc.unique(metrics["metric"]).to_pylist()
    if known and metric not in known:
        raise InputError(Fault(where="metric", rule="unknown metric", got=metric, known=known))
    return metric


def values_by_trial(
    metrics: pa.Table, *, metric: str, region: str, split: str, selection: str
) -> dict[str, float | None]:
    """One number per trial out of the long table; None where it is undefined."""
    metrics = narrowed(metrics, metric=metric, region=region, split=split, selection=selection)
    return dict(zip(metrics["trial_id"].to_pylist(), metrics["value"].to_pylist(), strict=True))


def narrowed(metrics: pa.Table, **conditions: str) -> pa.Table:
    """The rows of the long table whose columns have these values."""
    for column, value in conditions.items():
        # Making an Arrow scalar of a Python text imports pandas, 0.3 s; the column's own values are scalars already.
        known = pc.unique(metrics[column])
        own = next((each for each in known if each.as_py() == value), None)
        if own is None:
            return metrics.slice(0, 0)
        # Else all rows have it
        if len(known) > 1:
            metrics = metrics.filter(pc.equal(metrics[column], own))
    return metrics


def _candidates(trials: Sequence[TrialRow], metrics: pa.Table, info: StudyInfo) -> dict[str, list[Candidate]]:
    """The models that each complete trial offers."""
    metrics = narrowed(metrics, metric=info.metric, region=info.region)

    def values(split: str, epoch: str) -> dict[str, float | None]:
        return values_by_trial(metrics, metric=info.metric, region=info.region, split=split, selection=epoch)

    objectives = {trial.trial_id: trial.objective for trial in trials}
    validation = {"best_val": objectives, "last": values("val", "last")}
    test = {epoch: values("test", epoch) for epoch in EVALUATED_EPOCHS}
    return {
        trial.trial_id: [
            Candidate(
                trial_id=trial.trial_id,
                epoch=epoch,
                validation=as_loss(validation[epoch].get(trial.trial_id), info.metric),
                test=as_loss(test[epoch].get(trial.trial_id), info.metric),
            )
            for epoch in EVALUATED_EPOCHS
        ]
        for trial in trials
        if trial.status == "complete"
    }


def _arms(trials: Sequence[TrialRow], info: StudyInfo) -> list[str]:
    return list(info.arms) or sorted({trial.arm for trial in trials})


def _members(trials: Sequence[TrialRow], info: StudyInfo, arm: str) -> list[TrialRow]:
    planned = info.plans[arm].trial_ids if arm in info.plans else None
    if planned:
        return [trial for trial in trials if trial.trial_id in planned]
    return [trial for trial in trials if trial.arm == arm and not trial.is_of_search]


def _arm_runs(
    arm: str,
    trials: Sequence[TrialRow],
    search: Sequence[TrialRow],
    info: StudyInfo,
    candidates: Mapping[str, Sequence[Candidate]],
    rule: Selection,
) -> ArmRuns:
    plan = info.plans.get(arm, ArmPlan(seeds=info.seeds))
    by_seed: dict[int, list[TrialRow]] = {seed: [] for seed in plan.seeds}
    for trial in trials:
        by_seed.setdefault(trial.seed, []).append(trial)
    chosen: dict[int, Candidate] = {}
    holes: list[Hole] = []
    for seed, rows in sorted(by_seed.items()):
        offered = [c for trial in rows for c in candidates.get(trial.trial_id, ())]
        if offered:
            chosen[seed] = rule.choose(offered)
        else:
            holes.append(Hole(arm=arm, seed=seed, reason=_reason(rows)))
    return ArmRuns(
        arm=arm,
        levels=_levels(arm, trials),
        chosen=chosen,
        tried={seed: len(rows) for seed, rows in sorted(by_seed.items())},
        searched=len(search),
        planned=plan.trials,
        unfinished=Counter(t.status for t in (*trials, *search) if t.status != "complete"),
        holes=tuple(holes),
    )


def _levels(arm: str, trials: Sequence[TrialRow]) -> dict[str, object]:
    # A trial that another arm has recorded carries that arm's cell.
    cells = (trial.cell for trial in trials if trial.arm == arm and trial.cell)
    levels: dict[str, object] = json.loads(next(cells, "{}"))
    return levels


def _reason(trials: Sequence[TrialRow]) -> str:
    if not trials:
        return "not recorded"
    if len(trials) > 1:
        counts = Counter(trial.status for trial in trials)
        return "none complete: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
    error = (trials[0].error or "").strip().split("\n")[0]
    reason = f"{trials[0].status}: {error}" if error else trials[0].status
    return reason if len(reason) <= LONGEST_REASON else reason[: LONGEST_REASON - 3] + "..."
