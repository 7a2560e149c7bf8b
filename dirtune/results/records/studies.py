"""Studies of a results root, and the parts of their `study.json` that results need.

A root is a folder with one folder per study. The results layer reads `study.json` as plain data and works without any of its
keys: a table must remain possible when only the trials have survived.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from dirtune.errors import Fault, InputError
from dirtune.io.credentials import remove_credentials
from dirtune.io.jsonfile import read_json_object
from dirtune.io.storage import Storage
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.randomness import get_repetition
from dirtune.results.records.names import PROVENANCE, RESOLVED_STUDY, SELECTED

Repetition = Literal["splits", "searches"]


@dataclass(frozen=True, kw_only=True)
class ArmPlan:
    """Trials that a study plans for one arm."""

    seeds: tuple[int, ...]
    trial_ids: frozenset[str] = frozenset()
    """Empty if the ids are not known in advance, as in a searched arm."""
    trials: int | None = None


@dataclass(frozen=True, kw_only=True)
class StudyInfo:
    """Facts of a study that results need; a field is empty if `study.json` lacks it."""

    name: str
    question: str = ""
    description: str = ""
    reference: str | None = None
    arms: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()
    metric: str = "mae"
    """Metric of the objective."""
    region: str = "all"
    """Region of the objective."""
    plans: Mapping[str, ArmPlan] = field(default_factory=dict)
    """One for each of `arms`."""
    data: str = ""
    unit: str = ""
    """Unit of the label."""
    configs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Resolved configurations by arm."""
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Variant and names of the presets by arm, without the arms that name none."""
    spaces: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Search spaces by searched arm, then by dotted path of the setting."""
    secondary: tuple[tuple[str, str], ...] = ()
    """Metric and region of each secondary objective."""
    claim: Mapping[str, Any] = field(default_factory=dict)
    """Metric, region and margin that the study's words are about; None means the default."""
    transfers: Mapping[str, Any] = field(default_factory=dict)
    """Settings that an arm takes from the reference's search, by arm."""
    sequential: Mapping[str, Any] = field(default_factory=dict)
    """Rule by which seeds are added; empty if they are not."""
    splits: int = 1
    """Splits of the data that every arm is trained on."""
    searches: int = 1
    """Searches of every arm with settings to search."""

    @property
    def repetition(self) -> Repetition | None:
        """Splits or searches, if each has seeds of its own; they are then the unit of all tests. None if seeds are."""
        return "splits" if self.splits > 1 else "searches" if self.searches > 1 else None

    def get_data_split(self, seed: int) -> int:
        """Return the number of the split that a trial with this seed is trained on."""
        return get_repetition(seed) if self.splits > 1 else 0


def _is_list_of(kind: type) -> Callable[[object], bool]:
    # A boolean is an integer to Python.
    return lambda value: (
        isinstance(value, list) and all(isinstance(each, kind) and not isinstance(each, bool) for each in value)
    )


def _is_mapping_of(kind: type | tuple[type, ...]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, dict) and all(isinstance(each, kind) for each in value.values())


def _is_mapping_of_texts(value: object) -> bool:
    return isinstance(value, dict) and all(_is_list_of(str)(each) for each in value.values())


def _is_data(value: object) -> bool:
    # Earlier studies have the unit in a mapping of the label.
    return isinstance(value, dict) and all(
        _is_mapping_of(_SCALARS)(each) if name == "label" else isinstance(each, str | None)
        for name, each in value.items()
    )


_SCALARS = (str, int, float, type(None))
_FORMS: dict[str, tuple[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("question", "description", "reference"), ("a text", lambda value: isinstance(value, str))),
    "arms": ("a list of texts", _is_list_of(str)),
    "seeds": ("a list of integers", _is_list_of(int)),
    **dict.fromkeys(("objective", "claim"), ("a mapping of texts and numbers", _is_mapping_of(_SCALARS))),
    **dict.fromkeys(("configs", "presets", "spaces", "metrics"), ("a mapping of mappings", _is_mapping_of(dict))),
    **dict.fromkeys(("planned", "secondary"), ("a list of mappings", _is_list_of(dict))),
    "data": ("a mapping of texts", _is_data),
    "trials": ("a mapping of integers", _is_mapping_of(int)),
    "transfers": ("a mapping of lists of texts", _is_mapping_of_texts),
    **dict.fromkeys(("search", "sequential"), ("a mapping", _is_mapping_of(object))),
    "splits": ("a positive integer", lambda value: isinstance(value, int) and value > 0),
}
"""Form of each key of `study.json` that results read."""


