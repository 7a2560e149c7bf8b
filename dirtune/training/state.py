"""`Training`: a run between two epochs, complete enough to be saved, restored and continued to the same end."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dirtune.batch import TrainingLabels
from dirtune.config import TrialConfig
from dirtune.data.cache import ResidentData
from dirtune.data.subset import limited
from dirtune.errors import Fault, InputError
from dirtune.manifest import Manifest
from dirtune.metrics import DENSE_METRICS, METRICS
from dirtune.models.build import build_regressor
from dirtune.models.regressor import Regressor
from dirtune.training.dense_loss import map_loss, misfits
from dirtune.training.distributed import Ranks
from dirtune.training.numerics import loss_scaler, placed
from dirtune.training.objective import TrainingLoss
from dirtune.training.stages import Stage, build_optimizer, freeze, restart_predictor, stage_of, stages

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
    stage: Stage = field(init=False)
    """Of the epoch that was finished last."""
    loss: TrainingLoss = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    """Of the loss, in fp16; else it does nothing."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One mapping name -> value per epoch."""
    best_epoch: int = 0
    """Counted from 1; 0: no epoch of the stage with a defined objective yet."""
    best_weights: Weights = field(default_factory=dict)
    order_digest: str = ""
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        self.prepare(stages(self.config)[0])

    @property
    def epoch(self) -> int:
        """Epochs finished."""
        return len(self.history)

    @property
    def is_finished(self) -> bool:
        return self.epoch >= self.config.epochs_planned

    @property
    def best_objective(self) -> float | None:
        """The validation objective at `best_epoch`."""
        return self.history[self.best_epoch - 1][self.config.objective.name] if self.best_epoch else None

    def prepare(self, stage: Stage) -> None:
        """Freeze what a stage leaves alone; give it a loss, fitted to the training labels, and an optimizer."""
        self.stage = stage
        freeze(self.model, stage, self.config)
        self.loss = self._loss(stage)
        self.optimizer = build_optimizer(self.config.recipe, self.model, self.loss)
        self.scaler = loss_scaler(self.config.recipe, self.data.device)

    def switch(self, stage: Stage) -> None:
        """Go to the next stage: on the best weights so far, with a new predictor; what was the best is forgotten."""
        use_best_weights(self)
        self.best_epoch, self.best_weights = 0, {}
        restart_predictor(self.model, self.config.seed)
        self.prepare(stage)

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as tensors and plain data."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "order_digest": self.order_digest,
            "seconds": vars(self.seconds).copy(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.history = state["history"]
        self.prepare(stage_of(self.config, self.epoch))
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Older checkpoints have none
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]
        self.order_digest = state["order_digest"]
        self.seconds = Seconds(**state["seconds"])

    def _loss(self, stage: Stage) -> TrainingLoss:
        labels, manifest = self._training_labels(), self.data.manifest
        if manifest.label.dense is not None:
            return map_loss(self.config, labels, stage, manifest)
        return TrainingLoss(self.config, labels, regression=stage.trains_predictor, terms=stage.trains_representation)

    def _training_labels(self) -> TrainingLabels:
        split = self.data.splits["train"]
        return TrainingLabels(
            labels=split.labels,
            label_bins=split.label_bins,
            spec=self.data.manifest.label,
            label_scale=self.config.model.label_scale,
        )


def begin(
    config: TrialConfig,
    data: ResidentData,
    ranks: Ranks = Ranks(),  # noqa: B008 - frozen
    vocabulary: list[str] | None = None,
) -> Training:
    """A run before its first epoch; `vocabulary` serves encoders that start from word vectors.

    Raises:
        InputError: see `check_labels`, `dirtune.models.regressor.build_regressor` and
            `dirtune.training.numerics.check_layers`.
    """
    check_labels(config, data.manifest)
    model = build_regressor(
        config.model,
        data.manifest.features,
        config.seed,
        vocabulary,
        smoothing=config.reweighting.fds,
        num_bins=data.manifest.label.num_bins,
        label_dim=len(data.manifest.label.axes),
        maps=data.manifest.label.dense is not None,
    )
    part = limited(data, config.data.fraction)
    return Training(config, part, ranks, placed(model, config.recipe, data.device, ranks))


def check_labels(config: TrialConfig, manifest: Manifest) -> None:
    """Whether objective, loss, terms and smoothing fit the labels of a data set.

    Raises:
        InputError: the set has no such metric as the objective, labels of several dimensions where features are smoothed,
            or labels that are maps where a setting has no form for them.
    """
    is_map = manifest.label.dense is not None
    general = DENSE_METRICS if is_map else tuple(METRICS)
    known, metric = (*general, *manifest.metrics), config.objective.metric
    if is_map and (found := misfits(config)):
        rule = "has no form for labels that are maps"
        raise InputError(Fault(where=manifest.name, key=key, rule=rule, got=got) for key, got in found.items())
    if metric not in known:
        rule = "the data set has no such metric"
        raise InputError(Fault(where=manifest.name, key="objective.metric", rule=rule, got=metric, known=known))
    dims = len(manifest.label.axes)
    if dims > 1 and config.reweighting.fds is not None:
        # Its window runs over neighboring bins, and numbered cells of a grid are no neighbors.
        rule = "is made for labels of one dimension"
        raise InputError(Fault(where=manifest.name, key="reweighting.fds", rule=rule, got=dims))


def use_best_weights(training: Training) -> None:
    """Put the weights of the best epoch into the model, if there is one."""
    if training.best_weights:
        training.model.load_state_dict(training.best_weights)
