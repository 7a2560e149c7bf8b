"""Kept models of a sweep: removal of those that a search has not selected, and an estimate of their disk space."""

from collections.abc import Collection, Mapping

from dirtune.io.storage import Storage
from dirtune.results.records import kept
from dirtune.study.resolve import ResolvedStudy
from dirtune.tuning.folder import records
from dirtune.tuning.folder.jobs import JobMaker


def find_unselected_trials(study: ResolvedStudy, trials: Collection[records.RecordedTrial]) -> set[str]:
    """Return the recorded trials whose models `keep_models: best` does not keep: of searches, all but the best so far."""
    # The trials of a confirmed search are no runs of its arm, so that workers do not write their models.
    searched = () if study.search.confirm or study.keep_models != "best" else study.searches
    unselected, selected = set[str](), set[str]()
    for search in searched:
        outcomes = {each.trial_id: each.outcome for each in records.select_search_trials(trials, search, study)}
        best = records.find_best_trial(outcomes, study.objective.mode)
        unselected |= outcomes.keys()
        selected |= {best} if best is not None else set()
    return unselected - selected


def remove_unselected_models(folder: Storage, maker: JobMaker, trials: Collection[records.RecordedTrial]) -> None:
    """Remove the models that `keep_models: best` does not keep."""
    unselected = find_unselected_trials(maker.study, trials)
    present = unselected.intersection(folder.list_folders(kept.MODELS)) if unselected else set()
    if not present:
        return
    # A fixed arm may have the configuration of a search's trial.
    planned = maker.list_possible_trial_arms().keys()
    kept.remove_models(folder, sorted(present - planned))


def count_kept_models(study: ResolvedStudy, trials: Mapping[str, int]) -> dict[str, int]:
    """Return the number of models that a finished sweep keeps, by arm.

    Args:
        study: the study.
        trials: number of trials by arm.
    """
    if study.keep_models == "none":
        return dict.fromkeys(trials, 0)
    if study.keep_models == "all":
        return dict(trials)
    # Of a search, the trials of what it selects, or its best one
    return {
        arm.name: trials[arm.name] - max(study.get_budget(arm) * study.search.repeats - (not study.search.confirm), 0)
        if arm.space
        else trials[arm.name]
        for arm in study.arms
    }
