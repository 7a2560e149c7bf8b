"""Model selection per arm and seed: named rules, each printed with its description in every table.

A rule chooses twice: the epoch of a trial (the best on validation data, or the last), and, where an arm was searched
and so has several configurations for one seed, the configuration. Only `oracle` looks at test data; it is there to
show how much that would flatter, not to be reported as a result.

Source: the idea of selection as a named and printed rule is DomainBed's (Gulrajani and Lopez-Paz, "In Search of Lost
Domain Generalization", ICLR 2021; facebookresearch/DomainBed `model_selection.py`).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from dirtune.errors import Fault, InputError
from dirtune.metrics import HIGHER_IS_BETTER


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained model that may be chosen: a trial at one of its evaluated epochs."""

    trial_id: str
    epoch: str
    """One of `EVALUATED_EPOCHS`."""
    validation: float
    """The study's objective on validation data, as a loss: smaller is better, NaN where undefined."""
    test: float
    """The same on test data."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A selection rule: takes the candidates of one arm and one seed, returns the chosen one."""

    description: str
    choose: Callable[[Sequence[Candidate]], Candidate]


def choose_best_val(candidates: Sequence[Candidate]) -> Candidate:
    """Return the configuration with the smallest validation objective, at its epoch with the smallest."""
    return _choose_smallest((c for c in candidates if c.epoch == "best_val"), lambda c: c.validation)


def choose_last(candidates: Sequence[Candidate]) -> Candidate:
    """Return the configuration with the smallest validation objective after its last epoch, at that epoch."""
    return _choose_smallest((c for c in candidates if c.epoch == "last"), lambda c: c.validation)


def choose_oracle(candidates: Sequence[Candidate]) -> Candidate:
    """Return the configuration and epoch with the smallest objective on test data."""
    return _choose_smallest(candidates, lambda c: c.test)


SELECTIONS = {
    "best_val": Selection(
        description="best epoch and configuration by the objective on validation data", choose=choose_best_val
    ),
    "last": Selection(
        description="last epoch; configuration by the objective there on validation data", choose=choose_last
    ),
    # In capitals, because the footer of a table is where this must not be overlooked.
    "oracle": Selection(
        description="ORACLE: epoch and configuration chosen on the test data themselves; optimistic",
        choose=choose_oracle,
    ),
}


def get_selection(name: str) -> Selection:
    """Return a selection rule by its name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in SELECTIONS:
        raise InputError(Fault(where="selection", rule="unknown rule", got=name, known=list(SELECTIONS)))
    return SELECTIONS[name]


def to_loss(value: float | None, metric: str) -> float:
    """Return a metric's value with its sign turned so that smaller is better; NaN where it is undefined."""
    if value is None:
        return math.nan
    return -value if metric in HIGHER_IS_BETTER else value


def _choose_smallest(candidates: Iterable[Candidate], score: Callable[[Candidate], float]) -> Candidate:
    # Undefined scores come last, equal ones are ordered by trial, so that the choice does not depend on file order.
    def rank(candidate: Candidate) -> tuple[float, str, str]:
        value = score(candidate)
        return math.inf if math.isnan(value) else value, candidate.trial_id, candidate.epoch

    return min(candidates, key=rank)
