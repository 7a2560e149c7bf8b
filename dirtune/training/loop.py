"""The training loop: a generator that yields after every epoch. Plain torch; knows neither Ray nor files.

A command-line run, an in-process trial worker and a distributed group all drive this one generator. Between two yields
the `Training` value is complete: it can be saved, restored and continued to the same end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import Batch
from dirtune.data.cache import Split, extend_digest, share, train_batches
from dirtune.data.views import plain_view
from dirtune.diagnostics import Embedded, representation_metrics
from dirtune.errors import NonFiniteLoss
from dirtune.metrics import RegionMetric, region_metrics
from dirtune.models.regressor import RegressorOutput
from dirtune.randomness import derive_seed
from dirtune.training.dense_evaluation import MAPS_AT_ONCE, assess_maps
from dirtune.training.dense_loss import map_bins
from dirtune.training.memory import naming_the_batch
from dirtune.training.numerics import autocast, for_steps, laid_out
from dirtune.training.objective import Loss, LossMeans, stacked_views
from dirtune.training.smoothing import update_smoothing
from dirtune.training.stages import set_modes, stages
from dirtune.training.state import Seconds, Training

EVAL_BATCH = 1024
MOST_DIAGNOSED = 5000


def epochs(training: Training) -> Iterator[Training]:
    """Train to the end of the last stage, yielding after every epoch.

    Raises:
        NonFiniteLoss: a term of the loss became NaN or infinite; names the term, the epoch and the step.
        OutOfMemory: memory ran out in a step; names its batch.
    """
    for stage in stages(training.config):
        if training.epoch >= stage.end:
            continue
        if training.stage != stage:
            training.switch(stage)
        model = for_steps(training.model, training.config.recipe, training.ranks)
        weights = _sample_weights(training)
        while training.epoch < stage.end:
            _train_epoch(training, model, weights)
            yield training


def first_steps(training: Training) -> Iterator[Loss]:
    """The steps of the next epoch one by one, for whoever wants to see how a stage begins; it may be left at any step.

    After a step its gradients stand in the parameters, as the optimizer was given them. The epoch is not counted.
    """
    model = for_steps(training.model, training.config.recipe, training.ranks)
    yield from _steps(training, model, _sample_weights(training))


class Assessment(NamedTuple):
    """What the current model says about a split, and how wrong it is."""

    predictions: NDArray[np.float64]
    """As `predict`; of labels that are maps, their means by sample."""
    metrics: list[RegionMetric]


def assess(training: Training, split: str) -> Assessment:
    """Predictions of the current model for a split, and all metrics in all shot regions."""
    label_map = training.data.manifest.label.dense
    if label_map is not None:
        found = assess_maps(training, split, label_map)
        return Assessment(found.means, found.metrics)
    predictions = predict(training, split)
    return Assessment(predictions, evaluate(training, split, predictions))


def predict(training: Training, split: str) -> NDArray[np.float64]:
    """Predictions of the current model for every row of a split, in the label's unit; shape `(rows,)` or `(rows, L)`."""
    predictions = _outputs(training, split, lambda output: output.predictions)
    return predictions.double().cpu().numpy()


def represent(training: Training, split: str) -> NDArray[np.float32]:
    """The representations z of the current model for every row of a split; shape `(rows, dim)`."""
    representations = _outputs(training, split, lambda output: output.representations)
    return representations.float().cpu().numpy()


def evaluate(training: Training, split: str, predictions: NDArray[np.float64]) -> list[RegionMetric]:
    """All metrics of a split in all shot regions: rows with region, metric, value and n."""
    rows = training.data.splits[split]
    rule = training.config.data.shot_rule or training.data.manifest.default_shot_rule
    regions, bins = training.data.regions(split, rule), rows.label_bins.cpu().numpy()
    own = training.data.manifest.metrics
    return [*region_metrics(rows.exact_labels, predictions, regions, bins=bins, own=own)]


def evaluate_representations(training: Training, split: str) -> list[RegionMetric]:
    """The diagnostics of the current model's representations of a split: rows with region "all", metric, value and n.

    They look at all pairs, so of a large split only every k-th row enters, at most `MOST_DIAGNOSED`; `n` says how many.
    """
    rows = training.data.splits[split]
    kept = slice(None, None, math.ceil(len(rows) / MOST_DIAGNOSED))
    return representation_metrics(
        Embedded(
            representations=represent(training, split)[kept],
            labels=rows.exact_labels[kept],
            bins=rows.label_bins.cpu().numpy()[kept],
            label_range=training.data.manifest.label.label_range,
        )
    )


def _train_epoch(training: Training, model: torch.nn.Module, sample_weights: Tensor) -> None:
    epoch, means = training.epoch + 1, LossMeans(training.epoch + 1)
    with naming_the_batch(training, means):
        for loss in _steps(training, model, sample_weights):
            means.add(loss)
    values = means.values() | training.loss.learned()
    values = {f"train/{name}": value for name, value in values.items()}
    values["learning_rate"] = training.stage.rate(epoch)
    _update_smoothing(training)
    if training.stage.trains_predictor:
        values |= _validate(training)
    training.history.append(values)
    _keep_best(training)


def _sample_weights(training: Training) -> Tensor:
    split, spec = training.data.splits["train"], training.data.manifest.label
    # Pixels have weights, samples have not
    if spec.dense is not None:
        return torch.ones_like(split.labels)
    weights = training.stage.reweighting.weights(
        split.label_bins.cpu().numpy(), spec.num_bins, labels=split.exact_labels
    )
    return torch.from_numpy(weights).to(training.data.device, torch.float32)


