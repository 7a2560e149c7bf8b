"""Training loop: a generator that yields after every epoch. Plain torch, without Ray and without files.

A command-line run, an in-process trial worker and a distributed group all run this one generator. Between two yields the
`Training` value is complete: it can be saved, restored and continued with identical results. Epochs of large data take half
an hour, so it also yields within an epoch when it is asked to; `Training.unfinished` then says how far the epoch is.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import Batch, Mixture
from dirtune.data.cache import make_train_batches, update_digest
from dirtune.errors import NonFiniteLoss
from dirtune.losses import EpochAware
from dirtune.randomness import derive_seed
from dirtune.recipe import Recipe
from dirtune.sampling import draw_order
from dirtune.training import (
    evaluation,
    gradient_shares,
    memory,
    mixed_batches,
    numerics,
    passes,
    pause,
    smoothing,
    stages,
    two_passes,
)
from dirtune.training.objective import Loss, LossMeans, stack_views
from dirtune.training.state import Seconds, Training


def run_epochs(training: Training, is_pause_due: Callable[[], bool] = lambda: False) -> Iterator[Training]:
    """Train to the end of the last stage, yielding after every epoch, and within one after a step at which a pause is due.

    Args:
        training: the run; it is continued from where it is, also within an epoch.
        is_pause_due: asked after every step; ranks of a group must agree, so a group must not pause.

    Raises:
        NonFiniteLoss: a term of the loss became NaN or infinite; names the term, the epoch and the step.
        OutOfMemory: memory ran out in a step; names its batch.
    """
    while not training.is_finished:
        if training.is_stage_finished:
            training.start_stage(stages.list_stages(training.config)[training.stage.number + 1])
        model = numerics.wrap_for_steps(training.model, training.stage.recipe, training.ranks)
        numerics.equalize_loss(training.loss, training.optimizer, training.ranks)
        while not training.is_stage_finished:
            for _ in _train_epoch(training, model, is_pause_due):
                yield training
            yield training


def run_steps(training: Training) -> Iterator[Loss]:
    """Run the next epoch's steps one by one, for measurements at the start of a stage; the epoch is not counted.

    The iterator may be abandoned at any step. After a step the parameters have the gradients that the optimizer used.
    """
    model = numerics.wrap_for_steps(training.model, training.stage.recipe, training.ranks)
    _begin_epoch(training)
    for part in training.passes.iter_parts(training.epoch + 1):
        yield from _run_part(training, model, part)


def _train_epoch(training: Training, model: torch.nn.Module, is_pause_due: Callable[[], bool]) -> Iterator[None]:
    """Train and validate one epoch, or the rest of an unfinished one; yield where a pause is due."""
    epoch, means = training.epoch + 1, LossMeans(training.epoch + 1)
    shares = gradient_shares.start_measurement(training)
    _begin_epoch(training)
    pause.restore_unfinished(training, means, shares)
    for part in training.passes.iter_parts(epoch, skip=means.steps):
        with memory.name_batch_on_out_of_memory(training, means):
            last = means.steps + len(part.steps)
            for loss in _run_part(training, model, part, shares):
                means.add(loss)
                # Not at the end of a part, whose statistics are still to be updated
                if means.steps < last and is_pause_due():
                    training.unfinished = pause.describe_unfinished(training, means, shares)
                    yield
                    training.unfinished = None
        numerics.equalize_buffers(training.model, training.ranks)
        # Before validation, so that the best weights include the statistics of their own epoch.
        if part.ends_pass:
            started = time.perf_counter()
            _end_pass(training)
            training.seconds.train += time.perf_counter() - started
        numerics.equalize_loss(training.loss, training.optimizer, training.ranks)
    # The host has run ahead of a GPU: the rest of its steps is training, too.
    started = time.perf_counter()
    values = means.compute() | training.loss.get_learned_values()
    training.seconds.train += time.perf_counter() - started
    values = {f"train/{name}": value for name, value in values.items()}
    values["learning_rate"] = training.stage.compute_learning_rate(epoch)
    if training.stage.trains_predictor:
        values |= _validate(training)
    if shares is not None:
        values |= shares.values
    training.unfinished = None
    training.samples += training.passes.count_rows(epoch)
    training.history.append(values)
    if shares is not None:
        gradient_shares.drop_earlier_shares(training.history)
    # The first of two stages may have no predictor, and so no objective.
    if training.stage.trains_predictor:
        _keep_best_weights(training)


def _begin_epoch(training: Training) -> None:
    """Set the learning rate and the random state of the next epoch."""
    epoch = training.epoch + 1
    # Losses with parameters have constant rates of their own.
    for group in training.optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = training.stage.compute_learning_rate(epoch) * group.get("rate_factor", 1.0)
    for name, part in training.loss.fitted.items():
        if isinstance(part, EpochAware):
            with training.loss.name_part(name):
                part.begin_epoch(training.epoch - training.stage.start, training.stage.recipe.epochs)
    # Dropout draws from the global generator: seeded per epoch and rank, it needs no saved state.
    seed = derive_seed(training.config.seed, "dropout", epoch, training.ranks.rank)
    # `torch.manual_seed` would look for GPUs in every epoch, which takes as long as ten small steps
    torch.default_generator.manual_seed(seed)
    if training.data.device.type == "cuda":
        torch.cuda.manual_seed_all(seed)


def _run_part(
    training: Training,
    model: torch.nn.Module,
    part: passes.PassPart,
    shares: gradient_shares.GradientShares | None = None,
) -> Iterator[Loss]:
    """Run the steps of a part of the next epoch one by one; measure the gradient shares in the first, if they are given."""
    config, split = training.config, training.data.splits["train"]
    recipe, ranks = training.stage.recipe, training.ranks
    order = _make_order(training, part)[: training.passes.used_rows]
    if part.steps.start == 0:
        training.order_digest = update_digest(training.order_digest, order)
    batches = make_train_batches(
        split,
        training.sample_weights,
        order,
        batch_size=recipe.batch_size,
        views=recipe.views,
        seed=config.seed,
        epoch=part.number,
        rank=ranks.rank,
        world=ranks.world,
        accumulation=recipe.accumulation,
        steps=part.steps,
    )
    if training.stage.config.mixing is not None:
        batches = mixed_batches.mix_batches(batches, training, order, part)
    stages.set_modes(model, training.model, training.stage)
    trained = [parameter for group in training.optimizer.param_groups for parameter in group["params"]]
    # The sum over the micro-batches of the step so far
    step_loss: Loss | None = None
    step_batches: list[Batch] = []
    for batch in _count_waiting(batches, training.seconds):
        started = time.perf_counter()
        if step_loss is None:
            # None instead of zeros: Adam would move parameters without a gradient by their momentum. `zero_grad` would also
            # register with the profiler in every step.
            for parameter in trained:
                parameter.grad = None
        if shares is not None and shares.is_finished:
            shares = None
        loss = _add_gradient(training, model, batch, shares)
        step_loss = loss if step_loss is None else step_loss + loss
        if training.stage.config.sharpness is not None:
            step_batches.append(batch)
            if batch.ends_step:
                two_passes.replace_gradient(training, step_batches, partial(_add_gradient, training, model))
                step_batches = []
        if batch.ends_step:
            _update_parameters(training, model)
        training.seconds.train += time.perf_counter() - started
        if batch.ends_step:
            yield step_loss
            step_loss = None


def _make_order(training: Training, part: passes.PassPart) -> Tensor:
    """Return the rows of a pass in their order, on the CPU."""
    split, seed, sampling = training.data.splits["train"], training.config.seed, training.stage.config.sampling
    if sampling is None:
        # Micro-batches, not batches: ranks share each of them.
        size = training.stage.recipe.micro_batch
        return split.make_order(seed, part.number, batch_size=size, world=training.ranks.world)
    generator = np.random.default_rng(derive_seed(seed, "sampling", part.number))
    return torch.from_numpy(draw_order(sampling, split.label_bins.cpu().numpy(), generator))


def _count_waiting(batches: Iterator[Batch], seconds: Seconds) -> Iterator[Batch]:
    """Iterate over the batches and count the time that they take as data time."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        seconds.data += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def _add_gradient(
    training: Training, model: torch.nn.Module, batch: Batch, shares: gradient_shares.GradientShares | None = None
) -> Loss:
    """Add the gradient of a batch, or of a micro-batch of one; return its part of the step's loss."""
    recipe = training.stage.recipe
    watch = nullcontext() if shares is None else shares.watch(training.model.encoder)
    # Gradients are reduced over the ranks once per step, with its last micro-batch.
    with model.no_sync() if isinstance(model, DistributedDataParallel) and not batch.ends_step else nullcontext():
        with numerics.make_autocast(recipe, training.data.device), watch, numerics.name_single_row(recipe):
            inputs = numerics.to_memory_format(stack_views(batch.views), recipe)
            output = model(inputs, _make_smoothing_bins(training, batch), _make_mixture(batch, recipe))
        # Outside autocast: losses are sums over many pairs, too inexact in half precision.
        loss: Loss = training.loss(output, batch, training.ranks).scale(batch.share)
        training.loss.check_gradient(loss)
        if shares is not None:
            shares.measure(loss, training.loss, training.scaler)
        training.scaler.scale(loss.total).backward()
    return loss.detach()


