"""The second pass of a step: its gradient at perturbed parameters (`dirtune.sharpness`) replaces that of the first.

The perturbation comes from the gradient of the whole batch: once per step, after the last micro-batch, and after the
reduction over the ranks, so that it is equal on all of them. The second pass is over the same micro-batches with the same
views; dropout draws masks of its own. Gradients are clipped afterwards, by the optimizer's step alone.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch

from dirtune.batch import Batch
from dirtune.sharpness import perturb
from dirtune.training import numerics, state


def replace_gradient(
    training: state.Training, batches: Sequence[Batch], add_gradient: Callable[[Batch], object]
) -> None:
    """Replace the gradient of a step by that at perturbed parameters; the parameters are as before afterwards.

    Args:
        training: the run, with the gradient of the step's first pass.
        batches: the micro-batches of the step.
        add_gradient: adds the gradient of a micro-batch.
    """
    sharpness = training.stage.config.sharpness
    assert sharpness is not None
    parameters = [each for each in training.model.parameters() if each.grad is not None]
    # In half precision the gradients are those of the scaled loss.
    scale = training.scaler.get_scale()
    gradients = [each.grad / scale for each in parameters if each.grad is not None]
    if training.scaler.is_enabled() and not all(bool(torch.isfinite(each).all()) for each in gradients):
        # Overflowed: the scaler finds it in these gradients, skips the step and lowers its scale.
        return
    before = [each.detach().clone() for each in parameters]
    with torch.no_grad():
        perturb(sharpness, parameters, gradients)
    training.optimizer.zero_grad(set_to_none=True)
    is_unweighted = getattr(sharpness, "weights", "both") == "ascent"
    keeps_statistics = getattr(sharpness, "batch_norm", "both") == "first"
    batch_norms = numerics.list_batch_norms(training.model) if keeps_statistics else []
    with numerics.keep_running_statistics(batch_norms) if batch_norms else nullcontext():
        for batch in batches:
            add_gradient(replace(batch, weights=torch.ones_like(batch.weights)) if is_unweighted else batch)
    # The optimizer skips a step whose second pass overflowed; the parameters are restored in any case.
    with torch.no_grad():
        for parameter, value in zip(parameters, before, strict=True):
            parameter.copy_(value)