def open_studies(root: str | Path, studies: Sequence[str] | None = None) -> dict[str, Storage]:
    """Return the folders of the studies under a root by name; `studies` selects some.

    Raises:
        InputError: there is no study, or one of `studies` does not exist.
    """
    storage = Storage.open(root)
    found = {
        name: storage.get_folder(name)
        for name in storage.list_folders()
        if storage.exists(f"{name}/{RESOLVED_STUDY}") or storage.exists(f"{name}/results/trials")
    }
    if not found:
        rule = f"holds no study (a folder with {RESOLVED_STUDY} or results/trials)"
        raise InputError(Fault(where=remove_credentials(root), rule=rule))
    if studies is None:
        return found
    unknown = [name for name in studies if name not in found]
    if unknown:
        known = list(found)
        raise InputError(
            Fault(where=remove_credentials(root), rule="unknown study", got=name, known=known) for name in unknown
        )
    return {name: found[name] for name in found if name in studies}


def open_study(root: str | Path, study: str) -> Storage:
    """Return the folder of one study under a root.

    Raises:
        InputError: it does not exist.
    """
    return open_studies(root, [study])[study]


def read_study(storage: Storage) -> StudyInfo:
    """Return the facts in the `study.json` of a study's folder.

    Raises:
        InputError: the file exists and is not a JSON object, or does not have the form of a study.
    """
    name, where = storage.root.rsplit("/", 1)[-1], storage.path(RESOLVED_STUDY)
    raw = _read_json(storage, RESOLVED_STUDY)
    if faults := [
        Fault(where=where, key=key, rule=f"damaged study file: must be {form}", got=raw[key])
        for key, (form, is_valid) in _FORMS.items()
        if raw.get(key) is not None and not is_valid(raw[key])
    ]:
        raise InputError(faults)
    try:
        return parse_study(name, raw, _read_json(storage, SELECTED))
    except (TypeError, AttributeError, KeyError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(Fault(where=where, rule=f"damaged study file ({error})")) from None


def parse_study(name: str, raw: Mapping[str, Any], selected: Mapping[str, Any] = MappingProxyType({})) -> StudyInfo:
    """Return the facts in the content of a `study.json` and of the `selected.json` of the same folder."""
    objective = raw.get("objective") or {}
    data = raw.get("data") or {}
    # Readers do not load plug-ins.
    for metric, about in (raw.get("metrics") or {}).items():
        HIGHER_IS_BETTER.note(metric, higher_is_better=about["higher_is_better"] is True)
    return StudyInfo(
        name=name,
        question=raw.get("question") or "",
        description=raw.get("description") or "",
        reference=raw.get("reference"),
        arms=tuple(raw.get("arms") or ()),
        seeds=tuple(raw.get("seeds") or ()),
        metric=objective.get("metric") or "mae",
        region=objective.get("region") or "all",
        plans={arm: _parse_plan(raw, selected, arm) for arm in raw.get("arms") or ()},
        data=data.get("name") or "",
        unit=(data.get("label") or data).get("unit") or "",
        configs=raw.get("configs") or {},
        presets=raw.get("presets") or {},
        spaces=raw.get("spaces") or {},
        secondary=tuple((each["metric"], each["region"]) for each in raw.get("secondary") or ()),
        claim=raw.get("claim") or {},
        transfers=raw.get("transfers") or {},
        sequential=_parse_sequential(raw.get("sequential") or {}),
        splits=raw.get("splits") or 1,
        searches=(raw.get("search") or {}).get("repeats") or 1,
    )


def read_provenance(storage: Storage) -> dict[str, Any]:
    """Return the `provenance.json` of a study's folder: code, libraries and machine. Empty if the file does not exist.

    Raises:
        InputError: the file exists and is not a JSON object.
    """
    return _read_json(storage, PROVENANCE)


def _read_json(storage: Storage, name: str) -> dict[str, Any]:
    return read_json_object(storage, name) if storage.exists(name) else {}


def _parse_sequential(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rule by which seeds are added; a number as margin is a share, as earlier studies wrote it."""
    margin = raw.get("margin")
    return {**raw, "margin": f"{100 * margin:g}%"} if isinstance(margin, float) else raw


def _parse_plan(raw: Mapping[str, Any], selected: Mapping[str, Any], arm: str) -> ArmPlan:
    """Return the plan of an arm from its listed trials, planned or selected by a search, or else from the seeds."""
    planned = [entry for entry in raw.get("planned") or () if entry["arm"] == arm]
    # The selections of further searches have names of their own
    for name, entry in selected.items():
        planned += entry.get("planned", ()) if entry.get("arm", name) == arm else ()
    seeds = sorted({entry["seed"] for entry in planned if entry.get("seed") is not None})
    if not seeds:
        seeds = list(raw.get("seeds") or ())
        is_searched = arm in (raw.get("spaces") or {})
        if is_searched and not (raw.get("search") or {}).get("confirm"):
            # A search trains its configurations with one seed
            seeds = seeds[:1]
    return ArmPlan(
        seeds=tuple(seeds),
        trial_ids=frozenset(entry["trial_id"] for entry in planned if entry.get("trial_id")),
        trials=(raw.get("trials") or {}).get(arm),
    )
