"""What a look at a cluster came to: a list of observations, each with its state, its value, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One thing that a sweep depends on."""

    subject: str
    value: str
    state: State = "ok"
    advice: str = ""
    """What to do; empty where nothing is to be done."""


def has_problem(observations: Iterable[Observation]) -> bool:
    """Whether something must be mended before a sweep can run."""
    return any(each.state == "problem" for each in observations)


def by_value(values: Mapping[str, str]) -> str:
    """What all nodes have in common, as one value; else every value with the nodes that have it."""
    nodes: dict[str, list[str]] = {}
    for node, value in values.items():
        nodes.setdefault(value, []).append(node)
    if len(nodes) <= 1:
        return next(iter(nodes), "")
    return "; ".join(f"{value} on {', '.join(names)}" for value, names in nodes.items())


def named(nodes: Sequence[str]) -> str:
    """The nodes of which something is said, at most four by name."""
    shown, rest = ", ".join(nodes[:4]), len(nodes) - 4
    return f"{shown} and {rest} more" if rest > 0 else shown
