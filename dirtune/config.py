"""`TrialConfig`: one training run as a value, and its identity.

A configuration is a frozen tree. Its canonical JSON together with the fingerprint of the data is hashed to `trial_id`:
equal settings on equal data are the same trial, in whatever study or arm they appear. A method (loss, terms,
re-weighting, scheme) and a recipe (optimizer, schedule, batch, epochs, augmentation) are separate branches, because on
AgeDB the recipe moves the error more than any method does.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    create_model,
    field_validator,
    model_serializer,
    model_validator,
)

from dirtune.frozen import Added, Frozen, hash_json, to_identity
from dirtune.losses import LOSSES, TERMS, RegressionLoss, Term
from dirtune.metrics import HIGHER_IS_BETTER, METRICS, OWN_METRICS, REGIONS
from dirtune.models.regressor import ModelSpec
from dirtune.recipe import Constant as Constant
from dirtune.recipe import Cosine as Cosine
from dirtune.recipe import Recipe as Recipe
from dirtune.recipe import Steps as Steps
from dirtune.recipe import Views as Views
from dirtune.reweighting import Reweighting


class DataConfig(Frozen):
    """Which ingested data set, and how its label bins become shot regions."""

    name: str
    shot_rule: str | None = None
    """A rule of the set's manifest; none: its default."""
    fraction: Annotated[float, Added()] = Field(default=1.0, gt=0, le=1)
    """Share of the training rows that is trained on: the same rows in every arm, a smaller share is part of a larger."""


class Joint(Frozen):
    """One stage: encoder, projection and predictor are trained together on the whole loss."""

    name: Literal["joint"] = "joint"

    @property
    def epochs(self) -> int:
        """Epochs after those of the recipe."""
        return 0


class TwoStage(Frozen):
    """First the representation, by the terms alone; then the predictor alone, by the regression loss.

    The counterpart of joint training in the ablation of Zhao et al., "ACCon", AAAI 2025, and the way of Rank-N-Contrast
    (Zha et al., NeurIPS 2023). In the first stage nothing trains the predictor and nothing is validated; a term that
    reads predictions, as ConR does, sees those of the predictor's start.
    """

    name: Literal["two_stage"] = "two_stage"
    epochs: int = Field(default=10, ge=1)
    """Length of the second stage, after the recipe's epochs; a choice of this library."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Constant rate of the second stage; none: the recipe's."""


class RRT(Frozen):
    """Regressor re-training: joint training without re-weighting, then a new predictor with it, on frozen features.

    Source: Yang et al., "Delving into deep imbalanced regression", ICML 2021 (github.com/YyzHarry/imbalanced-regression,
    `--retrain_fc`), after the decoupled training of Kang et al., ICLR 2020. The second stage starts from the best weights
    of the first. Departures: 1. batch norm and dropout of the frozen parts rest, where the official code leaves them in
    training mode (`published_batch_norm`); 2. FDS smooths in the first stage only, where features are trained.
    """

    name: Literal["rrt"] = "rrt"
    epochs: int = Field(default=30, ge=1)
    """Length of the second stage, after the recipe's epochs. Ren et al. (CVPR 2022): 10."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Constant rate of the second stage."""
    published_batch_norm: bool = False
    """The frozen parts stay in training mode, so that batch-norm statistics go on moving and dropout goes on."""


Scheme = Annotated[Joint | TwoStage | RRT, Field(discriminator="name")]


class Objective(Frozen):
    """The validation number that picks the epoch of a trial and the configuration of an arm."""

    metric: str = "mae"
    region: str = "all"

    @field_validator("metric")
    @classmethod
    def _metric_is_known(cls, metric: str) -> str:
        if metric not in (known := METRICS.keys() | OWN_METRICS.keys()):
            raise ValueError(f"must be one of {', '.join(sorted(known))}")
        return metric

    @field_validator("region")
    @classmethod
    def _region_is_known(cls, region: str) -> str:
        if region not in REGIONS:
            raise ValueError(f"must be one of {', '.join(REGIONS)}")
        return region

    @property
    def name(self) -> str:
        """Its name among the values of an epoch."""
        return f"val/{self.region}/{self.metric}"

    @property
    def mode(self) -> Literal["min", "max"]:
        return "max" if self.metric in HIGHER_IS_BETTER else "min"


class _Terms(Frozen):
    """The regularizer terms of the loss by name; absent or null: not used."""

    def get_active(self) -> dict[str, Term]:
        """The terms that are present, in the order of their names."""
        return {name: term for name in sorted(TERMS) if (term := getattr(self, name)) is not None}

    @model_serializer(mode="wrap")
    def _only_active(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # An absent term leaves no trace, so that registering a new one changes no trial's identity.
        return {name: value for name, value in serialize(self).items() if value is not None}


Terms = create_model(  # type: ignore[call-overload]
    "Terms", __base__=_Terms, **{name: (term | None, None) for name, term in TERMS.items()}
)


if TYPE_CHECKING:
    AnyLoss = RegressionLoss
else:
    AnyLoss = Annotated[reduce(or_, LOSSES.values()), Field(discriminator="name")]


class TrialConfig(Frozen):
    """One training run: data, regressor, loss `alpha * L_reg + sum of weighted terms`, re-weighting, recipe, seed."""

    data: DataConfig
    model: ModelSpec
    loss: AnyLoss = LOSSES["l1"]()
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the regression loss."""
    terms: Terms = Terms()
    reweighting: Reweighting = Reweighting()
    scheme: Scheme = Joint()
    """Which parts are trained when. A second stage has a new predictor, a new optimizer, a loss fitted anew and a constant
    learning rate, and the best epoch is one of its own; the recipe's epochs and schedule are those of the first."""
    recipe: Recipe = Recipe()
    objective: Objective = Objective()
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _every_stage_has_a_loss(self) -> TrialConfig:
        scheme = self.scheme.name
        if scheme != "joint" and self.alpha == 0:
            raise ValueError(f"scheme {scheme!r} needs alpha > 0: its second stage has no other loss")
        if scheme == "two_stage" and not self.terms.get_active():
            raise ValueError("scheme 'two_stage' needs terms: its first stage has no other loss")
        if scheme == "two_stage" and self.reweighting.fds is not None:
            raise ValueError("scheme 'two_stage' leaves reweighting.fds without effect")
        return self

    @model_validator(mode="after")
    def _terms_have_pairs(self) -> TrialConfig:
        is_split = self.recipe.accumulation > 1
        if is_split and self.recipe.micro_batch == 1 and self.terms.get_active():
            rule = "recipe.accumulation must leave two samples in a micro-batch"
            raise ValueError(f"{rule}: terms compare pairs")
        return self

    @property
    def epochs_planned(self) -> int:
        """Epochs of all stages."""
        return self.recipe.epochs + self.scheme.epochs

    def to_plain(self) -> dict[str, Any]:
        """The configuration as plain JSON data."""
        return self.model_dump(mode="json")

    def compute_trial_id(self, data_fingerprint: str) -> str:
        """Identity of this run on the data with that fingerprint: 16 hexadecimal digits."""
        return hash_json({"config": to_identity(self), "data": data_fingerprint})
