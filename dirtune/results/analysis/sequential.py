"""State of the comparisons of a sequential study, read from its records: decisions, and seeds that are due.

A study with `sequential` in its file trains further seeds of the arms whose comparison with the reference is open over the
seeds (`dirtune.results.statistics.sequential`). None of it is stored: it follows from `study.json` and the test metrics, so
that a sweep that was killed at any moment resumes with the same seeds, and a table agrees with the sweep.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.arms import METRIC_COLUMNS, get_values_by_trial
from dirtune.results.records import parquetfile, store, studies
from dirtune.results.statistics.margin import Margin
from dirtune.results.statistics.sequential import ComparisonState, LookSchedule, run_looks

Values = Mapping[str, Mapping[int, float]]
"""The compared test metric by arm and seed."""


@dataclass(frozen=True, kw_only=True)
class SequentialRule:
    """Comparisons of a sequential study, and the schedule of its looks."""

    arms: tuple[str, ...]
    reference: str
    seeds: tuple[int, ...]
    """In the order in which they are used."""
    first: int
    """Seeds of the first look."""
    step: int
    metric: str
    region: str
    margin: Margin | None
    """None: no comparison ends because it is small."""

    @property
    def looks(self) -> LookSchedule:
        return LookSchedule(first=self.first, step=self.step, most=len(self.seeds), comparisons=len(self.arms) - 1)


@dataclass(frozen=True, kw_only=True)
class SequentialSummary:
    """How seeds are added, and the state of every arm."""

    rule: SequentialRule
    values: Values
    states: Mapping[str, ComparisonState]

    def __str__(self) -> str:
        rule = self.rule
        margin = "" if rule.margin is None else f", margin {rule.margin}"
        return (
            f"{rule.metric} in region {rule.region} against {rule.reference}, looked at after {rule.looks.sizes[0]} seeds and every "
            f"{rule.step} more up to {len(rule.seeds)}{margin}"
        )

    def describe_states(self) -> dict[str, str]:
        """Return why each arm's seeds have ended, or what they wait for."""
        return {arm: describe_state(state, len(self.rule.seeds)) for arm, state in self.states.items()}


def make_sequential_rule(info: studies.StudyInfo) -> SequentialRule | None:
    """Return the rule of a study; None if its seeds are fixed."""
    raw = info.sequential
    if not raw or info.reference is None:
        return None
    return SequentialRule(
        arms=info.arms,
        reference=info.reference,
        seeds=tuple(raw["seeds"]),
        first=len(info.seeds),
        step=raw["step"],
        metric=raw["metric"],
        region=raw["region"],
        margin=None if raw["margin"] is None else Margin.parse(str(raw["margin"]), metric=raw["metric"]),
    )


def compute_states(rule: SequentialRule, values: Values) -> dict[str, ComparisonState]:
    """Return the state of the comparison of every arm with the reference."""
    return {
        arm: run_looks(
            values.get(arm, {}),
            values.get(rule.reference, {}),
            seeds=rule.seeds,
            looks=rule.looks,
            margin=rule.margin,
            higher_is_better=rule.metric in HIGHER_IS_BETTER,
        )
        for arm in rule.arms
        if arm != rule.reference
    }


def list_due_seeds(rule: SequentialRule, values: Values) -> dict[str, tuple[int, ...]]:
    """Return the seeds that every arm needs, recorded or not: up to its last look or the next one.

    The reference needs those of the arm with the most.
    """
    states = compute_states(rule, values)
    # A comparison that has ended keeps the seeds of its last look: more would be a look for which no level is left.
    counts = {arm: state.needed or state.seeds for arm, state in states.items()}
    # Every arm is paired with the reference, seed by seed.
    counts[rule.reference] = max(counts.values())
    return {arm: rule.seeds[: counts[arm]] for arm in rule.arms}


def read_values(storage: Storage, rule: SequentialRule) -> dict[str, dict[int, float]]:
    """Return the compared values of all recorded trials of a study, by arm and seed."""
    wanted = {"trials": ("arm", "seed", "status"), "metrics": METRIC_COLUMNS}
    tables = store.read_tables(storage, wanted, encode=True)
    trials, by_trial = tables["trials"].to_pylist(), _get_values(tables["metrics"], rule)
    found: dict[str, dict[int, float]] = {}
    for trial in trials:
        value = by_trial.get(trial["trial_id"])
        if trial["status"] == "complete" and value is not None:
            found.setdefault(trial["arm"], {})[trial["seed"]] = value
    return found


def read_value(storage: Storage, rule: SequentialRule, trial_id: str) -> float | None:
    """Return the compared value of a trial that was recorded just now; None where it is undefined."""
    (metrics,) = parquetfile.read_files(storage, [f"results/metrics/{trial_id}.parquet"])
    return _get_values(metrics, rule).get(trial_id)


def plan_due_seeds(storage: Storage, info: studies.StudyInfo) -> tuple[studies.StudyInfo, SequentialSummary | None]:
    """Return the study with the seeds that its records make due as planned ones, and a summary of its comparisons.

    A study with fixed seeds is returned unchanged, with None.
    """
    rule = make_sequential_rule(info)
    if rule is None:
        return info, None
    values = read_values(storage, rule)
    due = list_due_seeds(rule, values)
    planned = replace(
        info,
        seeds=due[rule.reference],
        plans={arm: studies.ArmPlan(seeds=seeds, trials=len(seeds)) for arm, seeds in due.items()},
    )
    return planned, SequentialSummary(rule=rule, values=values, states=compute_states(rule, values))


def describe_state(state: ComparisonState, most: int) -> str:
    """Return the state of a comparison, and why its seeds have ended, as text; the word is the table's."""
    if state.needed is not None:
        looked = f"open after {state.seeds}" if state.seeds else "not looked at yet"
        return f"{looked}, waits for {state.needed} seeds"
    if state.decision == "open":
        return f"all {most} seeds are used up"
    return f"stopped after {state.seeds} seeds"


def _get_values(metrics: pa.Table, rule: SequentialRule) -> dict[str, float | None]:
    return get_values_by_trial(metrics, metric=rule.metric, region=rule.region, split="test", selection="best_val")
