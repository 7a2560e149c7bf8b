"""Precision, compilation, memory layout and distribution of training steps: a recipe's options for speed and memory.

All of them keep the weights in float32 and their names: checkpoints, best weights and evaluations are independent of the
options. The regressor itself stays as it was built, and a step calls it through the wrappers of this module. Trade-off:
evaluation gains nothing from half precision or compilation, and in exchange recipes are compared in the same arithmetic.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import Inputs, Mixture
from dirtune.errors import Fault, InputError
from dirtune.models.regressor import Regressor, RegressorOutput
from dirtune.recipe import Recipe
from dirtune.training.batch_limit import select_part
from dirtune.training.device import AMPERE
from dirtune.training.distributed import Ranks

COMPILER = "inductor"
"""The backend of `torch.compile`. It needs a C++ compiler on a CPU; "aot_eager" needs none, without any speedup."""
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SINGLE_VALUE = "Expected more than 1 value per channel"
"""Start of torch's message for batch normalization of one row with one position."""
_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


def check_machine(recipe: Recipe, *, device: str, workers: int, where: str, key: str = "") -> None:
    """Raise an error if the devices of a trial's workers do not support its recipe.

    Args:
        recipe: the trial's recipe.
        device: "cpu" or "cuda".
        workers: number of workers of the trial.
        where: source of the configuration, for errors.
        key: place of the configuration in its source, for errors.

    Raises:
        InputError: fp16 or synchronized batch normalization on CPUs.
    """
    prefix = f"{key}." if key else ""
    faults = []
    if recipe.precision == "fp16" and device == "cpu":
        rule = "needs a GPU (resources.gpus, or --device cuda); a CPU can do bf16"
        faults.append(Fault(where=where, key=f"{prefix}recipe.precision", rule=rule, got="fp16"))
    if recipe.sync_batch_norm and workers > 1 and device == "cpu":
        rule = f"torch synchronizes batch normalization of {workers} workers on GPUs only (resources.gpus)"
        faults.append(Fault(where=where, key=f"{prefix}recipe.sync_batch_norm", rule=rule))
    if faults:
        raise InputError(faults)


def check_layers(recipe: Recipe, model: Regressor) -> None:
    """Raise an error if the encoder has no layer to which an option of the recipe applies.

    Raises:
        InputError: the encoder has no convolution for `channels_last`, or no batch normalization for `sync_batch_norm` or
            `batch_norm_groups`.
    """
    needed = {
        "channels_last": (recipe.channels_last, (nn.Conv2d,), "convolution"),
        "sync_batch_norm": (recipe.sync_batch_norm, _BATCH_NORM, "batch normalization"),
        "batch_norm_groups": (recipe.batch_norm_groups > 1, _BATCH_NORM, "batch normalization"),
    }
    faults = [
        Fault(where=f"recipe.{option}", rule=f"the encoder has no {layer}")
        for option, (is_asked, kinds, layer) in needed.items()
        if is_asked and not any(isinstance(each, kinds) for each in model.encoder.modules())
    ]
    if faults:
        raise InputError(faults)


def prepare_model(model: Regressor, recipe: Recipe, device: torch.device, ranks: Ranks) -> Regressor:
    """Return the regressor on its device, in the recipe's layout and with its synchronized batch normalization.

    Raises:
        InputError: see `check_layers`.
    """
    check_layers(recipe, model)
    if recipe.compile:
        # A process trains many regressors with the same code, and torch stops compiling a function after a few variants:
        # the reset makes compilation independent of the trials before.
        torch.compiler.reset()
    if recipe.sync_batch_norm and ranks.world > 1:
        # In place, because the regressor itself is no such layer
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    if recipe.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if device.type == "cuda":
        # cuDNN times its algorithms for each new size of a batch, and keeps the fastest.
        torch.backends.cudnn.benchmark = True
    return model.to(device)


def wrap_for_steps(model: Regressor, recipe: Recipe, ranks: Ranks) -> nn.Module:
    """Return the regressor as training steps call it: compiled by the recipe, gradients averaged over the ranks."""
    wrapped: nn.Module = model
    if recipe.compile:
        # dynamic=False compiles each batch size separately. A dynamic graph would be compiled at the second size, and a
        # resumed run would meet that size at another step than an uninterrupted one.
        wrapped = cast(nn.Module, torch.compile(model, backend=COMPILER, dynamic=False))
    if recipe.views.passes == "apart" or recipe.batch_norm_groups > 1:
        wrapped = SeparateForwards(wrapped, recipe)
    if ranks.world == 1:
        return wrapped
    # The parameters that take part in the loss depend on arm and stage, never on the step. With torch's static graph,
    # however, gradients that a micro-batch leaves unreduced are silently lost from the second step on.
    return DistributedDataParallel(wrapped, static_graph=recipe.accumulation == 1)


def equalize_buffers(model: nn.Module, ranks: Ranks) -> None:
    """Give all ranks the floating-point buffers of the first: the running statistics of batch normalization.

    `DistributedDataParallel` does so before each forward pass. After the last step of an epoch they would differ, and with them
    the models that the ranks evaluate; a resumed group has those of the first rank.
    """
    _broadcast(model.buffers(), ranks)


