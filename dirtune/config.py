"""`TrialConfig`: one training run as a frozen value, and its id.

The canonical JSON of a configuration and the fingerprint of the data are hashed to `trial_id`: equal settings on equal
data are the same trial, in any study or arm. A method (loss, terms, re-weighting, scheme) and a recipe (optimizer,
schedule, batch, epochs, augmentation) are separate branches, because on AgeDB the recipe changes the error more than any
method does.
"""

import hashlib
import json
import operator
from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, SupportsIndex

import pydantic
from pydantic import Field, create_model, field_validator, model_serializer, model_validator
from pydantic.fields import FieldInfo

from dirtune import plugins
from dirtune.frozen import Added, Frozen, hash_json, to_canonical_json, to_identity
from dirtune.losses import LOSSES, TERMS, RegressionLoss, Term, get_head
from dirtune.metrics import EXTRA_METRICS, HIGHER_IS_BETTER, REGIONS, check_directed
from dirtune.mixing import MIXING, Mixing
from dirtune.models.encoders import ENCODERS
from dirtune.models.regressor import ModelSpec, make_encoder_union
from dirtune.randomness import SEED_LIMIT
from dirtune.recipe import Constant, LastBatch, Optimizer, Recipe, Schedule, Views, check_micro_batches
from dirtune.registry import Plugin
from dirtune.reweighting import Reweighting
from dirtune.sampling import SAMPLING, Sampling
from dirtune.sharpness import SHARPNESS, Sharpness
from dirtune.synthesis import SYNTHESIS, Synthesis

if TYPE_CHECKING:
    # A union computed at run time is no type to a type checker.
    AnyLoss = RegressionLoss
    AnyMixing = Mixing
    AnySampling = Sampling
    AnySynthesis = Synthesis
    AnySharpness = Sharpness
else:
    AnyLoss = Annotated[reduce(or_, LOSSES.values()), Field(discriminator="name")]
    AnyMixing = Annotated[reduce(or_, MIXING.values()), Field(discriminator="name")]
    AnySynthesis = Annotated[reduce(or_, SYNTHESIS.values()), Field(discriminator="name")]
    AnySampling = Annotated[reduce(or_, SAMPLING.values()), Field(discriminator="name")]
    AnySharpness = Annotated[reduce(or_, SHARPNESS.values()), Field(discriminator="name")]


class DataConfig(Frozen):
    """Ingested data set, its shot rule and the share of its training rows."""

    name: str
    shot_rule: str | None = None
    """Rule of the manifest that assigns label bins to shot regions. None: the manifest's default."""
    fraction: Annotated[float, Added()] = Field(default=1.0, gt=0, le=1)
    """Share of the training rows used: the same rows in every arm, and a smaller share is a subset of a larger one."""
    split: Annotated[int, Added()] = Field(default=0, ge=0)
    """Number of the split: 0 is the ingested one, others are drawn from all rows (`dirtune.data.resplit`)."""


class Objective(Frozen):
    """Validation metric that selects the epoch of a trial and the configuration of an arm.

    Those of a predicted deviation (nll, crps, uce) are for studies of which every arm has a loss that predicts one.
    """

    metric: str = "mae"
    region: str = "all"

    @field_validator("metric")
    @classmethod
    def _check_metric(cls, metric: str) -> str:
        return check_directed(metric)

    @field_validator("region")
    @classmethod
    def _check_region(cls, region: str) -> str:
        if region not in REGIONS:
            raise ValueError(f"must be one of {', '.join(REGIONS)}")
        return region

    @property
    def name(self) -> str:
        """Name of the metric among the values of an epoch."""
        return f"val/{self.region}/{self.metric}"

    @property
    def mode(self) -> Literal["min", "max"]:
        return "max" if self.metric in HIGHER_IS_BETTER else "min"


class Joint(Frozen):
    """One stage: encoder, projection and predictor are trained together with the whole loss."""

    name: Literal["joint"] = "joint"

    @property
    def epochs(self) -> int:
        """Number of epochs after those of the recipe."""
        return 0


