"""The Optuna studies of a sweep: one per searched arm, opened, told the truth, and rebuilt from the records.

The storage of a sweep in an object store is copied back when its driver ends; a driver that is killed takes what its searches
knew with it, and anybody may delete the file. The records stay, and with them the budget that was spent: a search that goes on
must neither spend it again nor forget what came of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.tuning.folder.confirmation import recorded_rows, settings_of, was_tried
from dirtune.tuning.folder.jobs import Settings
from dirtune.tuning.search.secondary import secondary_objectives

TRIAL_ID = "trial_id"
"""User attribute of a trial: which of the sweep's it is."""


def optuna_name(study: str, arm: str) -> str:
    """What the search of an arm is called in the sweep's Optuna storage."""
    return f"{study}/{arm}"


def open_search(study: ResolvedStudy, arm: Arm, storage: str) -> optuna.Study:
    """The Optuna study of an arm, which need not exist yet."""
    # The view tells what happens
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = (study.objective, *study.secondary)
    directions: list[Literal["minimize", "maximize"]] = [
        "minimize" if each.mode == "min" else "maximize" for each in objectives
    ]
    name = optuna_name(study.name, arm.name)
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, directions=directions)


def recall_searches(folder: Storage, study: ResolvedStudy, storage: str) -> None:
    """Tell Optuna the recorded trials of searches that its storage does not know."""
    rows = recorded_rows(folder)
    for arm in study.searched_arms:
        recorded = [row for row in rows if was_tried(row, arm.name, study)]
        if not recorded:
            continue
        search = open_search(study, arm, storage)
        known = {trial.user_attrs.get(TRIAL_ID) for trial in search.get_trials(deepcopy=False)}
        for row in recorded:
            trial_id, complete = row["trial_id"], row["status"] == "complete"
            if trial_id not in known:
                further = secondary_objectives(folder, study, trial_id) if complete else []
                settings = settings_of(folder, trial_id, tuple(arm.space))
                values = [row["objective"], *further]
                search.add_trial(_recalled(arm, trial_id, settings, row["status"], values))


def told(status: Status, values: Sequence[float | None]) -> tuple[TrialState, list[float] | None]:
    """The state and values that Optuna is told of a trial: what it is, and failed where an objective is not defined."""
    if status == "pruned":
        return TrialState.PRUNED, None
    known = [value for value in values if value is not None and not math.isnan(value)]
    if status == "complete" and len(known) == len(values):
        return TrialState.COMPLETE, known
    return TrialState.FAIL, None


def _recalled(
    arm: Arm, trial_id: str, settings: Settings, status: Status, values: Sequence[float | None]
) -> FrozenTrial:
    params = {path: settings[path] for path in arm.space}
    distributions: dict[str, BaseDistribution] = {path: knob.to_optuna() for path, knob in arm.space.items()}
    state, known = told(status, values)
    return create_trial(
        state=state,
        values=known,
        params=params,
        distributions=distributions,
        user_attrs={TRIAL_ID: trial_id},
    )