def equalize_loss(loss: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """Give all ranks the floating-point state of the first's fitted losses and terms, and that of their optimizer.

    Every rank computes the whole loss, so that nothing averages its gradients over the ranks as those of the model: the order in
    which a GPU sums, or another processor that fits it to the labels, would let the ranks drift apart; a resumed group has the
    state of the first rank.
    """
    for parameter in loss.parameters():
        moments = [each for each in optimizer.state.get(parameter, {}).values() if isinstance(each, Tensor)]
        # Adam counts its steps on the CPU, from which NCCL does not send; the number is equal everywhere.
        _broadcast([parameter, *(each for each in moments if each.device == parameter.device)], ranks)
    _broadcast(loss.buffers(), ranks)


def _broadcast(tensors: Iterable[Tensor], ranks: Ranks) -> None:
    if ranks.world > 1:
        for tensor in tensors:
            if tensor.is_floating_point():
                dist.broadcast(tensor.detach(), src=0)


class SeparateForwards(nn.Module):
    """A regressor that is called with all views at once and makes several forward passes over parts of the rows.

    They are inside one call, because `DistributedDataParallel` would otherwise broadcast its buffers between the passes,
    which invalidates the graph of the first one.
    """

    def __init__(self, model: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model = model
        self.views = recipe.views
        self.groups = recipe.batch_norm_groups
        self.batch_norms = list_batch_norms(model)

    def forward(
        self, inputs: Inputs, label_bins: Tensor | None = None, mixture: Mixture | None = None
    ) -> RegressorOutput:
        """Return the output for all rows, in their order.

        Args:
            inputs: all views, stacked view-major; with `passes: apart` the first one is that of the regression loss.
            label_bins: bins of the same rows, or None.
            mixture: partners of the same rows, or None.
        """
        rows = len(next(iter(inputs.values())))
        passes = [slice(0, rows)]
        if self.views.passes == "apart":
            batch = rows // self.views.count
            # The order of ConR's code: the terms' views are the first to move the running statistics.
            passes = [slice(batch, rows), slice(0, batch)]
        outputs: dict[int, RegressorOutput] = {}
        for each in passes:
            # As `torch.chunk` cuts them
            size = max(1, math.ceil((each.stop - each.start) / self.groups))
            for start in range(each.start, max(each.stop, each.start + 1), size):
                part = slice(start, min(start + size, each.stop))
                with nullcontext() if start == each.start else keep_running_statistics(self.batch_norms):
                    outputs[start] = self.model(
                        select_part(inputs, part),
                        None if label_bins is None else label_bins[part],
                        mixture and Mixture(select_part(mixture.partners, part), mixture.shares[part]),
                    )
        in_order = [outputs[start] for start in sorted(outputs)]
        # A plain predictor has no raw outputs.
        joined = {
            name: torch.cat([getattr(each, name) for each in in_order])
            for name, part in in_order[0]._asdict().items()
            if part is not None
        }
        return RegressorOutput(**joined)


def list_batch_norms(model: nn.Module) -> list[nn.Module]:
    """Return the layers of batch normalization."""
    return [layer for layer in model.modules() if isinstance(layer, _BATCH_NORM)]


@contextmanager
def keep_running_statistics(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Normalize by the statistics of the batch without moving the running ones of these layers."""
    before = [bool(layer.track_running_stats) for layer in layers]
    for layer in layers:
        layer.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer, moved in zip(layers, before, strict=True):
            layer.track_running_stats = moved  # type: ignore[assignment]


def make_loss_scaler(recipe: Recipe, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaler that keeps small gradients of fp16 training from underflow; disabled in other precisions."""
    return torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")


def make_autocast(recipe: Recipe, device: torch.device) -> AbstractContextManager[object]:
    """Return the context of a forward pass in the recipe's precision; losses and backward passes belong outside."""
    if recipe.precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, _HALF[recipe.precision])


def describe_float32(device: torch.device) -> str | None:
    """Return in which arithmetic a GPU computes float32, such as "tf32 (convolutions)"; None for a CPU."""
    if device.type != "cuda":
        return None
    settings = {
        "matrix products": torch.backends.cuda.matmul,
        # Stubs of torch lack it.
        "convolutions": torch.backends.cudnn.conv,  # type: ignore[attr-defined]
        "recurrent layers": torch.backends.cudnn.rnn,
    }
    rounded = [name for name, setting in settings.items() if setting.fp32_precision == "tf32"]
    # Older GPUs compute in float32, whatever is allowed.
    if not rounded or torch.cuda.get_device_properties(device).major < AMPERE:
        return "float32"
    return f"tf32 ({', '.join(rounded)})"


@contextmanager
def name_single_row(recipe: Recipe) -> Iterator[None]:
    """Convert torch's error about batch normalization of a single value into one that names the batch size.

    Raises:
        InputError: a forward pass in training has one row, of which a layer has one value for each channel.
    """
    try:
        yield
    except ValueError as error:
        if not str(error).startswith(_SINGLE_VALUE):
            raise
        rule = (
            "leaves a forward pass with a single row, of which batch normalization has no variance in this encoder; choose "
            "another one, or leave out the last batch (recipe.last_batch: drop)"
        )
        raise InputError(Fault(where="recipe.batch_size", rule=rule, got=recipe.batch_size)) from None


def to_memory_format(inputs: Inputs, recipe: Recipe) -> Inputs:
    """Return the inputs with images in the recipe's memory layout."""
    if not recipe.channels_last:
        return inputs
    return {
        name: value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value
        for name, value in inputs.items()
    }
