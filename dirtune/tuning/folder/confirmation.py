"""Confirmation of searches: the selection of a search is trained on all seeds of the study.

A search selects the configuration with the best validation objective among an arm's complete trials; ties go to the smallest
trial id. The selection follows from the records alone, so that a sweep that was killed at any moment selects the same one.
`selected.json` only repeats it for readers: tables take from it which trials evaluate an arm, even if two arms share one.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dirtune.errors import InputError
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.study.resolve import ResolvedStudy
from dirtune.training.trial import TrialJob
from dirtune.tuning.folder import layout, records


@dataclass(frozen=True)
class SelectedTrial:
    """The trial that a search selected, and its values of the tuned settings."""

    trial_id: str
    settings: records.Settings


def find_selections(
    folder: Storage, study: ResolvedStudy, trials: Sequence[records.RecordedTrial]
) -> dict[str, SelectedTrial | None]:
    """Return by arm the selections of searches with a spent budget; None where no trial is complete."""
    selections: dict[str, SelectedTrial | None] = {}
    for arm in study.searched_arms if study.search.confirm else ():
        outcomes = {each.trial_id: each.outcome for each in records.select_search_trials(trials, arm.name, study)}
        # Until the budget is spent, a better configuration may be found
        if len(outcomes) < study.get_budget(arm):
            continue
        trial_id = records.find_best_trial(outcomes, study.objective.mode)
        selections[arm.name] = None
        if trial_id is not None:
            settings = records.read_settings(folder, trial_id, tuple(arm.space))
            selections[arm.name] = SelectedTrial(trial_id, settings)
    return selections


def are_recorded(folder: Storage, selections: Mapping[str, SelectedTrial | None]) -> bool:
    """Return True if `selected.json` has these selections, by searched arm."""
    recorded = {arm: entry.get("trial_id") for arm, entry in _read_selections(folder).items()}
    return all(each is None or recorded.get(arm) == each.trial_id for arm, each in selections.items())


def record_selection(folder: Storage, searched: str, selected: SelectedTrial, jobs: Sequence[TrialJob]) -> set[str]:
    """Write the selection of a search to `selected.json`, and orphan the records that no selection needs any more.

    Args:
        folder: the study folder.
        searched: the arm of the search.
        selected: the trial that the search selected.
        jobs: the trials that evaluate the selection, of the arm and of those that use its settings.

    Returns:
        The ids of the orphaned trials.
    """
    before = _read_selections(folder)
    entries = {
        arm: {
            "search": searched,
            "trial_id": selected.trial_id,
            "settings": dict(selected.settings),
            "planned": [
                {"seed": job.config.seed, "replicate": job.replicate, "trial_id": job.trial_id}
                for job in jobs
                if job.arm == arm
            ],
        }
        for arm in dict.fromkeys(job.arm for job in jobs)
    }
    selections = {**before, **entries}
    if selections != before:
        _write_selections(folder, selections)
    # Of all arms: another arm's selection may be the same configuration and use the same records
    planned = {trial["trial_id"] for entry in selections.values() for trial in entry["planned"]}
    evaluated = {
        each.trial_id
        for each in records.read_recorded_trials(folder)
        if each.arm in selections and each.role == "evaluation"
    }
    records.orphan_records(folder, sorted(evaluated - planned))
    return evaluated - planned


def keep_selections(folder: Storage, arms: Collection[str]) -> None:
    """Remove the selections of all other arms from `selected.json`."""
    if folder.exists(layout.SELECTED):
        selections = _read_selections(folder)
        _write_selections(folder, {arm: entry for arm, entry in selections.items() if arm in arms})


def _read_selections(folder: Storage) -> dict[str, Any]:
    """Return the recorded selections; none if the file is damaged, because it only repeats what the records say."""
    try:
        selections = read_json_object(folder, layout.SELECTED)
    except (FileNotFoundError, InputError):
        return {}
    return {arm: entry for arm, entry in selections.items() if _is_selection(entry)}


def _is_selection(entry: object) -> bool:
    planned = entry.get("planned") if isinstance(entry, dict) else None
    return isinstance(planned, list) and all(isinstance(each, dict) and "trial_id" in each for each in planned)


def _write_selections(folder: Storage, selections: Mapping[str, Any]) -> None:
    folder.write(layout.SELECTED, json.dumps(selections, indent=1, sort_keys=True).encode())
