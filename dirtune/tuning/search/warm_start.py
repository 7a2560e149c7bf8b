"""Warm start: the first settings of a search are the arm's own ones and the best of an earlier study.

A search that begins with settings that are known to work cannot select worse ones; they cost budget like all others.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.frozen import to_canonical_json
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.results.analysis.selection import to_loss
from dirtune.results.records import store, studies
from dirtune.study import resolve, schema
from dirtune.training.trial import CONFIG, get_trial_folder
from dirtune.tuning.folder.layout import RESOLVED_STUDY
from dirtune.tuning.folder.records import Settings


def find_first_settings(study: resolve.ResolvedStudy, results: Storage) -> dict[str, list[Settings]]:
    """Return by arm the settings that its search tries first, in order.

    Args:
        study: the study to sweep.
        results: the results root, which has the earlier study.

    Raises:
        InputError: the earlier study does not exist, or has no complete trial in any arm that is searched now.
    """
    warm_start = study.search.warm_start
    settings: dict[str, list[Settings]] = {arm.name: [] for arm in study.searched_arms}
    if warm_start.presets:
        for arm in study.searched_arms:
            settings[arm.name].append(_select_values_in_space(arm, arm.config.to_plain()))
    if warm_start.study is not None:
        for name, best in _read_earlier_settings(study, results, warm_start.study).items():
            settings[name] += best[: warm_start.best]
    return {name: _remove_duplicates(each) for name, each in settings.items()}


def _read_earlier_settings(study: resolve.ResolvedStudy, results: Storage, earlier: str) -> dict[str, list[Settings]]:
    """Return by arm the settings of the complete trials of an earlier study, best first."""

    def make_error(rule: str, known: Sequence[str]) -> InputError:
        where = f"study {study.name!r}"
        return InputError(Fault(where=where, key="search.warm_start.study", rule=rule, got=earlier, known=known))

    if not results.exists(f"{earlier}/{RESOLVED_STUDY}"):
        known = [name for name in results.list_folders() if results.exists(f"{name}/{RESOLVED_STUDY}")]
        raise make_error("no such study has been swept", known)
    folder = results.get_folder(earlier)
    metric = studies.read_study(folder).metric
    rows = store.read_table(folder, "trials", columns=["arm", "status", "objective"]).to_pylist()
    losses = {row["trial_id"]: to_loss(row["objective"], metric) for row in rows if row["status"] == "complete"}
    arms = {row["trial_id"]: row["arm"] for row in rows}
    trial_ids: dict[str, list[str]] = {}
    for _, trial_id in sorted((loss, trial_id) for trial_id, loss in losses.items() if not math.isnan(loss)):
        trial_ids.setdefault(arms[trial_id], []).append(trial_id)
    # Optuna's grid sampler cannot complete partial settings
    needs_all = study.search.sampler == "grid"
    settings = {
        arm.name: _remove_duplicates(
            values
            for trial_id in trial_ids.get(arm.name, ())
            if (values := _select_values_in_space(arm, read_json_object(get_trial_folder(folder, trial_id), CONFIG)))
            and not (needs_all and len(values) < len(arm.space))
        )
        for arm in study.searched_arms
    }
    if not any(settings.values()):
        raise make_error("has no complete trial within the space of an arm of the same name", list(trial_ids))
    return settings


def _select_values_in_space(arm: schema.Arm, config: Mapping[str, Any]) -> Settings:
    """Return those values of a configuration that are in the arm's space."""
    values = {path: get_leaf(config, path) for path in arm.space}
    return {path: value for path, value in values.items() if arm.space[path].contains(value)}


def _remove_duplicates(settings: Iterable[Settings]) -> list[Settings]:
    """Return each of the settings once, at its first position: a study may have trained them with several seeds."""
    unique: dict[str, Settings] = {}
    for each in settings:
        unique.setdefault(to_canonical_json(dict(each)), each)
    return list(unique.values())
