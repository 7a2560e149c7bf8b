"""The stages of a run: which epochs train which parts of the regressor, on which loss and at which learning rate.

`dirtune.config.Scheme` names the schemes and says where they come from; here they become values that the loop walks
through. A second stage trains a predictor of its own start, with an optimiser of its own, on an encoder and a projection
that rest: they get no gradient, and evaluation mode keeps their batch norm and their dropout still.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import nn

from dirtune.config import RRT, Constant, Cosine, Joint, Recipe, Steps, TrialConfig, Views
from dirtune.models.regressor import Regressor
from dirtune.randomness import derive_seed
from dirtune.reweighting import Reweighting
from dirtune.training.objective import TrainingLoss, reads


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive epochs that train the same parts on the same loss.

    The regression loss belongs to the predictor, the terms to the representation (encoder and projection): a stage that
    trains one of the two alone has that part of the loss alone.
    """

    start: int
    """Epochs before it."""
    epochs: int
    learning_rate: float
    schedule: Constant | Steps | Cosine
    reweighting: Reweighting
    views: Views
    trains_representation: bool = True
    trains_predictor: bool = True
    published_batch_norm: bool = False
    """`dirtune.config.RRT`."""

    @property
    def end(self) -> int:
        """Epochs finished when it ends."""
        return self.start + self.epochs

    def rate(self, epoch: int) -> float:
        """The learning rate of an epoch of the run, counted from 1."""
        return self.learning_rate * self.schedule.factor(epoch - self.start, self.epochs)


def stages(config: TrialConfig) -> tuple[Stage, ...]:
    """The stages of a run, one after the other."""
    recipe, scheme = config.recipe, config.scheme
    joint = Stage(
        start=0,
        epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        schedule=recipe.schedule,
        reweighting=config.reweighting,
        views=recipe.views,
    )
    if isinstance(scheme, Joint):
        return (joint,)
    second = replace(
        joint,
        start=joint.end,
        epochs=scheme.epochs,
        schedule=Constant(),
        learning_rate=scheme.learning_rate or recipe.learning_rate,
        views=_of_regression(recipe.views),
        trains_representation=False,
    )
    if isinstance(scheme, RRT):
        unweighted = Reweighting(fds=config.reweighting.fds)
        return (
            replace(joint, reweighting=unweighted),
            replace(second, published_batch_norm=scheme.published_batch_norm),
        )
    return replace(joint, trains_predictor=False), second


def stage_of(config: TrialConfig, epoch: int) -> Stage:
    """The stage that an epoch belongs to; epochs are counted from 1."""
    return next(stage for stage in stages(config) if epoch <= stage.end)


def freeze(model: Regressor, stage: Stage, config: TrialConfig) -> None:
    """Take the gradient from what the stage leaves alone, and from a projection that no part of its loss reads.

    Nothing is unfrozen but the predictor: no stage trains a representation that the stage before did not, and an
    encoder may keep word vectors fixed. Gradients of the stage before are dropped: they would count in the norm that
    clipping looks at.
    """
    model.zero_grad(set_to_none=True)
    model.predictor.requires_grad_(stage.trains_predictor)
    if not stage.trains_representation:
        model.encoder.requires_grad_(requires_grad=False)
    if model.projection is not None and not _reads_projection(stage, config):
        model.projection.requires_grad_(requires_grad=False)


def set_modes(model: nn.Module, regressor: Regressor, stage: Stage) -> None:
    """Training mode for what the stage trains, evaluation mode for what rests.

    Args:
        model: the regressor or its distributed wrapper.
    """
    model.train()
    if stage.trains_representation or stage.published_batch_norm:
        return
    regressor.encoder.eval()
    if regressor.projection is not None:
        regressor.projection.eval()


def restart_predictor(model: Regressor, seed: int) -> None:
    """Give the regressor a new predictor, from a stream that depends on the trial's seed alone.

    A new module, not new numbers in the old one: a distributed wrapper of the stage before still holds its parameters.
    """
    # Where, in what and in which layout every predictor starts; then where this one is.
    start = deepcopy(model.predictor).to("cpu", torch.float32)
    start = start.to(memory_format=torch.contiguous_format)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "init", "predictor", "second stage"))
        start.reset_parameters()
    model.predictor = deepcopy(model.predictor)
    model.predictor.load_state_dict(start.state_dict())


def build_optimizer(recipe: Recipe, model: Regressor, loss: TrainingLoss) -> torch.optim.Optimizer:
    """The recipe's optimiser over what a stage trains; groups that follow its learning rate are marked `scheduled`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": trained, "scheduled": True}, *loss.parameter_groups()]
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, weight_decay=decay, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=rate, weight_decay=decay)


def _of_regression(views: Views) -> Views:
    """The views that enter the regression loss."""
    if views.regression == "all":
        return views
    return Views(augmentation=views.augmentation)


def _reads_projection(stage: Stage, config: TrialConfig) -> bool:
    """Whether a gradient reaches the projection; a distributed wrapper would wait for one that does not come."""
    if not stage.trains_representation:
        return False
    by_predictor = stage.trains_predictor and config.model.predictor_input != "embedding"
    return by_predictor or "representation" in {reads(term) for term in config.terms.active().values()}
