"""Stages of a run: the epochs that train the same parts of the regressor, with their loss and learning rate.

`dirtune.config.Scheme` names the schemes and their sources; here they become the values that the loop runs through. A
second stage trains a newly initialized predictor, with its own optimizer, on a frozen encoder and projection: they get no
gradient, and evaluation mode freezes their batch norm and switches off their dropout.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from dirtune.config import Joint, TrialConfig, TwoStage
from dirtune.models.regressor import Regressor
from dirtune.randomness import derive_seed
from dirtune.recipe import Recipe
from dirtune.reweighting import Reweighting
from dirtune.training.eager_optimizers import without_compiler
from dirtune.training.objective import TrainingLoss, get_term_input


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive epochs that train the same parts on the same loss.

    The regression loss trains the predictor, the terms train the representation (encoder and projection): a stage that
    trains only one of the two has only that part of the loss.
    """

    number: int = 0
    """Position among the stages of the trial."""
    start: int
    """Number of epochs before the stage."""
    passes_before: int
    """Number of passes over the training rows that have begun before the stage."""
    config: TrialConfig
    """The trial's configuration with the stage's own recipe, regression loss, re-weighting and objective."""
    trains_representation: bool = True
    trains_predictor: bool = True
    published_batch_norm: bool = False
    """See `dirtune.config.RRT`."""

    @property
    def recipe(self) -> Recipe:
        """Recipe of the stage."""
        return self.config.recipe

    @property
    def end(self) -> int:
        """Number of finished epochs at the end of the stage."""
        return self.start + self.recipe.epochs

    @property
    def has_terms(self) -> bool:
        """True if terms, which compare rows, are parts of the loss."""
        return self.trains_representation and bool(self.config.terms.get_active())

    def compute_learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch of the run, counted from 1."""
        recipe = self.recipe
        return recipe.learning_rate * recipe.schedule.compute_factor(epoch - self.start, recipe.epochs)


def list_stages(config: TrialConfig) -> tuple[Stage, ...]:
    """Return the stages of a run in order, none of which ends early."""
    scheme = config.scheme
    joint = Stage(start=0, passes_before=0, config=config)
    if isinstance(scheme, Joint):
        return (joint,)
    own = {
        "recipe": scheme.make_recipe(config.recipe),
        "loss": scheme.loss or config.loss,
        "reweighting": scheme.reweighting or config.reweighting,
    }
    second = Stage(
        number=1,
        start=joint.end,
        passes_before=joint.end,
        config=config.model_copy(update=own),
        trains_representation=False,
    )
    if isinstance(scheme, TwoStage):
        return replace(joint, trains_predictor=False), second
    # Sampling and re-weighting are for the second stage alone; feature smoothing belongs to the representation.
    first: dict[str, object] = {"sampling": None}
    if scheme.reweighting is None:
        first["reweighting"] = Reweighting(fds=config.reweighting.fds)
    joint = replace(joint, config=config.model_copy(update=first))
    if scheme.first_objective is not None:
        joint = replace(joint, config=joint.config.model_copy(update={"objective": scheme.first_objective}))
    return joint, replace(second, published_batch_norm=scheme.published_batch_norm)


def find_stage(config: TrialConfig, epoch: int) -> Stage:
    """Return the stage of an epoch, counted from 1, if no stage ends early."""
    return next(stage for stage in list_stages(config) if epoch <= stage.end)


def freeze(model: Regressor, stage: Stage) -> None:
    """Freeze the parts that a stage does not train, and a projection that no part of its loss reads.

    Only the predictor is ever unfrozen: no stage trains a representation that the stage before did not, and an encoder
    may have frozen word vectors. Gradients of the stage before are dropped, because gradient clipping would include them
    in its norm.
    """
    model.zero_grad(set_to_none=True)
    model.predictor.requires_grad_(stage.trains_predictor)
    if not stage.trains_representation:
        model.encoder.requires_grad_(requires_grad=False)
    if model.projection is not None and not _reads_projection(stage):
        model.projection.requires_grad_(requires_grad=False)


def set_modes(model: nn.Module, regressor: Regressor, stage: Stage) -> None:
    """Set training mode for the parts that a stage trains, evaluation mode for the frozen ones.

    Args:
        model: the regressor as training steps call it, perhaps compiled or in a distributed wrapper.
        regressor: the regressor itself.
        stage: the current stage.
    """
    model.train()
    if stage.trains_representation or stage.published_batch_norm:
        return
    regressor.encoder.eval()
    if regressor.projection is not None:
        regressor.projection.eval()


def restart_predictor(model: Regressor, seed: int) -> None:
    """Replace the predictor by a newly initialized one, from a random stream that depends on the trial's seed alone.

    The module is replaced, not its numbers: a distributed wrapper of the stage before still has the old parameters.
    """
    # Initialized on the CPU in float32, as in every first stage, so that the numbers do not depend on device or precision.
    start = deepcopy(model.predictor).to("cpu", torch.float32)
    start = start.to(memory_format=torch.contiguous_format)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derive_seed(seed, "init", "predictor", "second stage"))
        start.reset_parameters()
    model.predictor = deepcopy(model.predictor)
    model.predictor.load_state_dict(start.state_dict())


def build_optimizer(recipe: Recipe, model: Regressor, loss: TrainingLoss) -> torch.optim.Optimizer:
    """Return the recipe's optimizer of all trained parameters; groups that follow its schedule are marked `scheduled`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    factors = find_rate_factors(model)
    by_factor: dict[float, list[nn.Parameter]] = {1.0: []}
    for parameter in trained:
        by_factor.setdefault(factors.get(parameter, 1.0), []).append(parameter)
    groups: list[dict[str, Any]] = [{"params": by_factor.pop(1.0), "scheduled": True}]
    for factor, own in by_factor.items():
        groups.append({"params": own, "scheduled": True, "lr": factor * recipe.learning_rate, "rate_factor": factor})
    groups += loss.make_parameter_groups()
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        # torch's fused form fails for a parameter that has a gradient later than the others.
        return without_compiler(torch.optim.SGD)(groups, lr=rate, weight_decay=decay, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    # One kernel for all parameters, which has no complex numbers
    is_fused = all(each.is_floating_point() for group in groups for each in group["params"])
    return without_compiler(kind)(groups, lr=rate, weight_decay=decay, fused=is_fused)


def find_rate_factors(model: nn.Module) -> dict[nn.Parameter, float]:
    """Return the factor of the learning rate of each parameter below a module with an attribute `learning_rate_factor`.

    Such a module may be an encoder of a library's network, a part of an encoder, or a layer of a head; the innermost counts.
    """
    factors: dict[nn.Parameter, float] = {}
    # Outer modules come first.
    for module in model.modules():
        factor = getattr(module, "learning_rate_factor", None)
        if factor is not None:
            factors |= dict.fromkeys(module.parameters(), float(factor))
    return factors


def _reads_projection(stage: Stage) -> bool:
    """Return True if the projection gets a gradient; a distributed wrapper would wait forever for a missing one."""
    if not stage.trains_representation:
        return False
    by_predictor = stage.trains_predictor and stage.config.model.predictor_input != "embedding"
    terms = stage.config.terms.get_active().values()
    return by_predictor or "representation" in {get_term_input(term) for term in terms}
