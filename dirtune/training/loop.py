"""The training loop: a generator that yields after every epoch. Plain torch; knows neither Ray nor files.

A command-line run, an in-process trial worker and a distributed group all drive this one generator. Between two yields
the `Training` value is complete: it can be saved, restored and continued to the same end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from dirtune.batch import Batch
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData, epoch_order, extend_digest, share, train_batches
from dirtune.data.views import plain_view
from dirtune.errors import NonFiniteLoss
from dirtune.metrics import RegionMetric, region_metrics
from dirtune.models.regressor import Regressor, build_regressor
from dirtune.randomness import derive_seed
from dirtune.training.distributed import Ranks
from dirtune.training.objective import Loss, stacked_views, total_loss

EVAL_BATCH = 1024

Weights = dict[str, Tensor]


@dataclass
class Seconds:
    """Where the time of a run went."""

    train: float = 0.0
    eval: float = 0.0
    data: float = 0.0

    @property
    def total(self) -> float:
        return self.train + self.eval + self.data


@dataclass
class Training:
    """A run between two epochs."""

    config: TrialConfig
    data: ResidentData
    ranks: Ranks
    model: Regressor
    optimizer: torch.optim.Optimizer
    history: list[dict[str, float]] = field(
        default_factory=list
    )  # one mapping name -> value per epoch
    best_epoch: int = 0  # counted from 1; 0: no epoch with a defined objective yet
    best_weights: Weights = field(default_factory=dict)
    order_digest: str = ""
    seconds: Seconds = field(default_factory=Seconds)

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def is_finished(self) -> bool:
        return self.epoch >= self.config.recipe.epochs

    @property
    def best_objective(self) -> float | None:
        """The validation objective at `best_epoch`."""
        return (
            self.history[self.best_epoch - 1][self.config.objective.name]
            if self.best_epoch
            else None
        )

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as tensors and plain data."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "order_digest": self.order_digest,
            "seconds": vars(self.seconds).copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = state["history"]
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]
        self.order_digest = state["order_digest"]
        self.seconds = Seconds(**state["seconds"])


def begin(
    config: TrialConfig,
    data: ResidentData,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    vocabulary: list[str] | None = None,
) -> Training:
    """A run before its first epoch; `vocabulary` serves encoders that start from word vectors."""
    model = build_regressor(config.model, data.manifest.inputs, config.seed, vocabulary)
    model = model.to(data.device)
    return Training(config, data, ranks, model, _optimizer(config, model))


def epochs(training: Training) -> Iterator[Training]:
    """Train to the end of the recipe, yielding after every epoch.

    Raises:
        NonFiniteLoss: a term of the loss became NaN or infinite; names the term, the epoch and the step.
    """
    model = _distributed(training)
    split = training.data.splits["train"]
    spec = training.data.manifest.label
    weights = training.config.reweighting.weights(split.label_bins.cpu().numpy(), spec.num_bins)
    sample_weights = torch.from_numpy(weights).to(training.data.device, torch.float32)
    while not training.is_finished:
        values = _train_epoch(training, model, sample_weights)
        values |= _validate(training)
        training.history.append(values)
        _keep_best(training)
        yield training


def predict(training: Training, split: str) -> NDArray[np.float64]:
    """Predictions of the current model for every row of a split, in the label's unit; shape `(rows,)`."""
    data = training.data.splits[split]
    start, stop = share(len(data), training.ranks.rank, training.ranks.world)
    training.model.eval()
    with torch.inference_mode():
        parts = [
            training.model(plain_view({k: v[at : min(at + EVAL_BATCH, stop)] for k, v in data.inputs.items()}))
            for at in range(start, stop, EVAL_BATCH)
        ]  # fmt: skip
        local = torch.cat([part.predictions for part in parts])
        return training.ranks.gather(local).double().cpu().numpy()


def evaluate(
    training: Training, split: str, predictions: NDArray[np.float64]
) -> list[RegionMetric]:
    """All metrics of a split in all shot regions: rows with region, metric, value and n."""
    rows = training.data.splits[split]
    rule = training.config.data.shot_rule or training.data.manifest.default_shot_rule
    regions, bins = training.data.regions(split, rule), rows.label_bins.cpu().numpy()
    return [*region_metrics(rows.exact_labels, predictions, regions, bins=bins)]


def use_best_weights(training: Training) -> None:
    """Put the weights of the best epoch into the model; afterwards the run can only be evaluated."""
    if training.best_weights:
        training.model.load_state_dict(training.best_weights)


def _optimizer(config: TrialConfig, model: Regressor) -> torch.optim.Optimizer:
    recipe, parameters = config.recipe, list(model.parameters())
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=recipe.momentum)
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate, weight_decay=decay)


