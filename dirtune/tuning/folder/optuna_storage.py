"""Optuna studies of a sweep's searches, one per searched arm, which can be rebuilt from the records.

The journal may be gone or changed (`dirtune.tuning.folder.journal`). The records remain, and with them the spent budget: a
resumed search must neither spend it again nor lose its results. A search that differs from the records is made again; it then
asks only for the trials that had started.
"""

import contextlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from dirtune.io.storage import Storage
from dirtune.results.records.schema import Status
from dirtune.study import resolve, space
from dirtune.tuning.folder import jobs, records

TRIAL_ID = "trial_id"
"""User attribute of an Optuna trial: its trial id in the sweep."""


def get_search_name(study: str, search: str) -> str:
    """Return the name of the Optuna study of a search."""
    return f"{study}/{search}"


def open_search(study: resolve.ResolvedStudy, search: resolve.ArmSearchPlan, journal: BaseStorage) -> optuna.Study:
    """Return the Optuna study of a search; create it if it does not exist."""
    # Optuna's own lines would break the progress display
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    objectives = (study.objective, *study.secondary)
    directions: list[Literal["minimize", "maximize"]] = [
        "minimize" if each.mode == "min" else "maximize" for each in objectives
    ]
    name = get_search_name(study.name, search.name)
    # Optuna would write a step for an existing study, too
    with contextlib.suppress(KeyError):
        return optuna.load_study(study_name=name, storage=journal)
    return optuna.create_study(study_name=name, storage=journal, directions=directions)


def restore_searches(
    folder: Storage, maker: jobs.JobMaker, journal: BaseStorage, recorded: Sequence[records.RecordedTrial]
) -> None:
    """Make the Optuna studies of searches agree with the records.

    Recorded trials that an Optuna study lacks are added. A study with other settings or outcomes than the records is made
    again from them: the journal has no checksums, and a changed number would lead the search elsewhere without a word.
    """
    study = maker.study
    # Optuna accepts intermediate values of one objective
    has_curves = study.search.scheduler is not None and not study.secondary
    curves = records.read_recorded_curves(folder, study) if has_curves else {}
    for plan in study.searches:
        expected = {
            each.trial_id: _make_ended_trial(folder, study, each, curves.get(each.trial_id, ()))
            for each in records.select_search_trials(recorded, plan, study)
        }
        if not expected:
            continue
        search = open_search(study, plan, journal)
        distributions = {path: to_optuna_distribution(each) for path, each in plan.arm.space.items()}
        if not _agrees_with_records(search.get_trials(deepcopy=False), expected, distributions, maker, plan):
            optuna.delete_study(study_name=search.study_name, storage=journal)
            search = open_search(study, plan, journal)
        known = {trial.user_attrs.get(TRIAL_ID) for trial in search.get_trials(deepcopy=False)}
        for trial_id, ended in expected.items():
            if trial_id not in known:
                settings = records.read_settings(folder, trial_id, tuple(plan.arm.space))
                search.add_trial(
                    create_trial(
                        state=ended.state,
                        values=ended.values,
                        params=dict(settings),
                        distributions=distributions,
                        user_attrs={TRIAL_ID: trial_id},
                        intermediate_values=ended.intermediate_values,
                    )
                )


@dataclass(frozen=True)
class _EndedTrial:
    """Recorded outcome of a trial in Optuna's form."""

    state: TrialState
    values: list[float] | None
    intermediate_values: dict[int, float]


def _make_ended_trial(
    folder: Storage, study: resolve.ResolvedStudy, trial: records.RecordedTrial, curve: records.Curve
) -> _EndedTrial:
    outcome = trial.outcome
    secondary = records.read_secondary_objectives(folder, study, trial.trial_id) if outcome.status == "complete" else []
    state, values = to_optuna_result(outcome.status, [outcome.objective, *secondary])
    # Optuna's value of a pruned trial is the last one that was reported
    if state == TrialState.PRUNED and curve:
        values = [curve[-1][1]]
    return _EndedTrial(state, values, dict(curve))


def _agrees_with_records(
    trials: Sequence[FrozenTrial],
    expected: Mapping[str, _EndedTrial],
    distributions: Mapping[str, BaseDistribution],
    maker: jobs.JobMaker,
    plan: resolve.ArmSearchPlan,
) -> bool:
    """Return True if the recorded trials among those of a search have the settings and outcomes of their records.

    A trial that was retried, or whose record was lost, is there several times; the last one is the recorded one.
    """
    last = {trial.user_attrs.get(TRIAL_ID): trial for trial in trials}
    for trial in trials:
        trial_id = trial.user_attrs.get(TRIAL_ID)
        recorded = None if trial_id is None else expected.get(trial_id)
        if recorded is None and trial.state not in {TrialState.COMPLETE, TrialState.PRUNED}:
            continue
        if trial.distributions != distributions or not maker.is_search_trial(plan, trial.params, trial_id):
            return False
        # A trial that runs for Optuna and is recorded has ended when no driver was there to tell
        if recorded is None or trial is not last[trial_id] or trial.state == TrialState.RUNNING:
            continue
        values, curve = trial.values, recorded.intermediate_values
        is_value_reported = values is None or values[0] in curve.values()
        is_same = trial.state == recorded.state and (
            is_value_reported if curve and trial.state == TrialState.PRUNED else values == recorded.values
        )
        # Reports can be missing, because a driver was killed before them, or are undefined numbers
        reported = {step: value for step, value in trial.intermediate_values.items() if math.isfinite(value)}
        if not is_same or (curve and not reported.items() <= curve.items()):
            return False
    return [trial.number for trial in trials] == list(range(len(trials)))


def add_running_trials(search: optuna.Study, trial_ids: Collection[str]) -> None:
    """Add a running copy of each of these trials that the search has, unless its last one is running already."""
    last = {trial.user_attrs[TRIAL_ID]: trial for trial in search.trials if TRIAL_ID in trial.user_attrs}
    for trial_id in trial_ids:
        trial = last.get(trial_id)
        # Running already: an earlier retry was killed after this step
        if trial is not None and trial.state != TrialState.RUNNING:
            copy = create_trial(
                state=TrialState.RUNNING,
                params=trial.params,
                distributions=trial.distributions,
                user_attrs=trial.user_attrs,
            )
            search.add_trial(copy)


def to_optuna_distribution(distribution: space.Distribution) -> BaseDistribution:
    """Return the same distribution for Optuna."""
    match distribution:
        case space.Choice():
            return CategoricalDistribution(distribution.values)
        case space.Integer():
            return IntDistribution(distribution.low, distribution.high, log=distribution.log)
        case space.LogUniform():
            return FloatDistribution(distribution.low, distribution.high, log=True)
        case space.Uniform():
            return FloatDistribution(distribution.low, distribution.high)


def to_optuna_result(status: Status, values: Sequence[float | None]) -> tuple[TrialState, list[float] | None]:
    """Return the Optuna state and values of a trial; a complete trial with an undefined objective is a failure."""
    if status == "pruned":
        return TrialState.PRUNED, None
    # Optuna accepts no trial with a missing value
    defined = [value for value in values if value is not None and not math.isnan(value)]
    if status == "complete" and len(defined) == len(values):
        return TrialState.COMPLETE, defined
    return TrialState.FAIL, None
