"""Resolution of a study: every arm as a full `TrialConfig`, or every fault of the file at once.

A study is data: nothing in it names a path or a machine.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dirtune import plugins
from dirtune.config import Objective, TrialConfig
from dirtune.errors import Fault, InputError
from dirtune.frozen import read, to_canonical_json
from dirtune.metrics import HIGHER_IS_BETTER
from dirtune.nested import get_leaf, merge
from dirtune.presets import PRESET_KEYS, PresetUse, expand_presets
from dirtune.randomness import SEEDS_PER_REPETITION, get_repetition
from dirtune.registry import Plugin
from dirtune.study import expand, files, search_settings, space, validate
from dirtune.study.schema import Arm, Claim, KeepModels, Resources, Study


@dataclass(frozen=True, kw_only=True)
class ArmSearchPlan:
    """One search over the tuned settings of an arm."""

    arm: Arm
    repeat: int
    """Number of the search, from 0."""
    seed: int
    """Seed of its trials."""

    @property
    def name(self) -> str:
        """Name of the search: the arm's, with the number of a further search."""
        return self.get_name(self.arm.name)

    def get_name(self, arm: str) -> str:
        """Return the name of the selection of an arm that uses this search."""
        return arm if self.repeat == 0 else expand.format_search_name(arm, self.repeat)