class _SecondStage(Frozen):
    """Settings of a second stage, which trains a new predictor alone; None means the setting of the recipe or of the trial."""

    optimizer: Annotated[Optimizer | None, Added()] = None
    schedule: Annotated[Schedule | None, Added()] = None
    """Schedule over the epochs of the second stage. None: a constant learning rate."""
    batch_size: Annotated[int | None, Added()] = Field(default=None, ge=1)
    last_batch: Annotated[LastBatch | None, Added()] = None
    """Rank-N-Contrast's script: keep, where its first stage drops."""
    weight_decay: Annotated[float | None, Added()] = Field(default=None, ge=0)
    momentum: Annotated[float | None, Added()] = Field(default=None, ge=0, lt=1)
    """Used by sgd only."""
    views: Annotated[Views | None, Added()] = None
    """Views of the second stage, all of which enter its regression loss. None: the recipe's views that enter it."""
    loss: Annotated[AnyLoss | None, Added()] = None
    """Regression loss of the second stage. None: the trial's."""
    reweighting: Annotated[Reweighting | None, Added()] = None
    """Re-weighting of the second stage. None: the trial's."""

    def make_recipe(self, recipe: Recipe) -> Recipe:
        """Return the recipe of the second stage of a trial that has this recipe."""
        # Only the views of the regression loss: the stage has no terms.
        seen = recipe.views if recipe.views.regression == "all" else Views(augmentation=recipe.views.augmentation)
        names = ("epochs", "learning_rate", "optimizer", "batch_size", "last_batch", "weight_decay", "momentum")
        own = {name: value for name in names if (value := getattr(self, name)) is not None}
        return recipe.model_copy(update={"schedule": self.schedule or Constant(), "views": self.views or seen, **own})

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        if self.views is not None and self.views.regression == "first":
            raise ValueError("views.regression must be 'all': the second stage has no terms")
        # Smoothing acts on the input of the predictor in training, and belongs to the representation.
        if self.reweighting is not None and self.reweighting.fds is not None:
            raise ValueError("reweighting.fds has no effect: the second stage trains no features")
        return self


class TwoStage(_SecondStage):
    """Two stages: the representation with the terms alone, then the predictor alone with the regression loss.

    The counterpart of joint training in the ablation of Zhao et al., "ACCon", AAAI 2025, and the training of
    Rank-N-Contrast (Zha et al., NeurIPS 2023). The first stage neither trains the predictor nor validates; a term of
    the predictions, such as ConR, gets those of the untrained predictor. Rank-N-Contrast's second stage (`main_linear.py`):
    100 epochs of sgd at 0.05 with batches of 64, one view, no weight decay and a cosine.
    """

    name: Literal["two_stage"] = "two_stage"
    epochs: int = Field(default=10, ge=1)
    """Length of the second stage, after the recipe's epochs; a choice of this library."""
    learning_rate: float | None = Field(default=None, gt=0)
    """Learning rate of the second stage. None: the recipe's."""


class RRT(_SecondStage):
    """Regressor re-training: joint training without re-weighting, then a new predictor with it, on frozen features.

    Source: Yang et al., "Delving into deep imbalanced regression", ICML 2021 (`--retrain_fc` in
    github.com/YyzHarry/imbalanced-regression), after the decoupled training of Kang et al., ICLR 2020. The second stage
    starts from the best weights of the first. Balanced MSE (Ren et al., CVPR 2022) is published in this form: l1 without
    weights, then one of its losses as `loss`, for 10 epochs with `published_batch_norm`. Departures: 1. batch normalization
    and dropout of the frozen parts are in evaluation mode, where the official code leaves them in training mode
    (`published_batch_norm`); 2. FDS smooths in the first stage only, where features are trained.

    With `reweighting` the second stage has that one, and the first stage the trial's.
    """

    name: Literal["rrt"] = "rrt"
    epochs: int = Field(default=30, ge=1)
    """Length of the second stage, after the recipe's epochs. Ren et al. (CVPR 2022): 10."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Learning rate of the second stage."""
    published_batch_norm: bool = False
    """Keep the frozen parts in training mode, with updates of the batch-norm statistics and with dropout."""
    first_objective: Annotated[Objective | None, Added()] = None
    """Validation metric that selects the epoch of the first stage. None: the trial's objective, which is that of the second
    stage. Balanced MSE's scripts: mae for the base model, balanced_mae for the second stage."""


