"""Floors of a study's folder: recorded once, in its first sweep."""

from collections.abc import Callable

from dirtune.io.storage import Storage
from dirtune.training.floors import record_floors
from dirtune.tuning.folder.reconcile import StudyFolder


def record_missing_floors(
    folder: StudyFolder, data: Storage, report: Callable[[str], None] = lambda activity: None
) -> str:
    """Record the floors that a study's folder lacks; return why that was not possible, or an empty text.

    Args:
        folder: of the study, locked.
        data: the data root.
        report: called with what is being done, if a floor is missing.
    """
    manifest = folder.manifest
    rules = {arm.config.data.shot_rule or manifest.default_shot_rule for arm in folder.study.arms}
    try:
        record_floors(folder.storage, data, manifest, rules, folder.study.splits, report)
    # The trials are recorded: whatever keeps their floors from being computed must not end the sweep as a failure.
    except Exception as error:
        return f"no floors to compare the trials with: {type(error).__name__}: {error}"
    return ""
