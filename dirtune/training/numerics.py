"""How the numbers of training steps are computed: the options of a recipe for speed and memory, as torch has them.

All of them leave the weights in float32 and under their names: a checkpoint, the best weights and every evaluation are the
same value, whatever a step runs in. So the regressor itself stays as it was built, and a step calls it through what stands
here. Trade-off: evaluation gains nothing from half precision or compilation, and in exchange two recipes are compared by
one arithmetic.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import cast

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import Inputs
from dirtune.errors import Fault, InputError
from dirtune.models.regressor import Regressor
from dirtune.recipe import Recipe
from dirtune.training.distributed import Ranks

COMPILER = "inductor"
"""The backend of `torch.compile`. It needs a C++ compiler on a CPU; "aot_eager" needs none and makes nothing faster."""

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_machine(recipe: Recipe, *, device: str, workers: int, where: str, key: str = "") -> None:
    """Whether the devices of a trial's workers can do what a recipe asks for.

    Args:
        recipe: of the trial.
        device: "cpu" or "cuda".
        workers: of the trial.
        where: names the source in faults; `key` the place of the configuration in it.

    Raises:
        InputError: they cannot.
    """
    prefix = f"{key}." if key else ""
    faults = []
    if recipe.precision == "fp16" and device == "cpu":
        rule = "needs a GPU (resources.gpus, or --device cuda); a CPU can do bf16"
        faults.append(Fault(where=where, key=f"{prefix}recipe.precision", rule=rule, got="fp16"))
    if recipe.sync_batch_norm and workers > 1 and device == "cpu":
        rule = f"torch synchronises batch normalisation of {workers} workers on GPUs only (resources.gpus)"
        faults.append(Fault(where=where, key=f"{prefix}recipe.sync_batch_norm", rule=rule))
    if faults:
        raise InputError(faults)


def check_layers(recipe: Recipe, model: Regressor) -> None:
    """Whether an encoder has the layers that a recipe speaks of.

    Raises:
        InputError: it has not.
    """
    needed = {
        "channels_last": (recipe.channels_last, (nn.Conv2d,), "convolution"),
        "sync_batch_norm": (recipe.sync_batch_norm, _BATCH_NORM, "batch normalisation"),
    }
    faults = [
        Fault(where=f"recipe.{option}", rule=f"the encoder has no {layer}")
        for option, (is_asked, kinds, layer) in needed.items()
        if is_asked and not any(isinstance(each, kinds) for each in model.encoder.modules())
    ]
    if faults:
        raise InputError(faults)


def placed(model: Regressor, recipe: Recipe, device: torch.device, ranks: Ranks) -> Regressor:
    """The regressor on its device, in the recipe's layout, its batch normalisation over all ranks if asked for.

    Raises:
        InputError: see `check_layers`.
    """
    check_layers(recipe, model)
    if recipe.compile:
        # A process trains one regressor after another by the same code, and after a few variants of a piece of code torch
        # stops compiling it: which trial that hits must not depend on those before it.
        torch.compiler.reset()
    if recipe.sync_batch_norm and ranks.world > 1:
        # In place: the regressor is no such layer
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    return model.to(device)


def for_steps(model: Regressor, recipe: Recipe, ranks: Ranks) -> nn.Module:
    """The regressor as training steps call it: compiled if asked for, with gradients averaged over the ranks."""
    # Each size of a batch has a program of its own: one for all sizes would come into being with the second size, and a
    # run continued from a checkpoint would meet it elsewhere.
    stepped: nn.Module = model
    if recipe.compile:
        stepped = cast(nn.Module, torch.compile(model, backend=COMPILER, dynamic=False))
    if ranks.world == 1:
        return stepped
    # Which parameters take part in the loss depends on the arm and the stage, but never on the step. With torch's static
    # graph, however, gradients that a micro-batch leaves unreduced are lost from the second step on, without a word.
    return DistributedDataParallel(stepped, static_graph=recipe.accumulation == 1)


def loss_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    """What multiplies the loss of fp16 training, so that small gradients do not vanish; else it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")


def autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """The precision of the recipe, for a forward pass of the regressor; losses and backward passes belong outside."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, _HALF[recipe.precision])


def laid_out(inputs: Inputs, recipe: Recipe) -> Inputs:
    """Inputs with images in the recipe's memory layout."""
    if not recipe.channels_last:
        return inputs
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in inputs.items()
    }
