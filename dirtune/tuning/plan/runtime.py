"""Run time of a study, from the time of a trial of every arm, recorded or probed, and the number of concurrent trials.

    a trial    seconds of an epoch (training, data, evaluation) * planned epochs + overhead; medians over recorded
    trials the study  start + the remaining trials in the order of their start, each on the first free slot GPU hours
    the sum over the trials * workers * share of a GPU

A recorded trial counts if it had the same data, encoder, batch size, views, kind of device and workers. Trials of the
same arm of this study are preferred to those of other studies below the results root. A pruned trial gives the time of
its epochs. Limitation: successive halving ends most trials early, so that the run time is an upper bound.
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from dirtune.errors import InputError
from dirtune.recipe import Recipe
from dirtune.results.records.store import flatten_config, read_table
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.wording import format_count

START_SECONDS, GROUP_START_SECONDS = 20.0, 45.0
"""Start and end of Ray and its workers, in-process and as a group, measured on two cores. More cores take less."""

_TIMES = ("epochs_run", "seconds_train", "seconds_eval", "seconds_data", "seconds_overhead")
_ADDED = (
    "recipe.precision",
    "recipe.channels_last",
    "recipe.accumulation",
    "recipe.compile",
    "recipe.steps_per_epoch",
    "recipe.batch_norm_groups",
)
"""Settings that older records lack."""
_SPEED = ("data.name", "model.encoder.", "recipe.batch_size", "recipe.views.count", *_ADDED)
"""Settings that determine the speed of a trial, or prefixes of their dotted paths."""

Row = Mapping[str, Any]


class TimeEstimate(NamedTuple):
    """Time of one trial, with its source."""

    seconds: float
    source: str
    """Such as "from 12 recorded trials of the arm"."""


@dataclass(frozen=True, kw_only=True)
class RuntimeForecast:
    """Run time of the remaining trials of a study."""

    trials: Mapping[str, TimeEstimate | None]
    """By arm; None if no speed is known."""
    left: Mapping[str, int]
    """Trials that are not recorded, by arm."""
    seconds: float | None
    """Until the last trial ends; None if the speed of some arm is not known."""
    gpu_hours: float | None
    is_bound: bool
    """True if trials may end early, by a scheduler or by their recipe."""


def forecast_runtime(
    study: ResolvedStudy, estimates: Mapping[str, TimeEstimate | None], *, left: Mapping[str, int], concurrent: int
) -> RuntimeForecast:
    """Return the run time of all remaining trials.

    Args:
        estimates: time of a trial, by arm.
        left: number of remaining trials, by arm.
        concurrent: number of concurrent trials.
    """
    need = study.resources
    # In the order of their start: fixed arms, then the searches, each in turn.
    times = [
        estimates[arm.name]
        for arms in (study.fixed_arms, study.searched_arms)
        for turn in range(max((left[arm.name] for arm in arms), default=0))
        for arm in arms
        if turn < left[arm.name]
    ]
    known = [estimate.seconds for estimate in times if estimate is not None]
    is_known = len(known) == len(times)
    # A group of workers is started once and stays for all trials.
    start = GROUP_START_SECONDS if need.workers > 1 else START_SECONDS
    return RuntimeForecast(
        trials=estimates,
        left=left,
        seconds=compute_makespan(known, concurrent) + (start if known else 0.0) if is_known else None,
        gpu_hours=sum(known) * need.workers * need.gpus / 3600 if is_known else None,
        is_bound=(bool(study.searched_arms) and study.search.scheduler is not None)
        or any(arm.config.recipe.early_stopping is not None for arm in study.arms),
    )


def compute_makespan(seconds: Iterable[float], slots: int) -> float:
    """Return the end of the last trial, if each starts in turn on the first free slot."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def estimate_from_records(study: ResolvedStudy, results: str | Path) -> dict[str, TimeEstimate | None]:
    """Return the time of a trial of every arm, from the records below the results root; damaged files are skipped."""
    need = study.resources
    rows = []
    for row in read_trial_rows(study, results):
        on_cpu = row["device"].startswith("cpu")
        # On a GPU the number of CPU threads hardly matters.
        has_threads = not on_cpu or row["device"] == f"cpu ({need.cores} threads)"
        if on_cpu != bool(need.gpus) and has_threads and row["workers"] == need.workers:
            rows.append(row)
    estimates: dict[str, TimeEstimate | None] = {}
    for arm in study.arms:
        similar, are_own = select_similar_trials(study, arm, rows)
        if not similar:
            estimates[arm.name] = None
            continue
        # Medians, since the first trial of a worker also pays for imports and warm-up.
        epoch = median(
            (row["seconds_train"] + row["seconds_eval"] + row["seconds_data"]) / row["epochs_run"] for row in similar
        )
        overhead = median(row["seconds_overhead"] for row in similar)
        trials = f"{format_count(len(similar), 'recorded trial')}"
        source = f"from {trials} of {'the arm' if are_own else 'the same data, encoder and batch'}"
        estimates[arm.name] = TimeEstimate(epoch * arm.config.epochs_planned + overhead, source)
    return estimates


def read_trial_rows(study: ResolvedStudy, results: str | Path, columns: Iterable[str] = ()) -> list[Row]:
    """Return all recorded trials below the results root that have trained an epoch.

    Args:
        columns: further columns of the trials table, in addition to those that `select_similar_trials` compares.
    """
    settings = {path for arm in study.arms for path in _get_speed_settings(arm)}
    wanted = ["study", "arm", "device", "workers", *_TIMES, *sorted(settings), *columns]
    try:
        table = read_table(results, "trials", columns=wanted, on_damaged=lambda fault: None)
    except InputError:
        # The results root has no study yet.
        return []
    return [row for row in table.to_pylist() if row["epochs_run"]]


def select_similar_trials(study: ResolvedStudy, arm: Arm, rows: Iterable[Row]) -> tuple[list[Row], bool]:
    """Return the trials of the arm itself, else those of equal speed settings; and True if they are the arm's own."""
    wanted = _get_speed_settings(arm)
    similar = []
    for row in rows:
        found = {path: row.get(path) for path in wanted}
        for path in _ADDED:
            # A record from before the option had its default.
            if found.get(column := f"config.{path}", 0) is None:
                found[column] = Recipe.model_fields[path.removeprefix("recipe.")].default
        if found == wanted:
            similar.append(row)
    own = [row for row in similar if (row["study"], row["arm"]) == (study.name, arm.name)]
    return own or similar, bool(own)


def count_missing_trials(study: ResolvedStudy, recorded: Iterable[str]) -> dict[str, int]:
    """Return the number of trials of every arm that are not recorded.

    Args:
        recorded: the arm of each recorded trial.
    """
    done = Counter(recorded)
    return {arm.name: max(0, study.count_trials(arm) - done[arm.name]) for arm in study.arms}


def _get_speed_settings(arm: Arm) -> dict[str, Any]:
    """Return the settings that determine the speed of an arm's trials, by column of the trials table."""
    prefixes = tuple(f"config.{path}" for path in _SPEED)
    return {path: value for path, value in flatten_config(arm.config.to_plain()) if path.startswith(prefixes)}