def _distributed(training: Training) -> torch.nn.Module:
    if training.ranks.world == 1:
        return training.model
    _freeze_unread_projection(training)
    # Which parameters take part in the loss depends on the arm, but never on the step.
    return DistributedDataParallel(training.model, static_graph=True)


def _freeze_unread_projection(training: Training) -> None:
    """DDP would wait for the gradient of a projection that neither the predictor nor a term reads."""
    config, projection = training.config, training.model.projection
    is_read = config.model.predictor_input != "embedding" or config.terms.active()
    if projection is not None and not is_read:
        projection.requires_grad_(requires_grad=False)


def _train_epoch(
    training: Training, model: torch.nn.Module, sample_weights: Tensor
) -> dict[str, float]:
    config, split, epoch = training.config, training.data.splits["train"], training.epoch + 1
    order = epoch_order(config.seed, epoch, len(split))
    training.order_digest = extend_digest(training.order_digest, order)
    rate = config.recipe.learning_rate * config.recipe.schedule.factor(epoch, config.recipe.epochs)
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    # Dropout draws from the global generator: seeded per epoch and rank, it needs no saved state.
    torch.manual_seed(derive_seed(config.seed, "dropout", epoch, training.ranks.rank))
    batches = train_batches(
        split, sample_weights, order, batch_size=config.recipe.batch_size, views=config.recipe.views,
        seed=config.seed, epoch=epoch, rank=training.ranks.rank, world=training.ranks.world,
    )  # fmt: skip
    model.train()
    means = _LossMeans(epoch)
    for batch in _timed(batches, training.seconds):
        started = time.perf_counter()
        means.add(_step(training, model, batch))
        training.seconds.train += time.perf_counter() - started
    return {**means.values(), "learning_rate": rate}


def _timed(batches: Iterator[Batch], seconds: Seconds) -> Iterator[Batch]:
    """The same batches; waiting for them is counted as data time."""
    while True:
        started = time.perf_counter()
        batch = next(batches, None)
        seconds.data += time.perf_counter() - started
        if batch is None:
            return
        yield batch


def _step(training: Training, model: torch.nn.Module, batch: Batch) -> Loss:
    output = model(stacked_views(batch))
    label_range = training.data.manifest.label.range
    loss = total_loss(training.config, output, batch, training.ranks, label_range)
    training.optimizer.zero_grad(set_to_none=True)
    loss.total.backward()
    if training.config.recipe.gradient_clip is not None:
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.config.recipe.gradient_clip)
    training.optimizer.step()
    return loss


class _LossMeans:
    """Means of the loss and its parts over an epoch, kept on the device so that no step waits for it."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0
        self.sums: dict[str, Tensor] = {}
        self.first_bad: dict[str, Tensor] = {}  # number of finite steps before the first other one

    def add(self, loss: Loss) -> None:
        self.steps += 1
        for name, value in {**loss.parts, "loss": loss.total}.items():
            value = value.detach()
            finite = torch.isfinite(value).long()
            if name not in self.sums:
                self.sums[name], self.first_bad[name] = value.clone(), finite
                continue
            self.sums[name] += value
            self.first_bad[name] += finite * (self.first_bad[name] == self.steps - 1)

    def values(self) -> dict[str, float]:
        # Of several, the first in time: once the weights are not finite, every part is not.
        finite_steps = {name: int(steps) for name, steps in self.first_bad.items()}
        first = min(finite_steps, key=finite_steps.__getitem__)
        if finite_steps[first] < self.steps:
            raise NonFiniteLoss(first, self.epoch, finite_steps[first] + 1)
        return {f"train/{name}": float(total) / self.steps for name, total in self.sums.items()}


def _validate(training: Training) -> dict[str, float]:
    started = time.perf_counter()
    predictions = predict(training, "val")
    if not np.isfinite(predictions).all():
        # The last step of the epoch broke the weights: its loss was still finite.
        steps = math.ceil(len(training.data.splits["train"]) / training.config.recipe.batch_size)
        raise NonFiniteLoss("predictions", training.epoch + 1, steps)
    rows = evaluate(training, "val", predictions)
    training.seconds.eval += time.perf_counter() - started
    return {f"val/{row['region']}/{row['metric']}": row["value"] for row in rows}


def _keep_best(training: Training) -> None:
    objective = training.config.objective
    value, best = training.history[-1][objective.name], training.best_objective
    if np.isnan(value):
        return
    if best is None or (value < best if objective.mode == "min" else value > best):
        training.best_epoch = training.epoch
        weights = training.model.state_dict()
        training.best_weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
