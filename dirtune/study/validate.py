"""Validation of a study: every rule between its parts; `dirtune.study.resolve.resolve` raises all faults at once."""

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dirtune.config import TrialConfig
from dirtune.errors import Fault, InputError
from dirtune.frozen import find_models, read, to_canonical_json
from dirtune.nested import get_leaf, iter_leaves, merge, nest
from dirtune.randomness import SEED_LIMIT, SEEDS_PER_REPETITION
from dirtune.results.statistics.margin import Margin
from dirtune.study.expand import (
    count_arms,
    format_search_name,
    format_transfer_name,
    list_compositions,
    name_composition,
)
from dirtune.study.schema import Arm, Study
from dirtune.study.space import Choice, Distribution, count_configurations

LONGEST_NAME = 200
"""Largest number of characters of an arm's name, from which names of files are made."""
MAX_ARMS = 10_000
MAX_TRIALS = 1_000_000
"""Of all arms together, without those of searches. A study is listed in full for every plan and sweep."""
_LOOKALIKES: dict[int, int | str | None] = {
    **str.maketrans(
        # Cyrillic and Greek letters, small Cyrillic ones, omicron
        "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0405\u0406\u0408"
        "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
        "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u04bb\u03bf",
        "ABEKMHOPCTYXSIJABEZHIKMNOPTYXaeopcyxsijdho",
    ),
    # Hyphens, dashes and minus; quotes
    **dict.fromkeys(range(0x2010, 0x2016), "-"),
    0x2212: "-",
    **dict.fromkeys((0x2018, 0x2019, 0x02BC), "'"),
    # Selectors of a variant of the character before
    **dict.fromkeys(range(0xFE00, 0xFE10)),
}
"""Characters that tables show alike."""
_FLOOR = re.compile(r"\(floor\b[^)]*\)$")
"""End of the names that tables give to floors."""
_OWNERS = {"seed": "seeds", "objective": "objective"}
_NO_POPULATION = (
    "was removed, since an arm whose settings change during training is no configuration to compare; "
    "use `scheduler: {name: asha}`"
)
REMOVED = {
    ("resources", "fuse", None): "was removed, since it made no study faster; leave it out",
    ("resources", "memory_retries", None): (
        "was removed, since it changed batch normalization and pair terms of single seeds; set the "
        "`recipe.accumulation` that the error of a trial without memory names"
    ),
    ("search", "population", None): _NO_POPULATION,
    ("search", "scheduler", "pbt"): _NO_POPULATION,
    ("search", "sampler", "cmaes"): "was removed; use `tpe` or `gp`",
    ("sequential", "compare", None): "was removed: seeds are added until the study's `claim` is settled; set it there",
    ("sequential", "margin", None): "was removed: set `margin` of the study's `claim`, such as 2%",
}
"""Options of earlier studies by section, key and value (None: every value), and what replaces them."""


def split_removed_options(raw: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[Fault]]:
    """Return a study's plain data without removed options, and one fault for each of these."""
    kept, faults = dict(raw), []
    for (section, key, removed), rule in REMOVED.items():
        settings = kept.get(section)
        if not isinstance(settings, Mapping) or key not in settings:
            continue
        value = settings[key]
        # A scheduler is a mapping with a name, a sampler only a name.
        name = value.get("name") if isinstance(value, Mapping) else value
        if removed is None or name == removed:
            kept[section] = {other: settings[other] for other in settings if other != key}
            faults.append(Fault(where=where, key=f"{section}.{key}", rule=rule, got=removed or value))
    return kept, faults


