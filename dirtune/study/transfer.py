"""Arms that take the settings which the reference arm has selected, for the knobs that they share with it.

Tuning every method by itself asks how good each can be; carrying the reference's settings over asks what the method adds
while nothing else moves, as the fixed rows of the papers' tables do. A study may have one, the other, or both side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dirtune.errors import Fault

if TYPE_CHECKING:
    from dirtune.study.resolve import Arm, Study


def with_transfers(study: Study, arms: Sequence[Arm]) -> Iterator[Arm]:
    """The arms, and in place of some or beside them those that take settings from the reference arm."""
    source = next(arm for arm in arms if arm.name == study.reference)
    for arm in arms:
        shared = tuple(path for path in arm.knobs if path in source.knobs)
        if arm is source or not arm.knobs or study.search.transfer == "none":
            yield arm
        elif study.search.transfer == "only":
            yield replace(arm, knobs={}, transferred=shared)
        else:
            yield arm
            if shared:
                yield replace(arm, name=_beside(arm.name), knobs={}, transferred=shared)


def faults_of_transfer(study: Study, arms: Sequence[Arm], where: str) -> Iterator[Fault]:
    """A transfer from an arm that selects nothing, or to an arm whose name is taken."""
    if study.search.transfer == "none":
        return
    searched = [arm.name for arm in arms if arm.knobs]
    if study.reference not in searched:
        rule = "needs a reference arm with something to tune"
        yield Fault(where=where, key="search.transfer", rule=rule, got=study.reference, known=searched)
    taken = {arm.name for arm in arms} & {_beside(name) for name in searched}
    for name in sorted(taken):
        yield Fault(where=where, key=f"arms.{name}", rule="has the name of an arm that a transfer makes")


def _beside(arm: str) -> str:
    return f"{arm}@transfer"
