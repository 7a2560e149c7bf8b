"""Which studies a results root holds, and what each one's `study.json` says about it.

A root is a folder with one folder per study. The results layer reads `study.json` as plain data and can do without any
of its keys: a table must still be possible when only the trials have survived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from dirtune.errors import Fault, InputError
from dirtune.io.storage import Storage, without_keys

STUDY_FILE, PROVENANCE_FILE, SELECTED_FILE = "study.json", "provenance.json", "selected.json"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study plans for one arm."""

    seeds: tuple[int, ...]
    trial_ids: frozenset[str] = frozenset()
    """Empty: not known by name, as in an arm that is searched."""
    trials: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """What results need to know of a study; empty where `study.json` does not say."""

    name: str
    question: str = ""
    description: str = ""
    reference: str | None = None
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    metric: str = "mae"
    """The objective's."""
    region: str = "all"
    """The objective's."""
    plans: Mapping[str, Plan] = field(default_factory=dict)
    """Of every one of `arms`."""
    data: str = ""
    unit: str = ""
    """Of the label."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Resolved, by arm."""
    spaces: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(
        default_factory=dict
    )  # of every searched arm, by the path of the setting
    secondary: tuple[tuple[str, str], ...] = ()
    """Metric and region of further objectives."""
    sequential: Mapping[str, Any] = field(default_factory=dict)
    """How seeds are added, if they are."""


def open_studies(root: str | Path, studies: Sequence[str] | None = None) -> dict[str, Storage]:
    """The folders of the studies under a root, by name; `studies` picks some.

    Raises:
        InputError: there is no study, or one of `studies` is not there.
    """
    storage = Storage.at(root)
    found = {name: storage.below(name) for name in storage.folders() if _is_study(storage, name)}
    if not found:
        rule = f"holds no study (a folder with {STUDY_FILE} or results/trials)"
        raise InputError(Fault(where=without_keys(root), rule=rule))
    if studies is None:
        return found
    unknown = [name for name in studies if name not in found]
    if unknown:
        known = list(found)
        raise InputError(
            Fault(where=without_keys(root), rule="unknown study", got=name, known=known) for name in unknown
        )
    return {name: found[name] for name in found if name in studies}


def open_study(root: str | Path, study: str) -> Storage:
    """The folder of one study under a root.

    Raises:
        InputError: it is not there.
    """
    return open_studies(root, [study])[study]


def read_study(storage: Storage) -> StudyInfo:
    """What `study.json` in a study's folder says.

    Raises:
        InputError: it is there and not a JSON object.
    """
    name = storage.root.rsplit("/", 1)[-1]
    return study_info(name, _read_json(storage, STUDY_FILE), _read_json(storage, SELECTED_FILE))


def study_info(name: str, raw: Mapping[str, Any], selected: Mapping[str, Any] = MappingProxyType({})) -> StudyInfo:
    """What a `study.json` says, and the `selected.json` beside it."""
    objective = raw.get("objective") or {}
    data = raw.get("data") or {}
    return StudyInfo(
        name=name,
        question=raw.get("question") or "",
        description=raw.get("description") or "",
        reference=raw.get("reference"),
        arms=tuple(raw.get("arms") or ()),
        seeds=tuple(raw.get("seeds") or ()),
        metric=objective.get("metric") or "mae",
        region=objective.get("region") or "all",
        plans={arm: _plan(raw, selected, arm) for arm in raw.get("arms") or ()},
        data=data.get("name") or "",
        unit=(data.get("label") or data).get("unit") or "",
        configs=raw.get("configs") or {},
        spaces=raw.get("spaces") or {},
        secondary=tuple((each["metric"], each["region"]) for each in raw.get("secondary") or ()),
        sequential=raw.get("sequential") or {},
    )


def read_provenance(storage: Storage) -> dict[str, Any]:
    """What `provenance.json` in a study's folder says of code, libraries and machine; nothing if it is not there.

    Raises:
        InputError: it is there and not a JSON object.
    """
    return _read_json(storage, PROVENANCE_FILE)


def _is_study(root: Storage, name: str) -> bool:
    return root.exists(f"{name}/{STUDY_FILE}") or root.exists(f"{name}/results/trials")


def _read_json(storage: Storage, name: str) -> dict[str, Any]:
    if not storage.exists(name):
        return {}
    try:
        raw = json.loads(storage.read(name))
    except ValueError as error:
        where = storage.path(name)
        raise InputError(Fault(where=where, rule=f"not readable as JSON ({error})")) from None
    if not isinstance(raw, dict):
        raise InputError(Fault(where=storage.path(name), rule="must be a JSON object"))
    return raw


def _plan(raw: Mapping[str, Any], selected: Mapping[str, Any], arm: str) -> Plan:
    """From the list of planned trials if there is one, or of those that a search has selected, else from the seeds."""
    planned = [entry for entry in raw.get("planned") or () if entry["arm"] == arm]
    planned += selected.get(arm, {}).get("planned", ())
    seeds = sorted({entry["seed"] for entry in planned if entry.get("seed") is not None})
    if not seeds:
        seeds = list(raw.get("seeds") or ())
        is_searched = arm in (raw.get("spaces") or {})
        if is_searched and not (raw.get("search") or {}).get("confirm"):
            # A search tries its configurations with one seed
            seeds = seeds[:1]
    return Plan(
        seeds=tuple(seeds),
        trial_ids=frozenset(entry["trial_id"] for entry in planned if entry.get("trial_id")),
        trials=(raw.get("trials") or {}).get(arm),
    )