def find_declaration_faults(study: Study, where: str) -> Iterator[Fault]:
    """Find the faults of axes, parts and derivations, without which no arm can be expanded."""
    arms = count_arms(study)
    if arms > MAX_ARMS:
        key = "axes" if study.axes else "derive" if arms > len(study.arms) else "arms"
        yield Fault(where=where, key=key, rule=f"a study has at most {MAX_ARMS:,} arms, got {arms:,}")
    seeds = study.sequential.most_seeds if study.sequential else len(study.seeds)
    if arms <= MAX_ARMS and arms * seeds > MAX_TRIALS:
        rule = f"a study has at most {MAX_TRIALS:,} trials, got {arms:,} arms with {seeds:,} seeds"
        yield Fault(where=where, key="seeds", rule=rule)
    yield from _find_name_faults("arms", study.arms, where)
    yield from _find_name_faults("parts", study.parts, where)
    varied = {f"axes.{path}": values for path, values in study.axes.items()}
    varied |= {f"derive.one_factor.{path}": values for path, values in study.derive.one_factor.items()}
    kinds = ("add_one_in", "leave_one_out", "ladder", "pairs")
    composed: dict[str, tuple[str, ...]] = {f"derive.{kind}": getattr(study.derive, kind) for kind in kinds}
    for section, paths in {"axes": study.axes, "derive.one_factor": study.derive.one_factor}.items():
        for path in paths:
            if any(not part or part != part.strip() for part in path.split(".")):
                rule = "must be the dotted path of a setting, such as recipe.epochs"
                yield Fault(where=where, key=f"{section}.{path}" if path else section, rule=rule, got=path)
    for key, values in (varied | composed).items():
        if not values and key in varied:
            yield Fault(where=where, key=key, rule="has no values")
        # By their JSON text: 2 and 2.0 are two values here, and two names of arms.
        if len({to_canonical_json(value) for value in values}) < len(values):
            yield Fault(where=where, key=key, rule="has a duplicate value", got=list(values))
        for part in composed.get(key, ()):
            if part not in study.parts:
                yield Fault(where=where, key=key, rule="unknown part", got=part, known=list(study.parts))
    # Not of a study that is too large to list
    if arms <= MAX_ARMS:
        yield from _find_ambiguous_compositions(study, where)


def _find_ambiguous_compositions(study: Study, where: str) -> Iterator[Fault]:
    """Find compositions of parts with the name of another one, such as of x and y if a part is called `x+y`."""
    seen = dict[str, Sequence[str]]()
    for parts in list_compositions(study):
        name = name_composition(parts)
        if (first := seen.setdefault(name, parts)) != parts:
            one, other = (" and ".join(map(repr, each)) or "no part" for each in (first, parts))
            rule = f"the derived arm {name!r} would be made of {one} and also of {other}: rename a part"
            yield Fault(where=where, key="parts", rule=rule)


def _find_name_faults(section: str, names: Iterable[str], where: str) -> Iterator[Fault]:
    """Find names that a table could not show, or not tell apart from others."""
    seen = dict[str, str]()
    for name in names:
        rule = None
        if not name.strip():
            rule = "a name must not be blank"
        elif name != name.strip() or not name.isprintable():
            rule = "a name must not begin or end with a blank, or have line breaks or invisible characters"
        elif len(name) > LONGEST_NAME:
            rule = f"a name must have at most {LONGEST_NAME} characters"
        elif _FLOOR.search(name):
            rule = "names that end with (floor) are those of predictions without a training run"
        elif (first := seen.setdefault(_draw_name(name), name)) != name:
            rule = f"the name looks like {first!r}"
        if rule is not None:
            yield Fault(where=where, key=section, rule=rule, got=name)


def _draw_name(name: str) -> str:
    """Return what a reader sees of a name: letters of other alphabets as the Latin ones that they look like."""
    drawn = unicodedata.normalize("NFKC", name).translate(_LOOKALIKES)
    return " ".join(drawn.split())


def find_study_faults(study: Study, arms: Sequence[str], where: str) -> Iterator[Fault]:
    """Find the faults between the sections of a study that need no valid arm.

    Args:
        arms: names of all declared arms.
    """
    if not arms:
        yield Fault(where=where, key="arms", rule="there is no arm, neither named nor derived")
    elif study.reference not in arms:
        yield Fault(where=where, key="reference", rule="unknown arm", got=study.reference, known=arms)
    if len(set(study.seeds)) < len(study.seeds):
        yield Fault(where=where, key="seeds", rule="has a duplicate seed", got=list(study.seeds))
    # Settings that the study sets for all its trials.
    settings = {
        "base": study.base,
        **{f"arms.{name}": overlay for name, overlay in study.arms.items()},
        **{f"parts.{name}": overlay for name, overlay in study.parts.items()},
        "axes": study.axes,
        "derive.one_factor": study.derive.one_factor,
        "space": study.space,
    }
    for section, paths in settings.items():
        for path in paths:
            if (setting := path.split(".")[0]) in _OWNERS:
                rule = f"is set by the study's own `{_OWNERS[setting]}`"
                yield Fault(where=where, key=f"{section}.{path}", rule=rule)
    for path, distribution in study.space.items():
        for name in distribution.arms or ():
            if name not in arms:
                yield Fault(where=where, key=f"space.{path}.arms", rule="unknown arm", got=name, known=arms)
        yield from _find_condition_faults(study, path, distribution, where)


