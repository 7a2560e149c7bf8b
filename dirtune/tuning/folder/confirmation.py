"""Confirmation of searches: the selection of a search is trained on all seeds of the study.

A search selects the configuration with the best validation objective among an arm's complete trials; ties go to the smallest
trial id. The selection follows from the records alone, so that a sweep that was killed at any moment selects the same one.
`selected.json` only repeats it for readers: tables take from it which trials evaluate an arm, even if two arms share one.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dirtune.errors import InputError
from dirtune.io.jsonfile import encode_json_object, read_json_object
from dirtune.io.storage import Storage
from dirtune.study.resolve import ArmSearchPlan, ResolvedStudy
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
    """Return the selections of searches with a spent budget, by name of the search; None where no trial is complete."""
    selections: dict[str, SelectedTrial | None] = {}
    for search in study.searches if study.search.confirm else ():
        outcomes = {each.trial_id: each.outcome for each in records.select_search_trials(trials, search, study)}
        # Until the budget is spent, a better configuration may be found
        if len(outcomes) < study.get_budget(search.arm):
            continue
        trial_id = records.find_best_trial(outcomes, study.objective.mode)
        selections[search.name] = None
        if trial_id is not None:
            settings = records.read_settings(folder, trial_id, tuple(search.arm.space))
            selections[search.name] = SelectedTrial(trial_id, settings)
    return selections


def are_recorded(folder: Storage, selections: Mapping[str, SelectedTrial | None]) -> bool:
    """Return True if `selected.json` has these selections, by name of the search."""
    recorded = {name: entry.get("trial_id") for name, entry in _read_selections(folder).items()}
    return all(each is None or recorded.get(name) == each.trial_id for name, each in selections.items())


def record_selection(
    folder: Storage, search: ArmSearchPlan, selected: SelectedTrial, jobs: Sequence[TrialJob]
) -> set[str]:
    """Write the selection of a search to `selected.json`, and orphan the records that no selection needs any more.

    Args:
        folder: the study folder.
        search: the search.
        selected: the trial that the search selected.
        jobs: the trials that evaluate the selection, of the arm and of those that use its settings.

    Returns:
        The ids of the orphaned trials.
    """
    before = _read_selections(folder)
    entries = {
        search.get_name(arm): {
            "arm": arm,
            "search": search.name,
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
    # By seed, too: a further search of the arm has other seeds, and its selection may not be recorded yet
    known = {
        (entry.get("arm", name), trial["seed"]) for name, entry in selections.items() for trial in entry["planned"]
    }
    evaluated = {
        each.trial_id
        for each in records.read_recorded_trials(folder)
        if (each.arm, each.seed) in known and each.role == "evaluation"
    }
    records.orphan_records(folder, sorted(evaluated - planned))
    return evaluated - planned


def keep_selections(folder: Storage, arms: Collection[str]) -> None:
    """Remove the selections of all other arms from `selected.json`."""
    if folder.exists(layout.SELECTED):
        selections = _read_selections(folder)
        _write_selections(folder, {name: entry for name, entry in selections.items() if entry.get("arm", name) in arms})


def _read_selections(folder: Storage) -> dict[str, Any]:
    """Return the recorded selections; none if the file is damaged, because it only repeats what the records say."""
    try:
        selections = read_json_object(folder, layout.SELECTED)
    except (FileNotFoundError, InputError):
        return {}
    return {arm: entry for arm, entry in selections.items() if _is_selection(entry)}


def _is_selection(entry: object) -> bool:
    planned = entry.get("planned") if isinstance(entry, dict) else None
    return isinstance(planned, list) and all(
        isinstance(each, dict) and {"trial_id", "seed"} <= each.keys() for each in planned
    )


def _write_selections(folder: Storage, selections: Mapping[str, Any]) -> None:
    folder.write(layout.SELECTED, encode_json_object(dict(sorted(selections.items()))))