def _steps(training: Training, model: torch.nn.Module, sample_weights: Tensor) -> Iterator[Loss]:
    """The steps of the next epoch, one by one."""
    config, split, epoch = training.config, training.data.splits["train"], training.epoch + 1
    recipe = config.recipe
    order = split.order(config.seed, epoch, batch_size=recipe.micro_batch, world=training.ranks.world)
    training.order_digest = extend_digest(training.order_digest, order)
    for group in training.optimizer.param_groups:
        if group["scheduled"]:
            group["lr"] = training.stage.rate(epoch)
    # Dropout draws from the global generator: seeded per epoch and rank, it needs no saved state.
    torch.manual_seed(derive_seed(config.seed, "dropout", epoch, training.ranks.rank))
    batches = train_batches(
        split,
        sample_weights,
        order,
        batch_size=recipe.batch_size,
        views=training.stage.views,
        seed=config.seed,
        epoch=epoch,
        rank=training.ranks.rank,
        world=training.ranks.world,
        accumulation=recipe.accumulation,
    )
    set_modes(model, training.model, training.stage)
    # Of the micro-batches of the step
    so_far: Loss | None = None
    for batch in _timed(batches, training.seconds):
        started = time.perf_counter()
        if so_far is None:
            training.optimizer.zero_grad(set_to_none=True)
        loss = _add_gradient(training, model, batch)
        so_far = loss if so_far is None else so_far + loss
        if batch.ends_step:
            _update(training, model)
        training.seconds.train += time.perf_counter() - started
        if batch.ends_step:
            yield so_far
            so_far = None


def _timed(batches: Iterator[Batch], seconds: Seconds) -> Iterator[Batch]:
    """The same batches; waiting for them is counted as data time."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        seconds.data += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def _add_gradient(training: Training, model: torch.nn.Module, batch: Batch) -> Loss:
    """Add to the gradient what a batch, or a micro-batch of one, contributes; the values of its loss."""
    recipe = training.config.recipe
    with _reduced_once(model, batch):
        with autocast(recipe, training.data.device):
            inputs = laid_out(stacked_views(batch), recipe)
            output = model(inputs, _bins_to_smooth(training, batch))
        loss: Loss = training.loss(output, batch, training.ranks).scaled(batch.share)
        training.scaler.scale(loss.total).backward()
    return loss.detached()


def _reduced_once(model: torch.nn.Module, batch: Batch) -> AbstractContextManager[object]:
    """Only the last micro-batch of a step sends gradients, those of all of them, from rank to rank."""
    if isinstance(model, DistributedDataParallel) and not batch.ends_step:
        return model.no_sync()
    return nullcontext()


def _update(training: Training, model: torch.nn.Module) -> None:
    """One step of the optimizer."""
    if training.config.recipe.gradient_clip is not None:
        training.scaler.unscale_(training.optimizer)
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.config.recipe.gradient_clip)
    training.scaler.step(training.optimizer)
    training.scaler.update()


def _smooths(training: Training) -> bool:
    """Whether features are smoothed: a stage that does not train them has none to smooth."""
    return training.model.smoothing is not None and training.stage.trains_representation


def _bins_to_smooth(training: Training, batch: Batch) -> Tensor | None:
    """The label bins of the stacked views; -1 for what enters no regression loss and is not smoothed."""
    if not _smooths(training):
        return None
    others, label = len(batch.views) - 1, training.data.manifest.label
    if label.dense is not None:
        bins = map_bins(stacked_views(batch)[label.dense.column], label)
        if training.stage.views.regression == "first":
            bins[len(batch.rows) :] = -1
        return bins
    bins = batch.label_bins
    if training.stage.views.regression == "all":
        return bins.repeat(1 + others)
    return torch.cat([bins, torch.full_like(bins, -1).repeat(others)])


def _update_smoothing(training: Training) -> None:
    if not _smooths(training):
        return
    started = time.perf_counter()
    data = training.data
    update_smoothing(training.model, data.splits["train"], training.ranks, data.manifest.label)
    training.seconds.train += time.perf_counter() - started


def _validate(training: Training) -> dict[str, float]:
    started = time.perf_counter()
    predictions, rows = assess(training, "val")
    if not np.isfinite(predictions).all():
        # The last step of the epoch broke the weights: its loss was still finite.
        steps = math.ceil(len(training.data.splits["train"]) / training.config.recipe.batch_size)
        raise NonFiniteLoss("predictions", training.epoch + 1, steps)
    training.seconds.eval += time.perf_counter() - started
    return {f"val/{row['region']}/{row['metric']}": row["value"] for row in rows}


def _outputs(training: Training, split: str, choose: Callable[[RegressorOutput], Tensor]) -> Tensor:
    """A part of the current model's output for every row of a split, on all ranks."""
    data = training.data.splits[split]
    order = data.reading_order
    start, stop = share(len(data), training.ranks.rank, training.ranks.world)
    training.model.eval()
    with torch.inference_mode():
        parts = [
            choose(training.model(plain_view(inputs, data.label_map)))
            for inputs in data.read(order[start:stop].split(_rows_at_once(data)))
        ]
        as_read = training.ranks.gather(torch.cat(parts))
        return as_read[order.argsort().to(as_read.device)]


def _rows_at_once(split: Split) -> int:
    return EVAL_BATCH if split.label_map is None else MAPS_AT_ONCE


def _keep_best(training: Training) -> None:
    if not training.stage.trains_predictor:
        return
    objective = training.config.objective
    value, best = training.history[-1][objective.name], training.best_objective
    if np.isnan(value):
        return
    if best is None or (value < best if objective.mode == "min" else value > best):
        training.best_epoch = training.epoch
        weights = training.model.state_dict()
        training.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