def _find_condition_faults(study: Study, path: str, distribution: Distribution, where: str) -> Iterator[Fault]:
    for axis, values in distribution.when.items():
        key = f"space.{path}.when.{axis}"
        if axis not in study.axes:
            yield Fault(where=where, key=key, rule="is not an axis", known=list(study.axes))
            continue
        if not values:
            yield Fault(where=where, key=key, rule="has no values: the setting would never be tuned")
        # By value, as distributions are selected for an arm: 1 and 1.0 are equal.
        for value in values:
            if value not in study.axes[axis]:
                rule, known = "is not a value of this axis", list(map(str, study.axes[axis]))
                yield Fault(where=where, key=key, rule=rule, got=value, known=known)


def find_confirmation_faults(study: Study, where: str) -> Iterator[Fault]:
    """Find conflicts between `confirm`, `tuning_seed`, `transfer` and the seeds."""
    search, key = study.search, "search.tuning_seed"
    if search.confirm and search.tuning_seed is None:
        yield Fault(where=where, key=key, rule="is missing: a confirmed search needs a seed of its own")
    # The selected trial would be reused as one of the trials that are to be independent of the selection.
    if search.confirm and search.tuning_seed in study.seeds:
        rule = "must not be one of `seeds`, which evaluate the selected configuration"
        yield Fault(where=where, key=key, rule=rule, got=search.tuning_seed)
    if not search.confirm and search.tuning_seed is not None:
        yield Fault(where=where, key=key, rule="has no effect without `confirm: true`")
    if not search.confirm and search.transfer != "none":
        rule = "needs `confirm: true`, which trains the configuration selected in the reference arm"
        yield Fault(where=where, key="search.transfer", rule=rule, got=search.transfer)


def find_repetition_faults(study: Study, where: str) -> Iterator[Fault]:
    """Find settings that several splits or searches leave without a meaning."""
    splits, repeats = study.splits, study.search.repeats
    if max(splits, repeats) == 1:
        return
    key = "splits" if splits > 1 else "search.repeats"
    if study.sequential is not None:
        rule = "cannot be combined with `sequential`, which adds seeds of one split and one search"
        yield Fault(where=where, key=key, rule=rule, got=max(splits, repeats))
    if repeats > 1 and not study.search.confirm:
        rule = "needs `confirm: true`: what each search has selected is trained with seeds of its own"
        yield Fault(where=where, key="search.repeats", rule=rule, got=repeats)
    seeds = {"seeds": max(study.seeds), "search.tuning_seed": study.search.tuning_seed or 0}
    for name, seed in seeds.items():
        if seed >= SEEDS_PER_REPETITION:
            rule = f"must be below {SEEDS_PER_REPETITION} with several splits or searches, whose seeds are counted from there"
            yield Fault(where=where, key=name, rule=rule, got=seed)


