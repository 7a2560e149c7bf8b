"""How the settings of a study's space are tuned: budget, sampler, scheduler, seeds, and what a search starts from.

Every arm that has something to tune is searched alone, with the same budget. What a search selects has been chosen
because it was lucky too; `confirm` therefore trains it anew on the study's seeds, which the search has never seen.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dirtune.config import Objective
from dirtune.frozen import Frozen

LEAST_SETTINGS = 2
"""Numbers that an arm must tune for CMA-ES: there is no covariance of one."""


LEAST_POPULATION = 4
"""Trainings of a population: with fewer, one of two would be thrown away."""


class Asha(Frozen):
    """Asynchronous successive halving inside each arm: of the trials that reach a rung, the best share goes on.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (Ray's implementation). An
    arm is halved against itself only: arms are compared by the study, not by the scheduler.
    """

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs before the first rung."""
    reduction_factor: float = Field(default=3.0, gt=1)


class Median(Frozen):
    """The median stopping rule inside each arm: a trial stops when its best is worse than the median of the others' means.

    Source: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017 (Ray's implementation). After
    each epoch, the best objective of the trial is held against the other trials' running means up to that epoch.
    """

    name: Literal["median"] = "median"
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs that no trial is stopped before, and that no mean counts."""
    min_trials: int = Field(default=3, ge=1)
    """Other trials that must have come as far."""


class Population(Frozen):
    """Population based training inside each arm: trainings that fall behind go on from better ones, with other settings.

    Every `interval` epochs the worst share of an arm's trainings continues from the weights of the best share instead of
    its own, each with that one's settings times or divided by a factor, or drawn anew. So an arm's settings change during
    its training; only such as a running training can change may be tuned.

    Source: Jaderberg et al., "Population Based Training of Neural Networks", 2017 (truncation selection). Departure: all
    of an arm wait for each other at the end of an interval, so that the outcome does not depend on speed.
    """

    name: Literal["pbt"] = "pbt"
    interval: int = Field(default=1, ge=1)
    """Epochs between two exchanges."""
    share: float = Field(default=0.25, gt=0, le=0.5)
    """Of the population: how many are replaced, and how many are copied; one at least."""
    factor: float = Field(default=1.2, gt=1)
    """A number is multiplied by it or divided by it."""
    resample: float = Field(default=0.25, ge=0, le=1)
    """Probability that a setting is drawn anew from its space instead."""

    def segments(self, epochs: int) -> list[tuple[int, int]]:
        """Start and end of the parts of a training, in epochs."""
        starts = range(0, epochs, self.interval)
        return [(start, min(start + self.interval, epochs)) for start in starts]


class WarmStart(Frozen):
    """The configurations that a search tries first."""

    presets: bool = False
    """The arm's own settings, as the study states them or a method's preset does."""
    study: str | None = None
    """An earlier study under the same results root; the best configurations of its arm of the same name."""
    best: int = Field(default=3, ge=1)
    """How many configurations are taken from the earlier study."""


class Sequential(Frozen):
    """Seeds are added to an arm until its comparison with the reference is decided, or the seeds are used up.

    Decided is by paired t tests whose levels are spent over the looks (`dirtune.results.statistics.sequential`).
    """

    most_seeds: int = Field(ge=3)
    """Seeds of an arm at most, the study's own among them; further ones follow the largest of those."""
    step: int = Field(default=1, ge=1)
    """Seeds that are added at a time."""
    compare: Objective | None = None
    """Metric and shot region that are compared on test data; none: those of the study's objective."""
    margin: float = Field(default=0.02, gt=0)
    """What counts as no difference: a share of the reference's mean."""


class Search(Frozen):
    """How the settings of `space` are tuned, with the same budget in every arm that has any of them."""

    trials: int = Field(default=20, ge=1)
    """Configurations tried per arm; the size of the population under pbt."""
    sampler: Literal["tpe", "random", "gp", "qmc", "grid", "cmaes"] = "tpe"
    """How Optuna proposes configurations; grid needs a finite space, cmaes two numbers or more in every arm."""
    startup: int | None = Field(default=None, ge=1)
    """Configurations of an arm that tpe and gp draw at random before their models propose any; none: a third of `trials`, at
    most ten. Optuna's own ten, whatever the budget, would make of a search of ten a random one."""
    scheduler: Annotated[Asha | Median | Population, Field(discriminator="name")] | None = None
    """none: every trial runs to its end."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampler; the trials use `tuning_seed`, or without `confirm` the first of the study's seeds."""
    confirm: bool = False
    """Train the configuration that an arm selects with every seed of the study, as the arms without a search are."""
    tuning_seed: int | None = Field(default=None, ge=0)
    """With `confirm`: the seed of the trials of the search, none of the study's."""
    transfer: Literal["none", "only", "both"] = "none"
    """Whether other arms take the settings that the reference arm has selected, for the knobs they share with it: in place
    of a search of their own (only), or beside it, as further arms named ARM@transfer (both)."""
    warm_start: WarmStart = WarmStart()

    @property
    def drawn_at_random(self) -> int:
        """Configurations of an arm before a model proposes."""
        return self.startup or min(10, math.ceil(self.trials / 3))

    @property
    def population(self) -> Population | None:
        """The scheduler, if it is population based training."""
        return self.scheduler if isinstance(self.scheduler, Population) else None

    @field_validator("scheduler", mode="before")
    @classmethod
    def _without_a_name_it_is_asha(cls, scheduler: Any) -> Any:
        return {"name": "asha", **scheduler} if isinstance(scheduler, dict) else scheduler
