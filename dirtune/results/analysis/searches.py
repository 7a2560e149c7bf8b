"""Trials of a searched arm: settings and outcomes, in the order in which they ended.

Everything comes from the records and from the space in `study.json`, not from the sweep's journal, so that it can
be read while a sweep runs and after its driver is gone. A pruned trial has the objective of its best epoch until then,
which is not comparable with that of a complete one.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.arms import list_arm_trials, list_search_trials, to_trial_rows
from dirtune.results.records import names, store, studies

PREFIX = "config."


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """A recorded trial."""

    trial_id: str
    arm: str
    status: str
    """Complete, pruned or failed."""
    objective: float
    """On validation data; NaN where there is none."""
    settings: Mapping[str, Any]
    """The searched settings, by dotted path."""


@dataclass(frozen=True, kw_only=True)
class SearchHistory:
    """Trials of one arm with settings to search."""

    study: str
    arm: str
    others: tuple[str, ...]
    """The other searched arms."""
    space: Mapping[str, Mapping[str, Any]]
    """By dotted path: distribution, and low and high or values."""
    trials: tuple[EndedTrial, ...]
    info: studies.StudyInfo


def list_ended_trials(storage: Storage, info: studies.StudyInfo) -> list[EndedTrial]:
    """Return the recorded trials of the study's arms in the order in which they ended; those without a time come last.

    An arm whose selected configuration is trained on the study's seeds contributes the trials of its search.

    Raises:
        InputError: a file is damaged.
    """
    table = store.read_table(storage, "trials")
    rows = to_trial_rows(table)
    searches = list_search_trials(rows, info)
    arms = {row.trial_id: arm for arm, own in list_arm_trials(rows, info).items() for row in (searches[arm] or own)}
    frame: pd.DataFrame = table.to_pandas().set_index("trial_id", drop=False)
    # Ties by identity, so that the order does not depend on that of the files.
    frame = frame.loc[list(arms)].reset_index(drop=True).sort_values(["finished_at", "trial_id"], na_position="last")
    trials = []
    for row in frame.to_dict("records"):
        arm, objective = arms[row["trial_id"]], row["objective"]
        settings = {path: row.get(PREFIX + path) for path in info.spaces.get(arm, {})}
        # pandas has NaN for a missing number.
        missing = [path for path, value in settings.items() if isinstance(value, float) and math.isnan(value)]
        trials.append(
            EndedTrial(
                trial_id=row["trial_id"],
                arm=arm,
                status=row["status"],
                objective=math.nan if objective is None else float(objective),
                settings=settings | dict.fromkeys(missing),
            )
        )
    return trials


def read_search_history(root: str | Path, study: str, arm: str | None = None) -> SearchHistory:
    """Return the trials of a searched arm of a study.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        arm: None means the one with the most settings to search, the first of them.

    Raises:
        InputError: the study or arm is unknown, or nothing is searched in it.
    """
    storage = studies.open_study(root, study)
    info = studies.read_study(storage)
    searched = tuple(info.spaces)
    if not searched:
        raise InputError(Fault(where=f"study {study}", rule="has no arm with settings to search"))
    arm = arm or max(searched, key=lambda name: len(info.spaces[name]))
    names.check_known("searched arm", arm, searched)
    return SearchHistory(
        study=study,
        arm=arm,
        others=tuple(name for name in searched if name != arm),
        space=info.spaces[arm],
        trials=tuple(trial for trial in list_ended_trials(storage, info) if trial.arm == arm),
        info=info,
    )
