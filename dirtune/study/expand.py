"""Expansion of a study into its arms: named ones and derived ones, crossed with the axes, and their transfer variants.

A part is a named overlay of `base`, such as one regularizer. Derived arms are compositions of parts and are named after
them (`accon+conr`), so that two derivations that need the same arm share it.

A transfer variant takes the values selected in the reference arm for the tuned settings that both arms have. Tuning
every method separately measures how good each can be; transferring the reference's settings measures what the method
adds while nothing else changes, as the fixed rows of the papers' tables do.
"""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from dirtune.nested import merge, nest
from dirtune.study.schema import Arm, Study

NO_PART = "base"
"""Name of the arm without any part."""

Overlay = dict[str, Any]


class DeclaredArm(NamedTuple):
    """One arm before its configuration is validated."""

    name: str
    axis_values: dict[str, Any]
    """Values of the study's axes, by dotted path."""
    overlay: Overlay
    """Settings merged over `base`."""
    is_derived: bool


def expand_arms(study: Study) -> Iterator[DeclaredArm]:
    """Yield every arm of a study, the named ones first; a named arm replaces a derived one of the same name."""
    arms: dict[str, Overlay] = dict(study.arms)
    for parts in list_compositions(study):
        arms.setdefault(name_composition(parts), compose([study.parts[part] for part in parts]))
    # Last, since the reference may be a derived arm.
    arms = {**arms, **{name: varied for name, varied in _vary_reference(study, arms).items() if name not in arms}}
    axis_names = _shorten_paths(list(study.axes))
    for arm, overlay in arms.items():
        for combination in itertools.product(*study.axes.values()):
            values = dict(zip(study.axes, combination, strict=True))
            settings = overlay
            # After the arm's own settings: an axis compares its values in every arm.
            for path, value in values.items():
                settings = merge(settings, nest(path, value))
            words = [f"{name}={json.dumps(value)}" for name, value in zip(axis_names, values.values(), strict=True)]
            # The axis values alone identify the arms of a study that declares a single one.
            name = " ".join([arm, *words] if len(arms) > 1 or not words else words)
            yield DeclaredArm(name, values, settings, is_derived=arm not in study.arms)


def count_arms(study: Study) -> int:
    """Return the number of arms that a study declares, with compositions that several derivations share counted for each."""
    derive, parts = study.derive, len(study.derive.pairs)
    declared = len(study.arms) + len(derive.ladder) + len(derive.add_one_in) + parts + math.comb(parts, 2)
    declared += len(derive.leave_one_out) + sum(map(len, derive.one_factor.values()))
    return declared * math.prod(map(len, study.axes.values()))


def find_reference(study: Study, declared: Sequence[DeclaredArm]) -> str:
    """Return the name of the reference, which may be written with the last keys of axes that end alike."""
    names = [each.name for each in declared]
    short = []
    for name in names:
        for path in study.axes:
            name = name.replace(f"{path}=", f"{path.rsplit('.', 1)[-1]}=", 1)
        short.append(name)
    is_unique = study.reference not in names and short.count(study.reference) == 1
    return names[short.index(study.reference)] if is_unique else study.reference


def compose(overlays: Sequence[Mapping[str, Any]]) -> Overlay:
    """Merge overlays; the methods that they name are concatenated, not replaced."""
    result: Overlay = {}
    for overlay in overlays:
        # A list would replace the list before it, and the composition would lose the methods of the earlier parts.
        methods = [
            name
            for chosen in (result.get("methods", []), overlay.get("methods", []))
            for name in (chosen if isinstance(chosen, list | tuple) else [chosen])
        ]
        result = merge(result, overlay)
        if methods:
            result["methods"] = methods
    return result


def add_transfer_variants(study: Study, arms: Sequence[Arm]) -> Iterator[Arm]:
    """Yield the arms with their transfer variants, which replace the tuned arms or follow them."""
    source = next(arm for arm in arms if arm.name == study.reference)
    for arm in arms:
        shared = tuple(path for path in arm.space if path in source.space)
        if arm is source or not arm.space or study.search.transfer == "none":
            yield arm
        elif study.search.transfer == "only":
            # Without a shared setting, the arm is trained with its own settings.
            yield replace(arm, space={}, transferred_settings=shared)
        else:
            yield arm
            if shared:
                yield replace(arm, name=format_transfer_name(arm.name), space={}, transferred_settings=shared)


def format_transfer_name(arm: str) -> str:
    """Return the name of an arm's transfer variant."""
    return f"{arm}@transfer"


def format_search_name(arm: str, repeat: int) -> str:
    """Return the name of a further search of an arm."""
    return f"{arm}@search{repeat}"


def name_composition(parts: Sequence[str]) -> str:
    """Return the name of the arm that is composed of parts."""
    return "+".join(parts) or NO_PART


def list_compositions(study: Study) -> list[tuple[str, ...]]:
    """Return the distinct compositions of parts, each in the order in which the parts are declared."""
    derive, chosen = study.derive, list[Sequence[str]]()
    if derive.ladder:
        chosen += [derive.ladder[:length] for length in range(len(derive.ladder) + 1)]
    if derive.add_one_in or derive.pairs:
        chosen += [(), *((part,) for part in (*derive.add_one_in, *derive.pairs))]
    chosen += itertools.combinations(derive.pairs, 2)
    if derive.leave_one_out:
        chosen.append(derive.leave_one_out)
        chosen += [[part for part in derive.leave_one_out if part != left_out] for left_out in derive.leave_one_out]
    # Sorted by the declaration and without duplicates, so that every derivation gives a composition the same name.
    return list(dict.fromkeys(tuple(part for part in study.parts if part in parts) for parts in map(frozenset, chosen)))


def _vary_reference(study: Study, arms: Mapping[str, Overlay]) -> dict[str, Overlay]:
    """Return the overlays of `derive.one_factor`, named after the last key of their paths where that is unique."""
    reference, factors = arms.get(study.reference), study.derive.one_factor
    # Reported as an unknown arm.
    if reference is None:
        return {}
    varied = {}
    for path, short in zip(factors, _shorten_paths(list(factors)), strict=True):
        for value in factors[path]:
            name = f"{study.reference} {short}={json.dumps(value)}"
            varied[name] = compose([reference, nest(path, value)])
    return varied


def _shorten_paths(paths: Sequence[str]) -> list[str]:
    """Return the last key of each path, or the whole path where another one ends alike."""
    # As terms.conr.tau and terms.accon.tau do
    keys = [path.rsplit(".", 1)[-1] for path in paths]
    counts = Counter(keys)
    return [key if counts[key] == 1 else path for path, key in zip(paths, keys, strict=True)]