Scheme = Annotated[Joint | TwoStage | RRT, Field(discriminator="name")]


class _Terms(Frozen):
    """Regularizer terms of the loss by name; a missing or null term is not used."""

    def get_active(self) -> dict[str, Term]:
        """Return the terms in use, sorted by name."""
        # Sorted, because the order of a sum of floats changes its last digits.
        return {name: term for name in sorted(TERMS) if (term := getattr(self, name, None)) is not None}

    @model_serializer(mode="wrap")
    def _serialize_active(self, serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Unused terms are left out, so that registering a new term changes no trial's id.
        return {name: value for name, value in serialize(self).items() if value is not None}


# Built from the registry, so that a new term needs no second declaration.
Terms = create_model(  # type: ignore[call-overload]
    "Terms", __base__=_Terms, **{name: (term | None, None) for name, term in TERMS.items()}
)


class TrialConfig(Frozen):
    """One training run: data, regressor, loss `alpha * L_reg + sum of weighted terms`, re-weighting, recipe, seed."""

    data: DataConfig
    model: ModelSpec
    loss: AnyLoss = LOSSES["l1"]()
    alpha: float = Field(default=1.0, ge=0)
    """Weight of the regression loss."""
    terms: Terms = Terms()
    reweighting: Reweighting = Reweighting()
    synthesis: Annotated[AnySynthesis | None, Added()] = None
    """Synthetic training rows of a table, made when the training starts. Shot regions and evaluation are those of the real rows;
    weights, sampling and fitted losses see the rows that are trained on. None: no synthetic rows."""
    sampling: Annotated[AnySampling | None, Added()] = None
    """Order of the training rows by their label bins. It adds to `reweighting`: samples that are drawn more often keep their
    weights. With scheme `rrt` it is that of the second stage. None: a permutation."""
    mixing: Annotated[AnyMixing | None, Added()] = None
    """Mixtures of samples in place of the samples of each training batch. Weights are mixed like labels; terms and feature
    smoothing get the label bin of the mixed label. None: no mixing."""
    sharpness: Annotated[AnySharpness | None, Added()] = None
    """Perturbation of the parameters at which the gradient of each step is computed a second time, which doubles the
    forward and backward passes. The recorded loss is that of the first pass. None: one pass."""
    scheme: Scheme = Joint()
    """Stages of the training. A second stage has a new predictor, a new optimizer, a newly fitted loss and a best epoch of
    its own; the recipe's epochs and schedule are those of the first stage."""
    recipe: Recipe = Recipe()
    objective: Objective = Objective()
    metrics: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """Metrics of plug-ins that are recorded with those of the data set. That of the objective is in any case."""
    seed: int = Field(default=0, ge=0, lt=SEED_LIMIT)

    @field_validator("metrics")
    @classmethod
    def _check_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        known = EXTRA_METRICS.get_added()
        for metric in metrics:
            if metric not in known:
                raise ValueError(f"must be metrics of plug-ins ({', '.join(sorted(known)) or 'there are none'})")
        return tuple(sorted(set(metrics)))

    @model_validator(mode="after")
    def _check_stages(self) -> "TrialConfig":
        scheme = self.scheme.name
        if scheme != "joint" and self.alpha == 0:
            raise ValueError(f"scheme {scheme!r} needs alpha > 0: its second stage has no other loss")
        if scheme == "two_stage" and not self.terms.get_active():
            raise ValueError("scheme 'two_stage' needs terms: its first stage has no other loss")
        # Smoothing acts on the input of the predictor, and the first stage trains none.
        if scheme == "two_stage" and self.reweighting.fds is not None:
            raise ValueError("scheme 'two_stage' leaves reweighting.fds without effect")
        reads = {getattr(term, "reads", "representation") for term in self.terms.get_active().values()}
        has_projection = self.model.projection_dim is not None and "representation" in reads
        if scheme == "two_stage" and getattr(self.model.encoder, "freeze", False) and not has_projection:
            rule = "scheme 'two_stage' has nothing to train in its first stage: model.encoder.freeze keeps the encoder"
            raise ValueError(f"{rule}, and no term reads a projection (model.projection_dim)")
        if isinstance(self.scheme, TwoStage | RRT):
            # Its other rules hold wherever the recipe's do.
            check_micro_batches(self.scheme.make_recipe(self.recipe), key="scheme.batch_size")
        return self

    @model_validator(mode="after")
    def _check_head(self) -> "TrialConfig":
        head, second = get_head(self.loss), getattr(self.scheme, "loss", None)
        if second is not None and get_head(second) != head:
            raise ValueError(
                f"scheme.loss must read the outputs of the loss, {_name_head(head)}; its own is {_name_head(get_head(second))}"
            )
        if head is not None and self.model.target_copies > 1:
            raise ValueError(f"model.target_copies is for losses of predictions; this one reads {_name_head(head)}")
        if self.model.predictor_output == "relu" and (head is not None or self.model.target_copies > 1):
            raise ValueError("model.predictor_output 'relu' is for a predictor of one output; leave it out")
        if self.sharpness is not None and any(getattr(each, "counts_calls", False) for each in (self.loss, second)):
            raise ValueError("sharpness calls the loss twice in a step, and this loss changes its state with each call")
        return self

    @model_validator(mode="after")
    def _check_pairs(self) -> "TrialConfig":
        is_split = self.recipe.accumulation > 1
        # One sample has no pair, so that every term would be zero without a warning.
        if is_split and self.recipe.micro_batch == 1 and self.terms.get_active():
            rule = "recipe.accumulation must leave two samples in a micro-batch"
            raise ValueError(f"{rule}: terms compare pairs")
        return self

    @model_validator(mode="after")
    def _check_mixing(self) -> "TrialConfig":
        for name, term in self.terms.get_active().items() if self.mixing is not None else ():
            if getattr(term, "temperature", None) == "individual":
                rule = f"mixing leaves no sample of its own to terms.{name}.temperature: individual"
                raise ValueError(f"{rule}; use fixed or learnable")
        return self

    @property
    def epochs_planned(self) -> int:
        """Epochs of all stages."""
        return self.recipe.epochs + self.scheme.epochs

    @property
    def plugin_metrics(self) -> tuple[str, ...]:
        """Metrics of plug-ins that are recorded, that of the objective included."""
        objectives = (self.objective, getattr(self.scheme, "first_objective", None))
        selecting = {each.metric for each in objectives if each is not None} & EXTRA_METRICS.get_added().keys()
        return tuple(sorted(selecting.union(self.metrics)))

    def list_plugins(self) -> list[Plugin]:
        """Return the plug-ins whose parts this run uses, sorted by name."""
        parts: list[Any] = [type(self.loss), type(getattr(self.scheme, "loss", None)), type(self.model.encoder)]
        parts += [type(self.synthesis), type(self.sampling), type(self.mixing), type(self.sharpness)]
        parts += [type(term) for term in self.terms.get_active().values()]
        parts += [EXTRA_METRICS[name] for name in self.plugin_metrics]
        encoder: Any = self.model.encoder
        of_module = {encoder.find_plugin()} if hasattr(encoder, "find_plugin") else set[Plugin]()
        found = of_module | {plugin for part in parts if (plugin := plugins.get_plugin(part)) is not None}
        return sorted(found, key=lambda plugin: plugin.name)

    def to_plain(self) -> dict[str, Any]:
        """Return the configuration as plain JSON data."""
        return self.model_dump(mode="json")

    def compute_trial_id(self, data_fingerprint: str) -> str:
        """Return the id of this run on the data with that fingerprint: 16 hexadecimal digits."""
        return hash_json({"config": to_identity(self), "data": data_fingerprint, **self.identify_outside()})

    def make_trial_ids(self, data_fingerprint: str) -> Callable[[int], str]:
        """Return a function that computes `compute_trial_id` of this configuration with another seed, a hundred times faster."""
        # Below the limit of seeds, and no number of any other setting
        mark = SEED_LIMIT - 1_234_567
        marked = to_identity(self.model_copy(update={"seed": mark}))
        identity = {"config": marked, "data": data_fingerprint, **self.identify_outside()}
        before, seed, after = to_canonical_json(identity).partition(f'"seed":{mark}')
        assert seed, "the seed is part of every identity"
        # Its state is copied, so that the longer part of the text is hashed once
        begun = hashlib.sha256(before.encode())

        def make_trial_id(seed: int) -> str:
            digest = begun.copy()
            digest.update(f'"seed":{seed}{after}'.encode())
            return digest.hexdigest()[:16]

        return make_trial_id

    def identify_outside(self) -> dict[str, Any]:
        """Return hashes of what a run uses from outside of dirtune; empty, and so without effect on an id, for most runs."""
        fingerprints = sorted({plugin.fingerprint for plugin in self.list_plugins()})
        encoder: Any = self.model.encoder
        weights = encoder.hash_weights() if hasattr(encoder, "hash_weights") else None
        return ({"plugins": fingerprints} if fingerprints else {}) | ({"weights": weights} if weights else {})

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        # With plug-ins as plain data and their sources: the other process may not have imported them.
        used = self.list_plugins()
        if not used:
            return super().__reduce_ex__(protocol)
        return restore_config, (json.dumps(self.to_plain()), used)


def _name_head(head: str | None) -> str:
    return "predictions" if head is None else f"the head {head!r}"


def restore_config(text: str, used: Sequence[Plugin]) -> TrialConfig:
    """Load plug-ins, and return the configuration that uses them, from its JSON.

    Raises:
        InputError: a plug-in cannot be loaded here.
    """
    for plugin in used:
        plugin.load()
    return TrialConfig.model_validate_json(text)


def _rebuild_models() -> None:
    """Let the models accept the parts that the registries have now."""
    loss: Any = reduce(or_, LOSSES.values())
    optional = Annotated[loss, Field(discriminator="name")] | None
    for stage in (TwoStage, RRT):
        stage.model_fields["loss"].annotation = optional
    TrialConfig.model_fields["loss"].annotation = loss
    for name, registry in {
        "synthesis": SYNTHESIS,
        "sampling": SAMPLING,
        "mixing": MIXING,
        "sharpness": SHARPNESS,
    }.items():
        part: Any = reduce(or_, registry.values())
        TrialConfig.model_fields[name].annotation = Annotated[part, Field(discriminator="name")] | None
    ModelSpec.model_fields["encoder"].annotation = make_encoder_union()
    fields = Terms.model_fields
    for name in fields.keys() - TERMS.keys():
        del fields[name]
    for name in TERMS:
        optional_term: Any = TERMS[name] | None
        fields[name] = FieldInfo.from_annotated_attribute(optional_term, None)
    # The inner ones first, of whose schemas that of the trial is made
    for model in (ModelSpec, Terms, TwoStage, RRT):
        model.model_rebuild(force=True)
    TrialConfig.model_fields["terms"].default = Terms()
    TrialConfig.model_rebuild(force=True)


for _registry in (LOSSES, TERMS, ENCODERS, SYNTHESIS, SAMPLING, MIXING, SHARPNESS):
    _registry.watch(_rebuild_models)
plugins.load_installed()
