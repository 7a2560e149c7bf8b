"""What can be wrong with a study, part by part; `dirtune.study.resolve.resolve` collects it and raises once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dirtune.config import TrialConfig, leaf, merged, nested
from dirtune.errors import Fault, InputError
from dirtune.frozen import canonical_json, read
from dirtune.study.search_settings import LEAST_POPULATION, LEAST_SETTINGS, Population
from dirtune.study.space import Choice, Integer, Knob, size
from dirtune.study.transfer import faults_of_transfer

if TYPE_CHECKING:
    from dirtune.study.resolve import Arm, Study

_OWNERS = {"seed": "seeds", "objective": "objective", "segment": "search.scheduler"}
CHANGEABLE = ("alpha", "terms.", "recipe.learning_rate", "recipe.weight_decay", "recipe.momentum")
"""Numbers, or beginnings of their paths, that a training can change on its way."""


def faults_between_parts(study: Study, arms: list[str], where: str) -> Iterator[Fault]:
    """What is wrong with a study before its arms are looked at; `arms` are all their names."""
    if not arms:
        yield Fault(where=where, key="arms", rule="there is no arm, neither named nor derived")
    elif study.reference not in arms:
        yield Fault(where=where, key="reference", rule="unknown arm", got=study.reference, known=arms)
    if len(set(study.seeds)) < len(study.seeds):
        yield Fault(where=where, key="seeds", rule="a seed stands twice", got=list(study.seeds))
    yield from _faults_of_owned(study, where)
    for path, knob in study.space.items():
        for name in knob.arms or ():
            if name not in arms:
                yield Fault(where=where, key=f"space.{path}.arms", rule="unknown arm", got=name, known=arms)
        yield from _faults_of_condition(study, path, knob, where)
    yield from _faults_of_tuning_seed(study, where)
    yield from _faults_of_sequential(study, arms, where)


def _faults_of_owned(study: Study, where: str) -> Iterator[Fault]:
    """What the study sets for all its trials, set somewhere else as well."""
    settings = {
        "base": study.base,
        **{f"arms.{name}": overlay for name, overlay in study.arms.items()},
        **{f"parts.{name}": overlay for name, overlay in study.parts.items()},
        "axes": study.axes,
        "derive.one_factor": study.derive.one_factor,
        "space": study.space,
    }
    for place, paths in settings.items():
        for path in paths:
            if (setting := path.split(".")[0]) in _OWNERS:
                rule = f"is set by the study's own `{_OWNERS[setting]}`"
                yield Fault(where=where, key=f"{place}.{path}", rule=rule)


def _faults_of_condition(study: Study, path: str, knob: Knob, where: str) -> Iterator[Fault]:
    for axis, values in knob.when.items():
        key = f"space.{path}.when.{axis}"
        if axis not in study.axes:
            yield Fault(where=where, key=key, rule="is no axis", known=list(study.axes))
            continue
        if not values:
            yield Fault(where=where, key=key, rule="has no values: it would never be searched")
        for value in values:
            if value not in study.axes[axis]:
                rule = "is no value of this axis"
                yield Fault(where=where, key=key, rule=rule, got=value, known=list(map(str, study.axes[axis])))


def _faults_of_tuning_seed(study: Study, where: str) -> Iterator[Fault]:
    search, key = study.search, "search.tuning_seed"
    if search.confirm and search.tuning_seed is None:
        rule = "is missing: a search that is confirmed is trained with a seed of its own"
        yield Fault(where=where, key=key, rule=rule)
    if search.confirm and search.tuning_seed in study.seeds:
        rule = "must not be among `seeds`, which judge what the search has selected"
        yield Fault(where=where, key=key, rule=rule, got=search.tuning_seed)
    if not search.confirm and search.tuning_seed is not None:
        yield Fault(where=where, key=key, rule="has no effect without `confirm: true`")
    if not search.confirm and search.transfer != "none":
        rule = "needs `confirm: true`, which trains what the reference arm has selected"
        yield Fault(where=where, key="search.transfer", rule=rule, got=search.transfer)


def _faults_of_sequential(study: Study, arms: Sequence[str], where: str) -> Iterator[Fault]:
    rule, count = study.sequential, len(study.seeds)
    if rule is None:
        return
    if len(arms) < 2:
        yield Fault(where=where, key="sequential", rule="has nothing to compare with the reference")
    if count < 2:
        text = "the first look needs two seeds at least"
        yield Fault(where=where, key="seeds", rule=text, got=list(study.seeds))
    if rule.most_seeds <= count:
        text = f"must be more than the {count} of `seeds`, or no seed could be added"
        yield Fault(where=where, key="sequential.most_seeds", rule=text, got=rule.most_seeds)


def faults_of_config(plain: dict[str, Any], where: str, prefix: str) -> list[Fault]:
    """What is wrong with one arm's configuration."""
    try:
        read(TrialConfig, plain, where=where, prefix=prefix)
    except InputError as error:
        return list(error.faults)
    return []