@dataclass(frozen=True, kw_only=True)
class ResolvedStudy:
    """A study with every arm as a full configuration; the other fields are those of the file (`Study`)."""

    name: str
    question: str
    reference: str
    seeds: tuple[int, ...]
    search: search_settings.Search
    objective: Objective
    claim: Claim
    secondary: tuple[Objective, ...]
    sequential: search_settings.Sequential | None
    representations: int
    keep_models: KeepModels
    resources: Resources
    arms: tuple[Arm, ...]
    splits: int = 1
    log: tuple[str, ...] = ()
    merged_arms: Mapping[str, str] = field(default_factory=dict)
    """Derived arms that are the same configuration as another arm, by name, and that arm."""

    @property
    def fixed_arms(self) -> tuple[Arm, ...]:
        """Arms with a known configuration: one trial per seed."""
        return tuple(arm for arm in self.arms if not arm.space and not arm.transferred_settings)

    @property
    def searched_arms(self) -> tuple[Arm, ...]:
        """Arms with tuned settings."""
        return tuple(arm for arm in self.arms if arm.space)

    @property
    def tuning_seed(self) -> int:
        """Seed of the trials of a search."""
        return self.seeds[0] if self.search.tuning_seed is None else self.search.tuning_seed

    @property
    def searches(self) -> tuple[ArmSearchPlan, ...]:
        """Searches of all arms with tuned settings, the first ones of all arms first."""
        return tuple(
            ArmSearchPlan(arm=arm, repeat=repeat, seed=self.tuning_seed + SEEDS_PER_REPETITION * repeat)
            for repeat in range(self.search.repeats)
            for arm in self.searched_arms
        )

    @property
    def repetitions(self) -> int:
        """Number of splits, or of searches; each has seeds of its own, in all arms."""
        return max(self.splits, self.search.repeats if self.searched_arms else 1)

    @property
    def trial_seeds(self) -> tuple[int, ...]:
        """Seeds of an arm's trials: the study's, for every repetition."""
        return tuple(
            seed + SEEDS_PER_REPETITION * repetition for repetition in range(self.repetitions) for seed in self.seeds
        )

    @property
    def possible_seeds(self) -> tuple[int, ...]:
        """All seeds that an arm may get, in the order of their use: more than `seeds` only in a sequential study."""
        if self.sequential is None:
            return self.trial_seeds
        added = self.sequential.most_seeds - len(self.seeds)
        # Above the largest seed, so that no added seed is one of the study's.
        return (*self.seeds, *range(max(self.seeds) + 1, max(self.seeds) + 1 + added))

    @property
    def compared_objective(self) -> Objective:
        """Metric and region by which a sequential study compares its arms."""
        claim, objective = self.claim, self.objective
        return Objective(metric=claim.metric or objective.metric, region=claim.region or objective.region)

    def arms_using(self, searched: str) -> tuple[Arm, ...]:
        """Return the arms that are trained with the selection of an arm's search: itself and its transfer variants."""
        is_source = searched == self.reference
        return tuple(arm for arm in self.arms if arm.name == searched or (arm.transferred_settings and is_source))

    def get_budget(self, arm: Arm) -> int:
        """Return the number of configurations that the search of an arm tries."""
        return int(min(self.search.trials, space.count_configurations(arm.space))) if arm.space else 0

    def get_seeds(self, arm: Arm) -> tuple[int, ...]:
        """Return the seeds of an arm's trials, without that of a confirmed search."""
        if arm.space and not self.search.confirm:
            return self.seeds[:1]
        return self.trial_seeds

    def get_repetition(self, seed: int) -> int:
        """Return the split or search that a trial with this seed belongs to."""
        return get_repetition(seed) if self.repetitions > 1 else 0

    def get_split(self, seed: int) -> int:
        """Return the number of the split that a trial with this seed is trained on."""
        return get_repetition(seed) if self.splits > 1 else 0

    def count_trials(self, arm: Arm) -> int:
        """Return the number of trials planned for an arm."""
        # Without confirmation, the search's trials are the result.
        evaluated = 0 if arm.space and not self.search.confirm else len(self.trial_seeds)
        return self.get_budget(arm) * self.search.repeats + evaluated

    def to_plain(self) -> dict[str, Any]:
        """Return the study as plain data: the content of `study.json`, which later runs are compared with."""
        sequential = None
        # With all seeds that may be used: readers of the results need no rule to derive them.
        if self.sequential is not None:
            sequential = {
                "seeds": list(self.possible_seeds),
                "step": self.sequential.step,
                "margin": self.claim.margin,
                **self.compared_objective.model_dump(mode="json"),
            }
        return {
            "name": self.name,
            "question": self.question,
            "reference": self.reference,
            "seeds": list(self.trial_seeds),
            "splits": self.splits,
            "objective": self.objective.model_dump(mode="json"),
            "claim": {
                "metric": self.compared_objective.metric,
                # The default region depends on the number of test samples; looks need one before there are any.
                "region": self.claim.region if sequential is None else self.compared_objective.region,
                "margin": self.claim.margin,
            },
            # None for a study without a search, so that changed search settings do not make it another study.
            "search": self.search.model_dump(mode="json") if self.searched_arms else None,
            "sequential": sequential,
            "secondary": [each.model_dump(mode="json") for each in self.secondary],
            "arms": [arm.name for arm in self.arms],
            "transfers": {arm.name: list(arm.transferred_settings) for arm in self.arms if arm.transferred_settings},
            "trials": {arm.name: self.count_trials(arm) for arm in self.arms},
            "configs": {arm.name: arm.config.model_dump(mode="json", exclude={"seed"}) for arm in self.arms},
            **self._describe_plugins(),
            "presets": {arm.name: used for arm in self.arms if (used := arm.presets.to_plain())},
            "spaces": {
                arm.name: {
                    path: distribution.model_dump(mode="json", exclude={"arms", "when"})
                    for path, distribution in arm.space.items()
                }
                for arm in self.searched_arms
            },
        }

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Plug-ins that the arms use, sorted by name."""
        found = {plugin for arm in self.arms for plugin in arm.config.list_plugins()}
        return tuple(sorted(found, key=lambda plugin: plugin.name))

    def _describe_plugins(self) -> dict[str, Any]:
        """Return the plug-ins of each arm, and what readers must know of their metrics; empty if there are none."""
        arms = {arm.name: plugins.describe(used) for arm in self.arms if (used := arm.config.list_plugins())}
        metrics = {
            metric: {"higher_is_better": metric in HIGHER_IS_BETTER}
            for metric in sorted({metric for arm in self.arms for metric in arm.config.plugin_metrics})
        }
        return ({"plugins": arms} if arms else {}) | ({"metrics": metrics} if metrics else {})


def load_study(
    source: files.StudySource,
    changes: Mapping[str, Any] | None = None,
    *,
    plugins: Iterable[str | Path] = (),
    allow_plugins: bool = False,
) -> ResolvedStudy:
    """Read and resolve a study; the arguments are those of `files.find_study` and `files.load_plugins`.

    Raises:
        InputError: every fault of the file.
    """
    file = files.find_study(source, changes)
    files.load_plugins(file, plugins, allow=allow_plugins)
    return resolve(file.read_plain(), where=file.where)


def select_arm(study: ResolvedStudy, name: str | None, *, where: str) -> Arm:
    """Return an arm of a study; None means its reference.

    Raises:
        InputError: there is no such arm.
    """
    arms = {each.name: each for each in study.arms}
    if (chosen := study.reference if name is None else name) not in arms:
        raise InputError(Fault(where=where, key="arms", rule="unknown arm", got=chosen, known=tuple(arms)))
    return arms[chosen]


def resolve(raw: Any, *, where: str) -> ResolvedStudy:
    """Resolve a study given as plain data.

    Args:
        where: name of the source in faults.

    Raises:
        InputError: every fault of the study.
    """
    if not isinstance(raw, dict):
        got = "nothing" if raw is None else type(raw).__name__
        raise InputError(Fault(where=where, rule="a study must be a mapping", got=got))
    # Before pydantic, which would only report them as unknown.
    kept, removed = validate.split_removed_options(raw, where)
    try:
        study = read(Study, kept, where=where)
    except InputError as error:
        raise InputError([*removed, *error.faults, *_find_faults_of_arms(kept, error.faults, where)]) from None
    # Raised here, since a wrong part or axis would make every arm wrong.
    if faults := [*removed, *validate.find_declaration_faults(study, where)]:
        raise InputError(faults)
    declared = list(expand.expand_arms(study))
    names = [each.name for each in declared]
    reference, objective = expand.find_reference(study, declared), _choose_objective(study, declared, where)
    study = study.model_copy(update={"reference": reference, "objective": objective})
    faults = list(validate.find_study_faults(study, names, where))
    faults += validate.find_confirmation_faults(study, where)
    faults += validate.find_sequential_faults(study, names, where)
    faults += validate.find_repetition_faults(study, where)
    faults += validate.find_claim_faults(study, where)
    # An invalid base is reported once, and the arms are still read, each with the faults of its own settings.
    own = {"objective": study.objective.model_dump(), "seed": study.seeds[0]}
    base, base_faults = _read_config(study.base | own, {}, where, "base")
    faults += base_faults
    if base is not None:
        faults += validate.find_idle_nulls(study, base, where)
    arms: list[Arm] = []
    for each in declared:
        key = f"arms.{each.name}"
        config, found = _read_config(study.base, each.overlay | own, where, key)
        faults += [
            fault for fault in found if fault not in faults and not validate.is_inherited(fault, key, base_faults)
        ]
        if config is not None:
            arms.append(
                Arm(
                    name=each.name,
                    axis_values=each.axis_values,
                    config=config,
                    space=_select_space(study, each, config),
                    is_derived=each.is_derived,
                    presets=PresetUse.find(study.base, each.overlay),
                )
            )
    # Before the merge: an axis without effect makes derived arms equal, and merging would remove all but one of its values.
    axis_faults = list(validate.find_axis_faults(study, arms, where))
    merged_arms = _find_merged_arms(arms, study.reference)
    is_complete = len(arms) == len(declared)
    arms = [arm for arm in arms if arm.name not in merged_arms]
    # Without the invalid arms, settings that only they have would be reported as settings of no arm.
    if is_complete:
        faults += validate.find_preset_faults(study, arms, where)
        faults += validate.find_space_faults(study, arms, where)
        faults += validate.find_split_faults(study, arms, where)
        faults += axis_faults or validate.find_arm_faults(arms, where)
        faults += validate.find_search_faults(study, arms, where)
    if faults:
        raise InputError(faults)
    return ResolvedStudy(
        name=study.name,
        question=study.question,
        reference=study.reference,
        seeds=study.seeds,
        search=study.search,
        objective=study.objective,
        claim=study.claim,
        secondary=study.secondary,
        sequential=study.sequential,
        representations=study.representations,
        keep_models=study.keep_models,
        resources=study.resources,
        splits=study.splits,
        log=study.log,
        arms=tuple(expand.add_transfer_variants(study, arms)),
        merged_arms=merged_arms,
    )


def _find_faults_of_arms(raw: Mapping[str, Any], found: Sequence[Fault], where: str) -> list[Fault]:
    """Return the faults of arms and reference in a study whose other sections are invalid, so that all are reported at once."""
    # Also an unknown key, whose name may have dots
    invalid = {
        key
        for key in raw
        if key not in Study.model_fields or any(f"{fault.key}.".startswith(f"{key}.") for fault in found)
    }
    if invalid & {"base", "arms", "parts", "derive", "axes"}:
        return []
    arms = raw.get("arms")
    first_arm = next(iter(arms)) if isinstance(arms, Mapping) and arms else "base"
    stand_ins: dict[str, Any] = {"name": "study", "question": "", "base": {}, "reference": first_arm, "seeds": [0]}
    try:
        resolve(stand_ins | {key: value for key, value in raw.items() if key not in invalid}, where=where)
    except InputError as error:
        # Rules between the sections would be about the stand-ins.
        sections = {"base", "arms", "reference"} - invalid
        return [fault for fault in error.faults if fault.key.split(".")[0] in sections]
    return []


def _choose_objective(study: Study, declared: Sequence[expand.DeclaredArm], where: str) -> Objective:
    """Return the study's objective; if it has none, that of the reference arm's recipe."""
    if "objective" not in study.model_fields_set:
        for each in declared:
            if each.name == study.reference and (config := _read_config(study.base, each.overlay, where, "")[0]):
                return config.objective
    return study.objective


def _read_config(
    base: dict[str, Any], overlay: dict[str, Any], where: str, key: str
) -> tuple[TrialConfig | None, list[Fault]]:
    """Return the base with an overlay as a configuration if it is valid, and its faults."""
    # The overlay may choose another data set, recipe or variant, which decide the settings of the base's presets, too.
    use, faults, plain = PresetUse.find(base, overlay), list[Fault](), dict[str, Any]()
    for layer, place in ((base, "base"), (overlay, key)):
        try:
            plain = merge(plain, expand_presets(layer, use.data, where=where, key=place, use=use))
        except InputError as error:
            faults += error.faults
            plain = merge(plain, {name: value for name, value in layer.items() if name not in PRESET_KEYS})
    # Settings that a wrong preset would have given are missing; the base reports it, and an arm its own faults as well.
    if any(not fault.key.startswith("base.") for fault in faults) or (faults and not overlay):
        return None, faults
    config, found = validate.read_config(plain, where, key)
    return None if faults else config, faults + found


def _select_space(study: Study, arm: expand.DeclaredArm, config: TrialConfig) -> dict[str, space.Distribution]:
    """Return the distributions of `space` that apply to an arm."""
    plain = config.to_plain()
    return {
        path: distribution
        for path, distribution in study.space.items()
        if get_leaf(plain, path) is not None
        and (distribution.arms is None or arm.name in distribution.arms)
        and all(arm.axis_values.get(axis) in values for axis, values in distribution.when.items())
    }


def _find_merged_arms(arms: Sequence[Arm], reference: str) -> dict[str, str]:
    """Return the derived arms that equal an earlier arm or the reference, with the name of that arm."""
    configs = {arm.name: to_canonical_json(arm.config.to_plain()) for arm in arms}
    # The reference is kept, whatever its place: the other arms are compared with it by name.
    first = {configs[arm.name]: arm.name for arm in arms if arm.name == reference}
    merged = {}
    for arm in arms:
        kept = first.setdefault(configs[arm.name], arm.name)
        if kept != arm.name and arm.is_derived:
            merged[arm.name] = kept
    return merged
