"""Where the comparisons of a sequential study stand, read from its records: what is decided, and which seeds are due.

A study with `sequential` in its file trains further seeds of the arms whose comparison with the reference is undecided
(`dirtune.results.statistics.sequential`). Nothing about it is stored: it follows from `study.json` and the test metrics, so
that a sweep that was killed at any moment goes on with the same seeds, and a table says what the sweep has seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa

from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.results.analysis.arms import METRIC_COLUMNS, values_by_trial
from dirtune.results.records.parquetfile import read_files
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import Plan, StudyInfo
from dirtune.results.statistics.sequential import Looks, Standing, sequence

Values = Mapping[str, Mapping[int, float]]
"""The compared test metric by arm and seed."""

Outcome = tuple[str, Mapping[str, str]]
"""How seeds are added, and where every arm stands, in words."""


@dataclass(frozen=True, kw_only=True)
class SequentialRule:
    """What is compared, and when is looked."""

    arms: tuple[str, ...]
    reference: str
    seeds: tuple[int, ...]
    """In the order in which they are used."""
    first: int
    """Seeds of the first look."""
    step: int
    metric: str
    region: str
    margin: float
    """Share of the reference's mean."""

    @property
    def looks(self) -> Looks:
        return Looks(first=self.first, step=self.step, most=len(self.seeds), comparisons=len(self.arms) - 1)


def rule_of(info: StudyInfo) -> SequentialRule | None:
    """The rule of a study; none if its seeds are fixed."""
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
        margin=raw["margin"],
    )


def standings(rule: SequentialRule, values: Values) -> dict[str, Standing]:
    """Where the comparison of every arm but the reference stands."""
    return {
        arm: sequence(
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


def seeds_due(rule: SequentialRule, values: Values) -> dict[str, tuple[int, ...]]:
    """The seeds that every arm needs, recorded or not: up to its last look or the next one, the reference with the longest."""
    found = standings(rule, values)
    counts = {arm: standing.needed or standing.seeds for arm, standing in found.items()}
    counts[rule.reference] = max(counts.values())
    return {arm: rule.seeds[: counts[arm]] for arm in rule.arms}


def recorded_values(storage: Storage, rule: SequentialRule) -> dict[str, dict[int, float]]:
    """The compared values of all recorded trials of a study."""
    trials = read_table(storage, "trials", columns=("arm", "seed", "status")).to_pylist()
    by_trial = _values(read_table(storage, "metrics", columns=METRIC_COLUMNS), rule)
    found: dict[str, dict[int, float]] = {}
    for trial in trials:
        value = by_trial.get(trial["trial_id"])
        if trial["status"] == "complete" and value is not None:
            found.setdefault(trial["arm"], {})[trial["seed"]] = value
    return found


def recorded_value(storage: Storage, rule: SequentialRule, trial_id: str) -> float | None:
    """The compared value of a trial that was recorded just now; None where it is undefined."""
    (metrics,) = read_files(storage, [f"results/metrics/{trial_id}.parquet"])
    return _values(metrics, rule).get(trial_id)


def with_seeds_due(storage: Storage, info: StudyInfo) -> tuple[StudyInfo, Outcome | None]:
    """The study with the seeds that its records make due as planned ones, and how it stands; as it is if they are fixed."""
    rule = rule_of(info)
    if rule is None:
        return info, None
    values = recorded_values(storage, rule)
    due = seeds_due(rule, values)
    planned = replace(
        info, seeds=due[rule.reference], plans={arm: Plan(seeds=seeds, trials=len(seeds)) for arm, seeds in due.items()}
    )
    return planned, outcome(rule, values)


def outcome(rule: SequentialRule, values: Values) -> Outcome:
    """How seeds are added in a study, and where every arm stands."""
    most = len(rule.seeds)
    said = (
        f"{rule.metric} in region {rule.region} against {rule.reference}, looked at after {rule.first} seeds and every "
        f"{rule.step} more up to {most}, margin {100 * rule.margin:g} %, levels spent over looks and arms"
    )
    found = standings(rule, values)
    return said, {arm: said_of(standing, most) for arm, standing in found.items()}


def said_of(standing: Standing, most: int) -> str:
    """Where a comparison stands and why its seeds have ended, in words."""
    if standing.needed is not None:
        looked = f"undecided after {standing.seeds}" if standing.seeds else "not looked at yet"
        return f"{looked}, waits for {standing.needed} seeds"
    if standing.decision == "undecided":
        return f"undecided, all {most} seeds are used up"
    return f"{standing.decision}, decided after {standing.seeds} seeds"


def _values(metrics: pa.Table, rule: SequentialRule) -> dict[str, float | None]:
    return values_by_trial(metrics, metric=rule.metric, region=rule.region, split="test", selection="best_val")
