"""Parts of an arm, read from the resolved configurations of a study and from nothing else.

A *change* is a setting that an arm has other than the reference; a mapping that the reference has not (a regularizer term),
or that is of another `name` (another loss), is one change. A *part* is a set of changes that no recorded arm takes apart:
changes that the same arms have, among those arms that have nothing but changes of a target. So a projection that comes
with a contrastive term is a part of its own where some arm has it alone, and one part with the term where none has.

Names of arms would be shorter, but they are free text, and two arms of one name are not one configuration.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dirtune.frozen import to_canonical_json

Change = tuple[str, str]
"""Dotted path, and its value as JSON."""
State = frozenset[str]
"""Names of parts; empty for the reference."""


@dataclass(frozen=True, kw_only=True)
class Lattice:
    """Arms between the reference and a target, by the parts of the target that they have."""

    reference: str
    target: str
    parts: Mapping[str, frozenset[Change]]
    """By name, in the order of the settings."""
    arms: Mapping[State, str]
    """Of equal arms the first."""

    @property
    def top(self) -> State:
        """All parts: the target."""
        return frozenset(self.parts)

    def format_state(self, state: State) -> str:
        """Return a state, recorded or not, as text: the reference and the parts that are added to it."""
        return " + ".join([self.reference, *self.sort_parts(state)])

    def sort_parts(self, state: State) -> list[str]:
        """Return the parts of a state in the order of the settings."""
        return [name for name in self.parts if name in state]


def make_lattice(configs: Mapping[str, Mapping[str, Any]], reference: str, target: str) -> Lattice:
    """Find the parts of a target arm, and every arm that has some of them and nothing else.

    Args:
        configs: resolved configurations by arm, the reference and the target among them.
        reference: the arm without parts.
        target: the arm with all parts; its parts are those that `configs` separate.
    """
    made = {arm: list(_list_changes(configs[reference], config)) for arm, config in configs.items()}
    # An arm with a change that the target lacks is on no path to it.
    below = {arm: own for arm, own in made.items() if set(own) <= set(made[target])}
    groups: dict[tuple[str, ...], list[Change]] = {}
    for change in made[target]:
        # Changes that the same arms have cannot be separated by any comparison of arms.
        groups.setdefault(tuple(arm for arm, own in below.items() if change in own), []).append(change)
    parts = _name_parts(groups.values())
    arms: dict[State, str] = {}
    # The reference first, so that an arm equal to it does not take its place.
    for arm, own in {reference: made[reference], **below}.items():
        arms.setdefault(frozenset(name for name, part in parts.items() if part <= set(own)), arm)
    return Lattice(reference=reference, target=target, parts=parts, arms=arms)


def _list_changes(reference: Mapping[str, Any], config: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """Yield the settings that differ; one that only the reference has is null."""
    for key in dict.fromkeys([*reference, *config]):
        before: Any = reference.get(key)
        after: Any = config.get(key)
        if before == after:
            continue
        are_mappings = isinstance(before, Mapping) and isinstance(after, Mapping)
        # The settings of one loss mean nothing to another.
        if are_mappings and before.get("name") == after.get("name"):
            yield from _list_changes(before, after, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", to_canonical_json(after)


def _name_parts(groups: Iterable[list[Change]]) -> dict[str, frozenset[Change]]:
    """Name parts by the last words of their paths, or by whole paths where these are ambiguous."""
    found = [*groups]
    short = [", ".join(_format_change(path.rpartition(".")[2], value) for path, value in group) for group in found]
    whole = [", ".join(_format_change(path, value) for path, value in group) for group in found]
    names = short if len({*short}) == len(short) else whole
    return {name: frozenset(group) for name, group in zip(names, found, strict=True)}


def _format_change(key: str, text: str) -> str:
    value = json.loads(text)
    if value is None:
        return f"no {key}"
    if isinstance(value, Mapping):
        return f"{key}={value['name']}" if "name" in value else key
    return f"{key}={value if isinstance(value, str) else text}"