def find_split_faults(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find arms that choose their split themselves, and searches that would see the test rows of another split."""
    if any(arm.config.data.split for arm in arms) or any("data.split" in arm.space for arm in arms):
        yield Fault(where=where, key="data.split", rule="is set by the study's own `splits`")
    searched = any(arm.space for arm in arms)
    if searched and study.splits > 1 and study.search.repeats != study.splits:
        rule = (
            f"must be {study.splits}, the number of `splits`: every split needs a search of its own, since one on another split "
            "has seen its test rows"
        )
        yield Fault(where=where, key="search.repeats", rule=rule, got=study.search.repeats)


def find_sequential_faults(study: Study, arms: Sequence[str], where: str) -> Iterator[Fault]:
    """Find sequential settings under which no seed can be added.

    Args:
        arms: names of all declared arms.
    """
    if study.sequential is None:
        return
    count, most = len(study.seeds), study.sequential.most_seeds
    if len(arms) < 2:
        yield Fault(where=where, key="sequential", rule="needs an arm to compare with the reference")
    # A paired t test has no variance with one pair.
    if count < 2:
        yield Fault(where=where, key="seeds", rule="the first look needs at least two seeds", got=list(study.seeds))
    # Added seeds follow the largest one.
    if max(study.seeds) + most >= SEED_LIMIT:
        rule = "the largest seed leaves no seeds to add below 2**63"
        yield Fault(where=where, key="seeds", rule=rule, got=max(study.seeds))
    if most <= count:
        rule = f"must be more than the {count} of `seeds`, or no seed can be added"
        yield Fault(where=where, key="sequential.most_seeds", rule=rule, got=most)


def find_claim_faults(study: Study, where: str) -> Iterator[Fault]:
    """Find a margin that cannot be read, or that has no meaning for the claim's metric."""
    if study.claim.margin is None:
        return
    try:
        Margin.parse(study.claim.margin, metric=study.claim.metric or study.objective.metric)
    except InputError as error:
        yield from (Fault(where=where, key="claim.margin", rule=each.rule, got=each.got) for each in error.faults)


def read_config(plain: dict[str, Any], where: str, prefix: str) -> tuple[TrialConfig | None, list[Fault]]:
    """Return a validated configuration, or None and its faults."""
    try:
        return read(TrialConfig, plain, where=where, prefix=prefix), []
    except InputError as error:
        return None, list(error.faults)


def is_inherited(fault: Fault, prefix: str, base_faults: Sequence[Fault]) -> bool:
    """Return True if a fault of an arm is one of the base, which is reported once.

    Args:
        prefix: key of the arm.
    """
    own = (fault.key.removeprefix(f"{prefix}."), fault.rule)
    return any(own == (base.key.removeprefix("base."), base.rule) for base in base_faults)


def find_axis_faults(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find axes with equal configurations for all values, such as 1 and 1.0."""
    for path, values in study.axes.items():
        configs: dict[str, set[str]] = {to_canonical_json(value): set() for value in values}
        for arm in arms:
            configs[to_canonical_json(arm.axis_values[path])].add(to_canonical_json(arm.config.to_plain()))
        if len(values) > 1 and len({frozenset(each) for each in configs.values()}) == 1:
            rule = "changes nothing: all its values give the same configurations"
            yield Fault(where=where, key=f"axes.{path}", rule=rule, got=list(values))


def find_preset_faults(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find a published variant without an official script."""
    written = {"base": study.base, **{f"arms.{name}": overlay for name, overlay in study.arms.items()}}
    keys = [f"{section}.presets" for section, overlay in written.items() if overlay.get("presets") == "published"]
    if keys and not any(arm.presets.has_script() for arm in arms):
        rule = "has no effect: no arm names a preset, or no official script on the data set was compared"
        yield Fault(where=where, key=keys[0], rule=rule, got="published")


def find_idle_nulls(study: Study, base: TrialConfig, where: str) -> Iterator[Fault]:
    """Find nulls in arms and parts for a term, or another group of settings, that neither base nor another part has.

    YAML reads `conr:` without a value as null, which is an arm without the term.
    """
    plain = base.to_plain()
    overlays = {f"{kind}.{name}": each for kind in ("arms", "parts") for name, each in getattr(study, kind).items()}
    present = {path for part in study.parts.values() for path in _list_groups(part)}
    for key, overlay in overlays.items():
        # A preset may have the group.
        if overlay.keys() & {"methods", "presets"}:
            continue
        for path, value in iter_leaves(overlay):
            is_group = value is None and find_models(TrialConfig, path)
            if is_group and get_leaf(plain, path) is None and path not in present:
                rule = "null is an arm without it, as base is; write {} for its default settings"
                yield Fault(where=where, key=f"{key}.{path}", rule=rule)


def _list_groups(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths of all mappings in a tree."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield f"{prefix}{name}"
            yield from _list_groups(value, f"{prefix}{name}.")


def find_arm_faults(arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find arms with equal configurations, at once or once their tuned settings are selected."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        plain = arm.config.to_plain()
        # What both arms tune does not tell them apart.
        for path in arm.space:
            plain = merge(plain, nest(path, None))
        first = seen.setdefault(to_canonical_json([plain, sorted(arm.space)]), arm)
        if first is not arm:
            is_same = first.config == arm.config
            rule = "is the same configuration as" if is_same else "differs only in tuned settings from"
            yield Fault(where=where, key=f"arms.{arm.name}", rule=f"{rule} arm {first.name!r}")


def find_space_faults(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find distributions of settings that no arm has, that are axes, or with values that an arm does not accept."""
    for path, distribution in study.space.items():
        key = f"space.{path}"
        users = [arm for arm in arms if path in arm.space]
        if path in study.axes:
            yield Fault(where=where, key=key, rule="is already an axis: a setting is either compared or tuned")
        # Rungs and medians compare trials at equal epochs of equally long schedules.
        if path in {"recipe.epochs", "recipe.steps_per_epoch", "scheme.epochs"} and study.search.scheduler is not None:
            rule = "cannot be tuned under a scheduler that stops trials by their epoch"
            yield Fault(where=where, key=key, rule=rule)
        # A wrong condition of the distribution is a fault already, and the reason why no arm uses it.
        has_valid_arms = {arm.name for arm in arms}.issuperset(distribution.arms or ())
        if not users and has_valid_arms and not any(_find_condition_faults(study, path, distribution, where)):
            owners = [arm.name for arm in arms if get_leaf(arm.config.to_plain(), path) is not None]
            if owners:
                rule = "is tuned in no arm: `arms` and `when` exclude every arm that has this setting"
                yield Fault(where=where, key=key, rule=rule, known=owners)
            else:
                settings = sorted({path for arm in arms for path, _ in iter_leaves(arm.config.to_plain())})
                yield Fault(where=where, key=key, rule="no arm has this setting", known=settings)
        ends = distribution.values if isinstance(distribution, Choice) else (distribution.low, distribution.high)
        for arm in users:
            plain = arm.config.to_plain()
            # A search may start from the arm's own settings, and a sampler refuses a value outside of its distribution.
            if not distribution.contains(initial := get_leaf(plain, path)):
                yield Fault(where=where, key=key, rule=f"excludes the value of arm {arm.name!r}", got=initial)
            # The valid values of a number are an interval, so that its ends are enough.
            for value in ends:
                prefix = f"{key} in arm {arm.name!r}"
                yield from read_config(merge(plain, nest(path, value)), where, prefix)[1]


def find_search_faults(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """Find conflicts of the search with the arms, their spaces and the objectives."""
    search = study.search
    # Transfer variants are not among these arms yet.
    searched = [arm.name for arm in arms if arm.space]
    if search.transfer != "none":
        if study.reference not in searched:
            rule = "needs a reference arm with tuned settings"
            yield Fault(where=where, key="search.transfer", rule=rule, got=study.reference, known=searched)
        for name in sorted({arm.name for arm in arms} & {format_transfer_name(name) for name in searched}):
            rule = "is the name of an arm that `search.transfer` adds"
            yield Fault(where=where, key=f"arms.{name}", rule=rule)
    if study.sequential is not None and searched:
        rule = f"needs arms without a search, but {', '.join(searched)} would be searched"
        yield Fault(where=where, key="sequential", rule=rule)
    space = {path: distribution for arm in arms for path, distribution in arm.space.items()}
    continuous = [
        path for path, distribution in space.items() if math.isinf(count_configurations({path: distribution}))
    ]
    if search.sampler == "grid" and continuous:
        rule = f"grid needs finite spaces, but these settings are continuous: {', '.join(continuous)}"
        yield Fault(where=where, key="search.sampler", rule=rule)
    # Optuna accepts no intermediate values of several objectives, and Tune's schedulers know one metric.
    if study.secondary and search.scheduler is not None:
        rule = "stops trials by the objective alone; remove it or `secondary`"
        yield Fault(where=where, key="search.scheduler", rule=rule, got=search.scheduler.name)
    names = [each.name for each in (study.objective, *study.secondary)]
    if len(set(names)) < len(names):
        yield Fault(where=where, key="secondary", rule="has a duplicate objective", got=names)
    for name in sorted(
        {arm.name for arm in arms}
        & {format_search_name(name, at) for name in searched for at in range(1, search.repeats)}
    ):
        yield Fault(where=where, key=f"arms.{name}", rule="is the name of a search that `search.repeats` adds")
    for key, is_set in (
        ("search.confirm", search.confirm),
        ("search.repeats", search.repeats > 1),
        ("secondary", bool(study.secondary)),
    ):
        if is_set and not searched:
            yield Fault(where=where, key=key, rule="has no effect: no arm has tuned settings")
    if search.warm_start.study == study.name:
        yield Fault(where=where, key="search.warm_start.study", rule="must be another study", got=study.name)