def _make_mixture(batch: Batch, recipe: Recipe) -> Mixture | None:
    """Return the partners of the stacked views whose embeddings are mixed; None if none are."""
    if batch.own_shares is None:
        return None
    partners = numerics.to_memory_format(stack_views(batch.partner_views), recipe)
    return Mixture(partners, batch.own_shares.repeat(len(batch.views)))


def _update_parameters(training: Training, model: torch.nn.Module) -> None:
    """Take one step of the optimizer."""
    # The norm is that of unscaled gradients of the regressor; parameters of losses are not clipped.
    if training.stage.recipe.gradient_clip is not None:
        training.scaler.unscale_(training.optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.stage.recipe.gradient_clip)
    training.scaler.step(training.optimizer)
    training.scaler.update()


def _end_pass(training: Training) -> None:
    """Give the statistics of all training rows to feature smoothing and to the losses and terms that want them."""
    split, ranks, task = training.data.splits["train"], training.ranks, training.task
    if _smooths_features(training):
        with memory.name_phase_on_out_of_memory(training, "feature smoothing", training.epoch + 1):
            smoothing.update_smoothing(training.model, split, ranks, task)
    with memory.name_phase_on_out_of_memory(training, "statistics of losses and terms", training.epoch + 1):
        smoothing.end_epoch_of_parts(training.model, training.loss, split, ranks, task)


