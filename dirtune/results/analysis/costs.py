"""Training time of trials: what a method costs per step, and how far a training has come within a budget of time.

Times are those of the training steps alone, without the wait for data, evaluation and overhead. Trials that ran concurrently,
or on different machines, share or differ in hardware: times are comparable where `dirtune sweep` ran the arms alike.
"""

import math
from collections.abc import Collection, Mapping
from statistics import median
from typing import NamedTuple

from dirtune.io.storage import Storage
from dirtune.results.analysis.arms import ArmRuns
from dirtune.results.records import store

_COLUMNS = ("epochs_run", "seconds_train", "seconds_data", "samples_per_second")


class TrainingTime(NamedTuple):
    """Training time of one trial."""

    seconds: float
    """Of all steps."""
    epochs: int
    samples: float
    """Rows in all steps; a row counts once per pass."""


def read_training_times(storage: Storage) -> dict[str, TrainingTime]:
    """Return the training time of every trial of a study for which it is recorded.

    Raises:
        InputError: a file is damaged.
    """
    found = store.read_tables(storage, {"trials": _COLUMNS})["trials"]
    known = set(found.column_names)
    names = ("trial_id", *_COLUMNS)
    columns = [found[name].to_pylist() if name in known else [None] * len(found) for name in names]
    times = {}
    for trial, epochs, seconds, waiting, rate in zip(*columns, strict=True):
        if epochs and seconds and rate:
            # The recorded rate is that of the steps with their wait for data.
            times[trial] = TrainingTime(seconds, epochs, rate * (seconds + (waiting or 0.0)))
    return times


def compute_costs(
    arms: Collection[ArmRuns], reference: str | None, times: Mapping[str, TrainingTime]
) -> dict[str, float]:
    """Return each arm's training time per sample, as a multiple of the reference arm's; medians over the seeds.

    With one batch size, this is the ratio of the times per step. Arms without recorded times, and all arms without those of the
    reference, have no cost.
    """
    per_sample = {}
    for arm in arms:
        own = [times[each.trial_id] for each in arm.chosen.values() if each.trial_id in times]
        if own:
            per_sample[arm.arm] = median(each.seconds / each.samples for each in own)
    base = per_sample.get(reference or "")
    return {arm: seconds / base for arm, seconds in per_sample.items()} if base else {}


def find_last_epochs(arms: Collection[ArmRuns], times: Mapping[str, TrainingTime]) -> dict[str, int]:
    """Return the last epoch of each chosen trial within the training time of the shortest one of its seed, by trial.

    An epoch of a trial takes the mean time of its epochs. Trials without a recorded time are left out.
    """
    last = dict[str, int]()
    for seed in {seed for arm in arms for seed in arm.chosen}:
        trials = [arm.chosen[seed].trial_id for arm in arms if seed in arm.chosen]
        known = {trial: times[trial] for trial in trials if trial in times}
        budget = min((each.seconds for each in known.values()), default=0.0)
        # A tolerance for rounding, so that the shortest training has all of its epochs.
        last |= {trial: int(budget / (each.seconds / each.epochs) + 1e-9) for trial, each in known.items()}
    return last


def read_values_at_equal_time(
    storage: Storage, last_epochs: Mapping[str, int], *, objective: str, maximize: bool, names: Collection[str]
) -> dict[str, dict[str, float]]:
    """Return values of each trial's epoch with the best objective among the first ones, by name and trial.

    Args:
        storage: of the study.
        last_epochs: the last epoch that counts, by trial.
        objective: name of the objective in the table `epochs`.
        maximize: whether larger objectives are better.
        names: names of the values in the table `epochs`.

    Raises:
        InputError: a file is damaged.
    """
    table = store.read_tables(storage, {"epochs": ("epoch", "name", "value")})["epochs"]
    rows = zip(*(table[name].to_pylist() for name in ("trial_id", "epoch", "name", "value")), strict=True)
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for trial, epoch, name, value in rows:
        is_defined = value is not None and not math.isnan(value)
        if name in {objective, *names} and epoch <= last_epochs.get(trial, 0) and is_defined:
            curves.setdefault(trial, {}).setdefault(name, {})[epoch] = value
    found: dict[str, dict[str, float]] = {name: {} for name in names}
    for trial, curve in curves.items():
        objectives = curve.get(objective, {})
        if not objectives:
            continue
        best = (max if maximize else min)(objectives, key=objectives.__getitem__)
        for name in names:
            if best in curve.get(name, {}):
                found[name][trial] = curve[name][best]
    return found
