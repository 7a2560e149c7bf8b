"""The trials of a searched arm: what was set, what came of it, in the order in which they ended.

Everything comes from the records and from the space in `study.json`, not from the sweep's own database, so that it can
be read while a sweep runs and after its driver is gone. A pruned trial has the objective of its best epoch until then,
which is not comparable with that of a complete one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage
from dirtune.results.analysis.arms import members_of_arms, searches_of_arms, trial_rows
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import StudyInfo, open_study, read_study
from dirtune.results.tables.table import check_known

PREFIX = "config."


@dataclass(frozen=True, kw_only=True)
class EndedTrial:
    """A trial that was recorded."""

    trial_id: str
    arm: str
    status: str
    """Complete, pruned or failed."""
    objective: float
    """On validation data; NaN where there is none."""
    settings: Mapping[str, Any]
    """Those that are searched, by dotted path."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """One arm with something to tune."""

    study: str
    arm: str
    others: tuple[str, ...]
    """The other searched arms."""
    space: Mapping[str, Mapping[str, Any]]
    """By dotted path: distribution, and low and high or values."""
    trials: tuple[EndedTrial, ...]
    info: StudyInfo


def ended_trials(storage: Storage, info: StudyInfo) -> list[EndedTrial]:
    """The recorded trials of the study's arms in the order in which they ended; those that do not say come last.

    Of an arm whose selection is trained anew on the study's seeds they are those of its search.

    Raises:
        InputError: a file is damaged.
    """
    table = read_table(storage, "trials")
    rows = trial_rows(table)
    searches = searches_of_arms(rows, info)
    members = {arm: searches[arm] or own for arm, own in members_of_arms(rows, info).items()}
    arms = {row.trial_id: arm for arm, own in members.items() for row in own}
    frame: pd.DataFrame = table.to_pandas().set_index("trial_id", drop=False)
    frame = frame.loc[list(arms)].reset_index(drop=True).sort_values(["finished_at", "trial_id"], na_position="last")
    return [_ended(row, arms[row["trial_id"]], info) for row in frame.to_dict("records")]


def searched_arm(root: str | Path, study: str, arm: str | None = None) -> Search:
    """A searched arm of a study.

    Args:
        root: the results root, a path or URL.
        study: name of the study's folder.
        arm: none: the one with the most settings to search, the first of them.

    Raises:
        InputError: the study or arm is unknown, or nothing is searched in it.
    """
    storage = open_study(root, study)
    info = read_study(storage)
    searched = tuple(info.spaces)
    if not searched:
        raise InputError(Fault(where=f"study {study}", rule="has no arm with settings to search"))
    arm = arm or max(searched, key=lambda name: len(info.spaces[name]))
    check_known("searched arm", arm, searched)
    return Search(
        study=study,
        arm=arm,
        others=tuple(name for name in searched if name != arm),
        space=info.spaces[arm],
        trials=tuple(trial for trial in ended_trials(storage, info) if trial.arm == arm),
        info=info,
    )


def _ended(row: Mapping[Any, Any], arm: str, info: StudyInfo) -> EndedTrial:
    objective = row["objective"]
    return EndedTrial(
        trial_id=row["trial_id"],
        arm=arm,
        status=row["status"],
        objective=math.nan if objective is None else float(objective),
        settings={path: _plain(row.get(PREFIX + path)) for path in info.spaces.get(arm, {})},
    )


def _plain(value: Any) -> Any:
    """Null for a missing number."""
    return None if isinstance(value, float) and math.isnan(value) else value
