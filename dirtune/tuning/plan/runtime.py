"""How long a study will take: from the time of a trial of every arm, recorded or probed, and what runs at once.

    a trial    seconds of an epoch (training, data, evaluation) * planned epochs + overhead; medians over recorded trials
    the study  the trials that are left, in the order in which they start, each on the slot that is free first, + the start
    GPU hours  the sum over the trials * workers * share of a GPU

Recorded are trials of the same data, encoder, batch size, views, kind of device and workers: of the same arm of this study if
there are any, else of whatever study lies below the results root. A pruned trial tells the time of its epochs. With
successive halving most trials end early, and all this is an upper bound.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from dirtune.errors import InputError
from dirtune.recipe import Recipe
from dirtune.results.records.store import flatten_config, read_table
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm

START_SECONDS, GROUP_START_SECONDS = 20.0, 45.0
"""Start and end of Ray and its workers, in-process and as a group; on two cores. More cores take less."""

_SPEED = ("epochs_run", "seconds_train", "seconds_eval", "seconds_data", "seconds_overhead")
_ADDED = ("recipe.precision", "recipe.channels_last", "recipe.accumulation", "recipe.compile")
_SHARED = ("data.name", "model.encoder.", "recipe.batch_size", "recipe.views.count", *_ADDED)
"""Settings, or beginnings of their paths, that two trials of one speed share; of those added, older records have none."""

Row = Mapping[str, Any]


class TimeEstimate(NamedTuple):
    """The time of one trial, and how it is known."""

    seconds: float
    source: str
    """"from 12 recorded trials of the arm"."""


@dataclass(frozen=True, kw_only=True)
class RuntimeForecast:
    """What is left of a study in time."""

    trials: Mapping[str, TimeEstimate | None]
    """By arm; None: no speed is known."""
    left: Mapping[str, int]
    """Trials that are not recorded, by arm."""
    seconds: float | None
    """Until the study is done; None: some arm's speed is not known."""
    gpu_hours: float | None
    is_bound: bool
    """Trials may be stopped early."""


def forecast_runtime(
    study: ResolvedStudy, estimates: Mapping[str, TimeEstimate | None], *, left: Mapping[str, int], concurrent: int
) -> RuntimeForecast:
    """The time of all trials that are left, `concurrent` at once."""
    need = study.resources
    seconds = [None if (estimate := estimates[arm]) is None else estimate.seconds for arm in _in_order(study, left)]
    known = [each for each in seconds if each is not None]
    is_known = len(known) == len(seconds)
    start = GROUP_START_SECONDS if need.workers > 1 else START_SECONDS
    return RuntimeForecast(
        trials=estimates,
        left=left,
        seconds=compute_makespan(known, concurrent) + (start if known else 0.0) if is_known else None,
        gpu_hours=sum(known) * need.workers * need.gpus / 3600 if is_known else None,
        is_bound=bool(study.searched_arms) and study.search.scheduler is not None,
    )


def compute_makespan(seconds: Iterable[float], slots: int) -> float:
    """When the last of some trials ends, each started in turn on the slot that is free first."""
    free = [0.0] * slots
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def estimate_from_records(study: ResolvedStudy, results: str | Path) -> dict[str, TimeEstimate | None]:
    """The time of a trial of every arm, from what is recorded below the results root; damaged files are left out."""
    rows = [row for row in read_trial_rows(study, results) if _ran_as_planned(row, study)]
    return {arm.name: _recorded(study, arm, rows) for arm in study.arms}


def read_trial_rows(study: ResolvedStudy, results: str | Path, columns: Iterable[str] = ()) -> list[Row]:
    """What `select_similar_trials` compares, and further columns, of all trials below the results root that have trained an epoch."""
    settings = {path for arm in study.arms for path in _shared(arm)}
    wanted = ["study", "arm", "device", "workers", *_SPEED, *sorted(settings), *columns]
    try:
        table = read_table(results, "trials", columns=wanted, on_damaged=lambda fault: None)
    except InputError:  # no study yet
        return []
    return [row for row in table.to_pylist() if row["epochs_run"]]


def select_similar_trials(study: ResolvedStudy, arm: Arm, rows: Iterable[Row]) -> tuple[list[Row], bool]:
    """The trials of the arm itself, or if there are none, those of its data, encoder and batch; and which of them these are."""
    wanted = _shared(arm)
    found = [row for row in rows if all(_held(row, path) == wanted[path] for path in wanted)]
    own = [row for row in found if (row["study"], row["arm"]) == (study.name, arm.name)]
    return own or found, bool(own)


def count_missing_trials(study: ResolvedStudy, recorded: Iterable[str]) -> dict[str, int]:
    """Trials of every arm that are not recorded; `recorded` has the arm of each one that is."""
    done = Counter(recorded)
    return {arm.name: max(0, study.count_trials(arm) - done[arm.name]) for arm in study.arms}


def _in_order(study: ResolvedStudy, left: Mapping[str, int]) -> Iterator[str]:
    """The arm of each trial in the order in which they start: fixed arms, then the searches, each in turn."""
    for arms in (study.fixed_arms, study.searched_arms):
        for turn in range(max((left[arm.name] for arm in arms), default=0)):
            yield from (arm.name for arm in arms if turn < left[arm.name])


def _recorded(study: ResolvedStudy, arm: Arm, rows: Iterable[Row]) -> TimeEstimate | None:
    chosen, are_own = select_similar_trials(study, arm, rows)
    if not chosen:
        return None
    epoch = median(
        (row["seconds_train"] + row["seconds_eval"] + row["seconds_data"]) / row["epochs_run"] for row in chosen
    )
    overhead = median(row["seconds_overhead"] for row in chosen)
    trials = f"{len(chosen)} recorded trial{'s' if len(chosen) > 1 else ''}"
    source = f"from {trials} of {'the arm' if are_own else 'the same data, encoder and batch'}"
    return TimeEstimate(epoch * arm.config.epochs_planned + overhead, source)


def _held(row: Row, column: str) -> Any:
    """A setting of a recorded trial; where it is older than the setting, the default."""
    path = column.removeprefix("config.")
    if row.get(column) is None and path in _ADDED:
        return Recipe.model_fields[path.removeprefix("recipe.")].default
    return row.get(column)


def _ran_as_planned(row: Row, study: ResolvedStudy) -> bool:
    """Whether a trial had the device and the workers that the study's trials will have."""
    need = study.resources
    on_cpu = row["device"].startswith("cpu")
    threads = not on_cpu or row["device"] == f"cpu ({need.cpus} threads)"
    return bool(on_cpu != bool(need.gpus) and threads and row["workers"] == need.workers)


def _shared(arm: Arm) -> dict[str, Any]:
    """The settings that a recorded trial must share with an arm, as columns of the table."""
    prefixes = tuple(f"config.{path}" for path in _SHARED)
    return {path: value for path, value in flatten_config(arm.config.to_plain()) if path.startswith(prefixes)}
