"""Settings of the search inside an arm: budget, sampler, scheduler, seeds and warm start; and of sequential seeds.

Every arm with tuned settings is searched separately, with the same budget. The validation error of a selected
configuration is biased by the selection; `confirm` therefore trains it again on the study's seeds, which the search
has not used.
"""

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from dirtune.frozen import Frozen
from dirtune.randomness import SEED_LIMIT


class Asha(Frozen):
    """Asynchronous successive halving inside each arm: the best share of the trials that reach a rung continues.

    Source: Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020 (Ray's implementation). The
    trials of an arm compete with each other only: the study compares the arms, not the scheduler.
    """

    name: Literal["asha"] = "asha"
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs before the first rung."""
    reduction_factor: float = Field(default=3.0, gt=1)


class Median(Frozen):
    """Median stopping rule inside each arm: a trial stops when its best is worse than the median of the others' means.

    Source: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", KDD 2017 (Ray's implementation).
    After each epoch, the best objective of the trial is compared with the other trials' running means up to that epoch.
    """

    name: Literal["median"] = "median"
    grace_epochs: int = Field(default=1, ge=1)
    """Epochs before the first stop, which the means leave out."""
    min_trials: int = Field(default=3, ge=1)
    """Number of other trials that must have reached the epoch."""


class WarmStart(Frozen):
    """Configurations that a search tries first."""

    presets: bool = False
    """The arm's own settings, from the study file or a method's preset."""
    study: str | None = None
    """An earlier study below the same results root: the best configurations of its arm of the same name."""
    best: int = Field(default=3, ge=1)
    """Number of configurations from the earlier study."""


class Sequential(Frozen):
    """Sequential seeds: an arm gets seeds until the study's claim about it is settled over them, or no seed is left.

    Paired t tests of the claim's metric and region decide, with the level spent over the looks
    (`dirtune.results.statistics.sequential`).
    """

    most_seeds: int = Field(ge=3, le=100_000)
    """Largest number of seeds of an arm, including the study's own; added seeds follow the largest of those."""
    step: int = Field(default=1, ge=1)
    """Seeds added per look."""


class Search(Frozen):
    """Search over the settings of `space`, with the same budget in every arm that has any of them."""

    trials: int = Field(default=20, ge=1, le=10_000_000)
    """Configurations tried per arm."""
    sampler: Literal["tpe", "random", "gp", "qmc", "grid"] = "tpe"
    """Optuna's sampler; grid needs a finite space."""
    startup: int | None = Field(default=None, ge=1)
    """Random configurations of an arm before tpe and gp propose any. None: a third of `trials`, at most ten. Optuna's
    default of ten for every budget would turn a search of ten trials into a random one."""
    scheduler: Annotated[Asha | Median, Field(discriminator="name")] | None = None
    """None: every trial runs all its epochs."""
    seed: int = Field(default=0, ge=0, lt=SEED_LIMIT)
    """Seed of the sampler; the trials use `tuning_seed`, or without `confirm` the first of the study's seeds."""
    confirm: bool = False
    """Train the selected configuration of an arm with every seed of the study, like the arms without a search."""
    tuning_seed: int | None = Field(default=None, ge=0, lt=SEED_LIMIT)
    """Seed of the search's trials, with `confirm`; not one of the study's seeds."""
    repeats: int = Field(default=1, ge=1, le=100)
    """Independent searches of every arm, each with seeds of its own for the sampler, the search's trials and the trials that
    evaluate its selection. With several, searches are the unit of all tests, and the random configurations that they begin
    with agree over the arms in the settings that these share."""
    transfer: Literal["none", "only", "both"] = "none"
    """Transfer of the settings selected in the reference arm to the other arms with the same tuned settings. only:
    instead of a search of their own; both: in additional arms named ARM@transfer."""
    warm_start: WarmStart = WarmStart()

    @property
    def startup_trials(self) -> int:
        """Random configurations of an arm before the sampler's model proposes."""
        return self.startup or min(10, math.ceil(self.trials / 3))

    @field_validator("scheduler", mode="before")
    @classmethod
    def _default_to_asha(cls, scheduler: Any) -> Any:
        # pydantic needs the name to choose the member of the union.
        return {"name": "asha", **scheduler} if isinstance(scheduler, dict) else scheduler
