"""What the searches of a study try first: the arms' own settings, and the best of an earlier study.

A search that begins at what is known to work is never worse off than that; the configurations cost budget as all others do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.frozen import to_canonical_json
from dirtune.io.storage import Storage
from dirtune.nested import get_leaf
from dirtune.results.analysis.selection import as_loss
from dirtune.results.records.names import RESOLVED_STUDY
from dirtune.results.records.store import read_table
from dirtune.results.records.studies import read_study
from dirtune.study.resolve import ResolvedStudy
from dirtune.study.schema import Arm
from dirtune.training.trial import CONFIG, trial_folder
from dirtune.tuning.folder.jobs import Settings


def first_configurations(study: ResolvedStudy, results: Storage) -> dict[str, list[Settings]]:
    """By arm, the settings that its search tries first, in their order.

    Args:
        results: the results root, in which an earlier study is looked for.

    Raises:
        InputError: the earlier study is not there, or has no complete trial in any arm that is searched now.
    """
    start = study.search.warm_start
    found: dict[str, list[Settings]] = {arm.name: [] for arm in study.searched_arms}
    if start.presets:
        for arm in study.searched_arms:
            found[arm.name].append(_known(arm, arm.config.to_plain()))
    if start.study is not None:
        earlier = _earlier(study, results, start.study)
        for name, best in earlier.items():
            found[name] += best[: start.best]
    return {name: _different(settings) for name, settings in found.items()}


def _earlier(study: ResolvedStudy, results: Storage, earlier: str) -> dict[str, list[Settings]]:
    """By arm, the configurations of an earlier study, best first."""
    if not results.exists(f"{earlier}/{RESOLVED_STUDY}"):
        known = [name for name in results.list_folders() if results.exists(f"{name}/{RESOLVED_STUDY}")]
        rule = "no such study has been swept"
        raise InputError(_fault(study, rule, earlier, known))
    folder = results.get_folder(earlier)
    ranked = _ranked(folder)
    # Optuna's grid takes no part of a configuration
    needs_all = study.search.sampler == "grid"
    found = {
        arm.name: _different(
            settings
            for trial_id in ranked.get(arm.name, ())
            if (settings := _known(arm, json.loads(trial_folder(folder, trial_id).read(CONFIG))))
            and not (needs_all and len(settings) < len(arm.space))
        )
        for arm in study.searched_arms
    }
    if not any(found.values()):
        rule = "has no complete trial within the space of an arm of the same name"
        raise InputError(_fault(study, rule, earlier, list(ranked)))
    return found


def _ranked(folder: Storage) -> dict[str, list[str]]:
    """By arm, the complete trials of a study by their validation objective, the best first."""
    metric = read_study(folder).metric
    rows = read_table(folder, "trials", columns=["arm", "status", "objective"]).to_pylist()
    scored = sorted(
        (as_loss(row["objective"], metric), row["trial_id"], row["arm"])
        for row in rows
        if row["status"] == "complete" and not math.isnan(as_loss(row["objective"], metric))
    )
    found: dict[str, list[str]] = {}
    for _, trial_id, arm in scored:
        found.setdefault(arm, []).append(trial_id)
    return found


def _known(arm: Arm, config: Mapping[str, Any]) -> Settings:
    """Those of a configuration's values that the arm's space has."""
    values = {path: get_leaf(config, path) for path in arm.space}
    return {path: value for path, value in values.items() if arm.space[path].contains(value)}


def _different(settings: Iterable[Settings]) -> list[Settings]:
    """Each configuration once, where it comes first: a study may have trained it with several seeds."""
    found: dict[str, Settings] = {}
    for each in settings:
        found.setdefault(to_canonical_json(dict(each)), each)
    return list(found.values())


def _fault(study: ResolvedStudy, rule: str, got: str, known: list[str]) -> Fault:
    return Fault(where=f"study {study.name!r}", key="search.warm_start.study", rule=rule, got=got, known=known)