def is_of_base(fault: Fault, base_faults: list[Fault]) -> bool:
    """Whether an arm only repeats what is already wrong in `base`."""
    key = fault.key.split(".", 2)[-1]
    return any((key, fault.rule) == (base.key.split(".", 1)[-1], base.rule) for base in base_faults)


def faults_of_axes(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Axes whose values all give the same configurations, such as 1 and 1.0."""
    for path, values in study.axes.items():
        found: dict[str, set[str]] = {canonical_json(value): set() for value in values}
        for arm in arms:
            found[canonical_json(arm.cell[path])].add(canonical_json(arm.config.plain()))
        if len(values) > 1 and len({frozenset(configs) for configs in found.values()}) == 1:
            rule = "changes nothing: all its values give the same configurations"
            yield Fault(where=where, key=f"axes.{path}", rule=rule, got=list(values))


def faults_of_arms(arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Arms that are the same configuration under two names, or come to be the same by what both tune."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        plain = arm.config.plain()
        for path in arm.knobs:
            plain = merged(plain, nested(path, None))
        first = seen.setdefault(canonical_json([plain, sorted(arm.knobs)]), arm)
        if first is not arm:
            is_same = first.config == arm.config
            rule = "is the same configuration as" if is_same else "differs only in what is tuned from"
            yield Fault(where=where, key=f"arms.{arm.name}", rule=f"{rule} arm {first.name!r}")


def faults_of_space(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Knobs that nobody has, that are compared already, or that leave what the arms accept."""
    for path, knob in study.space.items():
        users = [arm for arm in arms if path in arm.knobs]
        if path in study.axes:
            yield Fault(where=where, key=f"space.{path}", rule="is an axis already: compared, not tuned")
        if path in {"recipe.epochs", "scheme.epochs"} and study.search.scheduler is not None:
            rule = "cannot be tuned under a scheduler that stops trials by their epoch"
            yield Fault(where=where, key=f"space.{path}", rule=rule)
        if not users and not _names_what_is_not_there(study, path, knob, arms):
            yield _unused(path, arms, where)
        for arm in users:
            yield from _faults_of_knob(path, knob, arm, where)


def faults_of_search(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """A sampler, scheduler or transfer that the arms, their spaces or the objectives do not admit."""
    search = study.search
    yield from faults_of_transfer(study, arms, where)
    knobs = {path: knob for arm in arms for path, knob in arm.knobs.items()}
    if study.sequential is not None and knobs:
        searched = ", ".join(arm.name for arm in arms if arm.knobs)
        rule = f"adds seeds to arms that are known as they stand, and {searched} would be searched"
        yield Fault(where=where, key="sequential", rule=rule)
    if search.sampler == "grid" and (
        endless := [path for path, knob in knobs.items() if size({path: knob}) == math.inf]
    ):
        rule = f"grid needs finite spaces, and any number is possible for {', '.join(endless)}"
        yield Fault(where=where, key="search.sampler", rule=rule)
    if search.population is not None:
        yield from _faults_of_population(study, search.population, arms, where)
    if search.sampler == "cmaes":
        yield from _faults_of_cmaes(study, arms, where)
    yield from _faults_of_secondary(study, where)
    for key, is_set in (("search.confirm", search.confirm), ("secondary", bool(study.secondary))):
        if is_set and not knobs:
            yield Fault(where=where, key=key, rule="has no effect: no arm has anything to tune")
    if search.warm_start.study == study.name:
        yield Fault(where=where, key="search.warm_start.study", rule="must be another study", got=study.name)


def _faults_of_population(study: Study, rule: Population, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    key, search = "search.scheduler", study.search
    if search.confirm:
        text = (
            "changes settings during a training, so that there is no one configuration to confirm; leave `confirm` out"
        )
        yield Fault(where=where, key=key, rule=text, got=rule.name)
    if search.trials < LEAST_POPULATION:
        text = f"a population needs {LEAST_POPULATION} trainings or more"
        yield Fault(where=where, key="search.trials", rule=text, got=search.trials)
    for arm in (arm for arm in arms if arm.knobs):
        if fixed := [path for path in arm.knobs if not _is_changeable(path, arm)]:
            text = f"cannot change during a training (arm {arm.name!r}): {', '.join(fixed)}"
            yield Fault(where=where, key=key, rule=text, known=CHANGEABLE)
        if all(isinstance(knob, Choice | Integer) for knob in arm.knobs.values()):
            text = f"needs a number to change, and arm {arm.name!r} tunes none"
            yield Fault(where=where, key=key, rule=text)
        if arm.config.scheme.name != "joint":
            text = f"cannot divide the stages of arm {arm.name!r}"
            yield Fault(where=where, key=key, rule=text, got=arm.config.scheme.name)
        if rule.interval >= arm.config.epochs_planned:
            text = f"must be less than the {arm.config.epochs_planned} epochs of arm {arm.name!r}"
            yield Fault(where=where, key=f"{key}.interval", rule=text, got=rule.interval)


def _is_changeable(path: str, arm: Arm) -> bool:
    """Whether a running training can take another value: of a term only numbers, what else it has may bring parameters."""
    value = leaf(arm.config.plain(), path)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return path.startswith(CHANGEABLE) and is_number


def _faults_of_cmaes(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    for arm in arms:
        numbers = [path for path, knob in arm.knobs.items() if not isinstance(knob, Choice)]
        if arm.knobs and len(numbers) < LEAST_SETTINGS:
            rule = f"cmaes needs {LEAST_SETTINGS} numbers or more to tune, and arm {arm.name!r} has {len(numbers)}"
            yield Fault(where=where, key="search.sampler", rule=rule)
    if study.secondary:
        rule = "cmaes has one objective; leave it or `secondary` out"
        yield Fault(where=where, key="search.sampler", rule=rule)


def _faults_of_secondary(study: Study, where: str) -> Iterator[Fault]:
    scheduler = study.search.scheduler
    if study.secondary and scheduler is not None:
        rule = "stops trials by the objective alone; leave it or `secondary` out"
        yield Fault(where=where, key="search.scheduler", rule=rule, got=scheduler.name)
    names = [each.name for each in (study.objective, *study.secondary)]
    if len(set(names)) < len(names):
        yield Fault(where=where, key="secondary", rule="an objective stands twice", got=names)


def _names_what_is_not_there(study: Study, path: str, knob: Knob, arms: Sequence[Arm]) -> bool:
    """Whether a knob's own conditions are wrong already, which is said elsewhere."""
    names = {arm.name for arm in arms}
    return not names.issuperset(knob.arms or ()) or any(_faults_of_condition(study, path, knob, ""))


def _unused(path: str, arms: Sequence[Arm], where: str) -> Fault:
    key = f"space.{path}"
    having = [arm.name for arm in arms if leaf(arm.config.plain(), path) is not None]
    if not having:
        rule = "no arm has this setting"
        return Fault(where=where, key=key, rule=rule, known=_leaves(arms))
    rule = "is searched nowhere: `arms` and `when` leave out every arm that has this setting"
    return Fault(where=where, key=key, rule=rule, known=having)


def _faults_of_knob(path: str, knob: Knob, arm: Arm, where: str) -> Iterator[Fault]:
    default = leaf(arm.config.plain(), path)
    if not knob.contains(default):
        yield Fault(
            where=where, key=f"space.{path}", rule=f"excludes the value that arm {arm.name!r} starts from", got=default
        )
    ends = knob.values if isinstance(knob, Choice) else (knob.low, knob.high)
    for value in ends:
        plain = merged(arm.config.plain(), nested(path, value))
        yield from faults_of_config(plain, where, f"space.{path} in arm {arm.name!r}")


def _leaves(arms: Sequence[Arm]) -> list[str]:
    """Dotted paths of all settings of all arms."""

    def walk(tree: Mapping[str, Any], prefix: str) -> Iterator[str]:
        for key, value in tree.items():
            yield from (walk(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key])

    return sorted({path for arm in arms for path in walk(arm.config.plain(), "")})
