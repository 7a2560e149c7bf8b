"""A study: one YAML file that says what is compared, over which seeds, and what is tuned inside every arm.

Reading resolves it completely: every arm becomes a full `TrialConfig`, and everything that is wrong with the file is
reported at once. A study is data; nothing in it names a path or a machine.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from dirtune.config import Objective, Segment, TrialConfig, leaf, merged, nested
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen, canonical_json, read
from dirtune.presets import PRESET_KEYS, expanded
from dirtune.study.expand import Derive, declared, faults_of_declaration
from dirtune.study.files import find_study
from dirtune.study.search_settings import Search, Sequential
from dirtune.study.space import Knob, size
from dirtune.study.transfer import with_transfers
from dirtune.study.validate import (
    faults_between_parts,
    faults_of_arms,
    faults_of_axes,
    faults_of_config,
    faults_of_search,
    faults_of_space,
    is_of_base,
)
from dirtune.tuning.execution.fusing import Fuse


class Resources(Frozen):
    """What one trial holds while it runs."""

    cpus: int = Field(default=1, ge=1)
    """CPU cores, and torch threads, of each worker."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of each worker; a fraction lets trials share one."""
    workers: int = Field(default=1, ge=1)
    """1: the trial runs inside its Tune actor; 2 or more: a resident Ray Train group."""
    concurrent: int | None = Field(default=None, ge=1)
    """Most trials at once; none: as many as the cluster holds."""
    checkpoint_seconds: float = Field(default=10.0, ge=0)
    """Smallest time between two checkpoints of a trial."""
    fuse: Fuse = 1
    """Trials that one worker trains side by side, at most, on the same batches; those of a search are trained alone.
    `auto`: as many as the first ones show that there is memory for (`dirtune.tuning.execution.fusing`)."""
    memory_retries: int = Field(default=0, ge=0, le=3)
    """How often a trial whose batch does not fit into memory starts again with half the rows at a time; 0: it has failed.
    The batches and steps stay; batch normalisation and terms that compare pairs see fewer rows. No part of a trial's
    identity: what was used is recorded as `accumulation_used`."""

    @field_validator("fuse", mode="before")
    @classmethod
    def _is_a_number_or_left_open(cls, fuse: object) -> object:
        # In one sentence; of a union pydantic would tell about each member.
        if fuse == "auto" or (type(fuse) is int and fuse >= 1):
            return fuse
        raise ValueError("must be a number of trials, or 'auto'")

    @field_validator("gpus")
    @classmethod
    def _is_a_share_or_whole(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError("must be a share of one GPU or a whole number of them")
        return gpus

    @model_validator(mode="after")
    def _groups_are_not_fused(self) -> Self:
        if self.fuse != 1 and self.workers > 1:
            raise ValueError("fuse is for trials of one worker")
        return self


class Study(Frozen):
    """The file as written."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    question: str
    base: dict[str, Any]
    """What all arms share: a `TrialConfig` without seed and objective."""
    arms: dict[str, dict[str, Any]] = {"base": {}}
    """Named arms: what is laid over `base`."""
    parts: dict[str, dict[str, Any]] = {}
    """Named changes of `base` that `derive` puts together."""
    derive: Derive = Derive()
    """Arms that follow from the parts and from the reference."""
    axes: dict[str, tuple[Any, ...]] = {}
    """Settings by dotted path and the values compared; every arm is crossed with every combination."""
    reference: str
    """The arm that the others are compared with."""
    seeds: tuple[int, ...] = Field(min_length=1)
    space: dict[str, Knob] = {}
    search: Search = Search()
    objective: Objective = Objective()
    secondary: tuple[Objective, ...] = ()
    """Further validation numbers that a search improves along with the objective; the objective alone selects."""
    sequential: Sequential | None = None
    """Whether seeds are added where a comparison is undecided; none: every arm has the seeds above."""
    representations: int = Field(default=0, ge=0)
    """Test samples of every trial whose representations are kept, for figures; no part of a trial's identity."""
    resources: Resources = Resources()


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One configuration under comparison; `config` holds the study's first seed."""

    name: str
    cell: Mapping[str, Any]
    config: TrialConfig
    knobs: Mapping[str, Knob]
    is_derived: bool = False
    transferred: tuple[str, ...] = ()
    """Settings, by dotted path, that it takes from the configuration that the reference arm selects."""

    @property
    def cell_json(self) -> str:
        return canonical_json(self.cell)

    def with_seed(self, seed: int) -> TrialConfig:
        return self.config.model_copy(update={"seed": seed})


@dataclass(frozen=True, kw_only=True)
class ResolvedStudy:
    """A study with every arm as a full configuration."""

    study: Study
    arms: tuple[Arm, ...]
    merged_into: Mapping[str, str] = field(default_factory=dict)
    """Derived arms that are the same configuration as another arm, by name: that arm."""

    @property
    def name(self) -> str:
        return self.study.name

    @property
    def fixed_arms(self) -> tuple[Arm, ...]:
        """Arms that are known as they stand: one trial per seed."""
        return tuple(arm for arm in self.arms if not arm.knobs and not arm.transferred)

    @property
    def searched_arms(self) -> tuple[Arm, ...]:
        return tuple(arm for arm in self.arms if arm.knobs)

    @property
    def confirms(self) -> bool:
        """Whether what is selected in a search is trained anew on the study's seeds."""
        return self.study.search.confirm

    @property
    def tuning_seed(self) -> int:
        """The seed of the trials of a search."""
        seed = self.study.search.tuning_seed
        return self.study.seeds[0] if seed is None else seed

    @property
    def possible_seeds(self) -> tuple[int, ...]:
        """The seeds that arms may get, in the order in which they are used; `seeds` alone unless the study is sequential."""
        seeds, rule = self.study.seeds, self.study.sequential
        further = 0 if rule is None else rule.most_seeds - len(seeds)
        return (*seeds, *range(max(seeds) + 1, max(seeds) + 1 + further))

    @property
    def compared(self) -> Objective:
        """What a sequential study compares its arms by."""
        rule = self.study.sequential
        return (rule and rule.compare) or self.study.objective

    def takers(self, searched: str) -> tuple[Arm, ...]:
        """The arms that are trained with what the search of an arm selects: itself, and those that it is transferred to."""
        is_source = searched == self.study.reference
        return tuple(arm for arm in self.arms if arm.name == searched or (arm.transferred and is_source))

    def budget_of(self, arm: Arm) -> int:
        """Configurations that the search of an arm tries."""
        if not arm.knobs:
            return 0
        search = self.study.search
        # Each training counts once per segment
        if search.population is not None:
            return search.trials * len(search.population.segments(arm.config.epochs_planned))
        return int(min(search.trials, size(dict(arm.knobs))))

    def epochs_of(self, arm: Arm) -> float:
        """Epochs that a trial of an arm trains; of a population's, on average."""
        population, epochs = self.study.search.population, arm.config.epochs_planned
        if not arm.knobs or population is None:
            return epochs
        return epochs / len(population.segments(epochs))

    def seeds_of(self, arm: Arm) -> tuple[int, ...]:
        """The seeds of an arm's trials, those of a search that is confirmed aside."""
        if arm.knobs and not self.confirms:
            return self.study.seeds[:1]
        return self.study.seeds

    def trials_in(self, arm: Arm) -> int:
        """Trials that an arm will have."""
        trained = 0 if arm.knobs and not self.confirms else len(self.study.seeds)
        return self.budget_of(arm) + trained

    def plain(self) -> dict[str, Any]:
        """The resolved study as plain data: what `study.json` holds and a later run is compared with."""
        study = self.study
        return {
            "name": study.name,
            "question": study.question,
            "reference": study.reference,
            "seeds": list(study.seeds),
            "objective": study.objective.model_dump(mode="json"),
            "search": study.search.model_dump(mode="json") if self.searched_arms else None,
            "sequential": self._plain_sequential(),
            "secondary": [each.model_dump(mode="json") for each in study.secondary],
            "arms": [arm.name for arm in self.arms],
            "transfers": {arm.name: list(arm.transferred) for arm in self.arms if arm.transferred},
            "trials": {arm.name: self.trials_in(arm) for arm in self.arms},
            "configs": {arm.name: arm.config.model_dump(mode="json", exclude={"seed"}) for arm in self.arms},
            "spaces": {
                arm.name: {
                    path: knob.model_dump(mode="json", exclude={"arms", "when"}) for path, knob in arm.knobs.items()
                }
                for arm in self.searched_arms
            },
        }

    def _plain_sequential(self) -> dict[str, Any] | None:
        rule = self.study.sequential
        if rule is None:
            return None
        return {
            "seeds": list(self.possible_seeds),
            "step": rule.step,
            "margin": rule.margin,
            **self.compared.model_dump(mode="json"),
        }


def load_study(name_or_path: str) -> ResolvedStudy:
    """Read and resolve a study.

    Raises:
        InputError: with everything that is wrong with the file.
    """
    file = find_study(name_or_path)
    return resolve(file.raw(), where=file.where)


def resolve(raw: Any, *, where: str) -> ResolvedStudy:
    """Resolve a study given as plain data; `where` names its source in faults."""
    if not isinstance(raw, dict):
        raise InputError(Fault(where=where, rule="a study must be a mapping", got=type(raw).__name__))
    study = read(Study, raw, where=where)
    if faults := list(faults_of_declaration(study, where)):
        raise InputError(faults)
    cells = list(declared(study))
    faults = list(faults_between_parts(study, [cell.name for cell in cells], where))
    base, base_faults = _expanded_base(study, where)
    faults += base_faults
    arms: list[Arm] = []
    for name, cell, overlay, is_derived in cells:
        config, found = _expanded_arm(base, overlay, where, f"arms.{name}")
        faults += [fault for fault in found if not is_of_base(fault, base_faults)]
        if not found:
            knobs = _knobs_of(study, name, cell, config)
            arms.append(Arm(name=name, cell=cell, config=_config(config), knobs=knobs, is_derived=is_derived))
    is_whole, of_axes = len(arms) == len(cells), [*faults_of_axes(study, arms, where)]
    merged_into = _duplicates(arms, study.reference)
    arms = [arm for arm in arms if arm.name not in merged_into]
    # A setting of an arm that cannot be read would seem to be no arm's
    if is_whole:
        faults += [*faults_of_space(study, arms, where), *(of_axes or faults_of_arms(arms, where))]
        faults += faults_of_search(study, arms, where)
    if faults:
        raise InputError(faults)
    return ResolvedStudy(study=study, arms=tuple(with_transfers(study, arms)), merged_into=merged_into)


def _duplicates(arms: Sequence[Arm], reference: str) -> dict[str, str]:
    """Derived arms that are the configuration of an arm before them, or of the reference, and which one that is."""
    first: dict[str, str] = {canonical_json(arm.config.plain()): arm.name for arm in arms if arm.name == reference}
    found = {}
    for arm in arms:
        kept = first.setdefault(canonical_json(arm.config.plain()), arm.name)
        if kept != arm.name and arm.is_derived:
            found[arm.name] = kept
    return found


def _expanded_base(study: Study, where: str) -> tuple[dict[str, Any], list[Fault]]:
    """The base with its presets' settings in place, and what is wrong with it."""
    own = {"objective": study.objective.model_dump(), "seed": study.seeds[0]}
    try:
        base = expanded(study.base, leaf(study.base, "data.name"), where=where, key="base")
    except InputError as error:
        readable = {key: value for key, value in study.base.items() if key not in PRESET_KEYS}
        return {**readable, **own}, list(error.faults)
    return {**base, **own}, faults_of_config({**base, **own}, where, "base")


def _expanded_arm(
    base: dict[str, Any], overlay: dict[str, Any], where: str, key: str
) -> tuple[dict[str, Any], list[Fault]]:
    """The configuration of an arm with its presets' settings in place, and what is wrong with it."""
    data = leaf(merged(base, overlay), "data.name")
    try:
        config = merged(base, expanded(overlay, data, where=where, key=key))
    except InputError as error:
        return {}, list(error.faults)
    return config, faults_of_config(config, where, key)


def configured(arm: Arm, settings: Mapping[str, Any], seed: int, segment: Segment | None = None) -> TrialConfig:
    """An arm's configuration with tuned settings (by dotted path) and a seed; a segment: that part of its training."""
    plain = arm.config.plain() | {"seed": seed}
    plain["segment"] = None if segment is None else segment.model_dump(mode="json")
    for path, value in settings.items():
        plain = merged(plain, nested(path, value))
    return _config(plain)


def _config(plain: dict[str, Any]) -> TrialConfig:
    return TrialConfig.model_validate_json(json.dumps(plain))


def _knobs_of(study: Study, arm: str, cell: Mapping[str, Any], config: dict[str, Any]) -> dict[str, Knob]:
    full = _config(config).plain()
    return {
        path: knob
        for path, knob in study.space.items()
        if leaf(full, path) is not None
        and (knob.arms is None or arm in knob.arms)
        and all(cell.get(axis) in values for axis, values in knob.when.items())
    }
