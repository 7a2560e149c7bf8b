"""The arms that a study declares: named ones, those derived from its parts, all crossed with its axes.

A part is a named change of `base`, such as one regularizer. Derived arms are compositions of parts, named after them
(`accon+conr`), so that two derivations that need one arm share it.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from dirtune.config import merged, nested
from dirtune.errors import Fault
from dirtune.frozen import Frozen, canonical_json

if TYPE_CHECKING:
    from dirtune.study.resolve import Study

NO_PART = "base"
"""Name of the arm that has none of the parts."""

Overlay = dict[str, Any]
Composition = tuple[str, ...]


class Derive(Frozen):
    """Arms that follow from the study's parts and from its reference arm."""

    add_one_in: tuple[str, ...] = ()
    """The base, and the base with each of these parts alone."""
    leave_one_out: tuple[str, ...] = ()
    """All of these parts together, and all but each one."""
    ladder: tuple[str, ...] = ()
    """The base, then these parts added one after another."""
    pairs: tuple[str, ...] = ()
    """The base, each of these parts alone, and every two of them: what their interactions are computed from."""
    one_factor: dict[str, tuple[Any, ...]] = {}
    """Settings by dotted path, and the values that each takes alone around the reference arm."""


class Cell(NamedTuple):
    """One arm as declared."""

    name: str
    values: dict[str, Any]
    """On the axes, by dotted path."""
    overlay: Overlay
    """What is laid over `base`."""
    is_derived: bool


def declared(study: Study) -> Iterator[Cell]:
    """Every arm of a study, the named ones first; a derived one that has a named one's name is that one."""
    named = {**study.arms, **{k: v for k, v in _composed(study).items() if k not in study.arms}}
    arms = {**named, **_one_factor(study, named)}
    for arm, overlay in arms.items():
        for values in itertools.product(*study.axes.values()):
            cell = dict(zip(study.axes, values, strict=True))
            settings = overlay
            for path, value in cell.items():
                settings = merged(settings, nested(path, value))
            name = _cell_name(arm, cell, named=len(arms) > 1)
            yield Cell(name, cell, settings, is_derived=arm not in study.arms)


def faults_of_declaration(study: Study, where: str) -> Iterator[Fault]:
    """What is wrong with axes, parts and derivations before any arm is looked at."""
    factors = study.derive.one_factor
    compared = {f"axes.{path}": values for path, values in study.axes.items()}
    compared |= {f"derive.one_factor.{path}": values for path, values in factors.items()}
    for key, values in compared.items():
        if not values:
            yield Fault(where=where, key=key, rule="has no values")
        yield from _faults_of_values(values, where, key)
    for kind in ("add_one_in", "leave_one_out", "ladder", "pairs"):
        chosen: Composition = getattr(study.derive, kind)
        yield from _faults_of_values(chosen, where, f"derive.{kind}")
        for part in chosen:
            if part not in study.parts:
                yield Fault(where=where, key=f"derive.{kind}", rule="unknown part", got=part, known=list(study.parts))


def _faults_of_values(values: Sequence[Any], where: str, key: str) -> Iterator[Fault]:
    if len({canonical_json(value) for value in values}) < len(values):
        yield Fault(where=where, key=key, rule="a value stands twice", got=list(values))


def _composed(study: Study) -> dict[str, Overlay]:
    """The overlays of all compositions, by their names."""
    return {
        "+".join(parts) or NO_PART: composed([study.parts[part] for part in parts])
        for parts in dict.fromkeys(_compositions(study))
    }


def _compositions(study: Study) -> Iterator[Composition]:
    """Which parts go together, each composition in the order in which the parts are declared."""
    derive = study.derive
    if derive.ladder:
        for length in range(len(derive.ladder) + 1):
            yield _in_order(derive.ladder[:length], study)
    if derive.add_one_in or derive.pairs:
        yield ()
    for part in (*derive.add_one_in, *derive.pairs):
        yield _in_order((part,), study)
    for pair in itertools.combinations(derive.pairs, 2):
        yield _in_order(pair, study)
    if derive.leave_one_out:
        yield _in_order(derive.leave_one_out, study)
    for left_out in derive.leave_one_out:
        yield _in_order([part for part in derive.leave_one_out if part != left_out], study)


def _in_order(parts: Sequence[str], study: Study) -> Composition:
    return tuple(part for part in study.parts if part in parts)


def composed(overlays: Sequence[Mapping[str, Any]]) -> Overlay:
    """Overlays laid over each other; the methods that they name are put together, not replaced."""
    result: Overlay = {}
    for overlay in overlays:
        methods = [*_methods(result), *_methods(overlay)]
        result = merged(result, overlay)
        if methods:
            result["methods"] = methods
    return result


def _methods(overlay: Mapping[str, Any]) -> list[Any]:
    chosen = overlay.get("methods", [])
    return list(chosen) if isinstance(chosen, list | tuple) else [chosen]


def _one_factor(study: Study, arms: Mapping[str, Overlay]) -> dict[str, Overlay]:
    around = arms.get(study.reference)
    # Said as an unknown arm
    if around is None:
        return {}
    factors = study.derive.one_factor
    ends = Counter(map(_end, factors))
    return {
        f"{study.reference} {_end(path) if ends[_end(path)] == 1 else path}={json.dumps(value)}": composed(
            [around, nested(path, value)]
        )
        for path, values in factors.items()
        for value in values
    }


def _cell_name(arm: str, cell: Mapping[str, Any], *, named: bool) -> str:
    values = [f"{_end(path)}={json.dumps(value)}" for path, value in cell.items()]
    return " ".join([arm, *values] if named or not values else values)


def _end(path: str) -> str:
    return path.rsplit(".", 1)[-1]