def _smooths_features(training: Training) -> bool:
    """Return True if features are smoothed: a stage that does not train them does not smooth them either."""
    return training.model.smoothing is not None and training.stage.trains_representation


def _make_smoothing_bins(training: Training, batch: Batch) -> Tensor | None:
    """Return the label bins of the stacked views; -1 for rows without regression loss, which are not smoothed."""
    if not _smooths_features(training):
        return None
    bins = training.task.stack_bins(batch)
    # Views are stacked view-major, so that the first view's rows come first.
    if training.stage.recipe.views.regression == "first":
        bins[len(batch.rows) :] = -1
    return bins


def _validate(training: Training) -> dict[str, float]:
    started = time.perf_counter()
    with memory.name_phase_on_out_of_memory(training, "validation", training.epoch + 1):
        found = evaluation.evaluate(training, "val")
    if not np.isfinite(found.predictions).all():
        # The last step of the epoch broke the weights: its loss was still finite.
        raise NonFiniteLoss("predictions", training.epoch + 1, training.passes.steps_per_epoch)
    training.seconds.eval += time.perf_counter() - started
    return {f"val/{row['region']}/{row['metric']}": row["value"] for row in found.metrics}


def _keep_best_weights(training: Training) -> None:
    objective = training.stage.config.objective
    value = training.history[-1][objective.name]
    # An undefined metric, such as that of an empty region, is no improvement.
    if np.isnan(value):
        return
    best = training.history[training.best_epoch - 1][objective.name] if training.best_epoch else None
    if best is None or (value < best if objective.mode == "min" else value > best):
        training.best_epoch = training.epoch
        weights = training.model.state_dict()
        # A state dict holds references to the parameters, which the next step changes.
        training.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
