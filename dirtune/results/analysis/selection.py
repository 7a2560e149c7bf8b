"""Which trained model stands for an arm and a seed: named rules, each printed with its description in every table.

A rule chooses twice: the epoch of a trial (the best on validation data, or the last), and, where an arm was searched
and so has several configurations for one seed, the configuration. Only `oracle` looks at test data; it is there to
show how much that would flatter, not to be reported as a result.

Source: the idea of selection as a named and printed rule is DomainBed's (Gulrajani and Lopez-Paz, "In Search of Lost
Domain Generalization", ICLR 2021; facebookresearch/DomainBed `model_selection.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dirtune.errors import Fault, InputError
from dirtune.metrics import HIGHER_IS_BETTER

EPOCHS = ("best_val", "last")  # the epochs of a trial that are evaluated: `selection` in the metrics table


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained model that may be chosen: a trial at one of its evaluated epochs."""

    trial_id: str
    epoch: str
    """Of EPOCHS."""
    validation: float
    """The study's objective on validation data, as a loss: smaller is better, NaN where undefined."""
    test: float
    """The same on test data."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A rule: the candidates of one arm and one seed in, the chosen one out."""

    description: str
    choose: Callable[[Sequence[Candidate]], Candidate]


def best_val(candidates: Sequence[Candidate]) -> Candidate:
    """The configuration with the smallest validation objective, at its epoch with the smallest."""
    return _smallest((c for c in candidates if c.epoch == "best_val"), lambda c: c.validation)


def last(candidates: Sequence[Candidate]) -> Candidate:
    """The configuration with the smallest validation objective after its last epoch, at that epoch."""
    return _smallest((c for c in candidates if c.epoch == "last"), lambda c: c.validation)


def oracle(candidates: Sequence[Candidate]) -> Candidate:
    """The configuration and epoch with the smallest objective on test data."""
    return _smallest(candidates, lambda c: c.test)


SELECTIONS = {
    "best_val": Selection(
        description="best epoch and configuration by the objective on validation data", choose=best_val
    ),
    "last": Selection(description="last epoch; configuration by the objective there on validation data", choose=last),
    "oracle": Selection(
        description="ORACLE: epoch and configuration chosen on the test data themselves; optimistic", choose=oracle
    ),
}


def selection_named(name: str) -> Selection:
    """A rule by its name.

    Raises:
        InputError: there is none.
    """
    if name not in SELECTIONS:
        fault = Fault(where="selection", rule="unknown rule", got=name, known=list(SELECTIONS))
        raise InputError(fault)
    return SELECTIONS[name]


def as_loss(value: float | None, metric: str) -> float:
    """A metric's value turned so that smaller is better; NaN where it is undefined."""
    if value is None:
        return math.nan
    return -value if metric in HIGHER_IS_BETTER else value


def _smallest(candidates: Iterable[Candidate], score: Callable[[Candidate], float]) -> Candidate:
    # Undefined comes last, equal scores go by the identity of the trial: the choice depends on no file order.
    def rank(candidate: Candidate) -> tuple[float, str, str]:
        value = score(candidate)
        return math.inf if math.isnan(value) else value, candidate.trial_id, candidate.epoch

    return min(candidates, key=rank)
