"""State of a run between two epochs, complete enough to be saved, restored and continued with identical results."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dirtune.batch import TrainingLabels
from dirtune.config import TrialConfig
from dirtune.data import cache, resplit, subset, synthetic_rows
from dirtune.errors import Fault, InputError
from dirtune.label_transform import make_training_spec
from dirtune.manifest import LabelSpec
from dirtune.models.regressor import Regressor
from dirtune.reweighting.density import shot_regions
from dirtune.training import distributed, numerics, objective
from dirtune.training.passes import Passes, find_batch_faults
from dirtune.training.stages import Stage, build_optimizer, find_stage, freeze, list_stages, restart_predictor
from dirtune.training.task import Task, make_task

Weights = dict[str, Tensor]

_STAGE_STATE = ("number", "start", "passes_before")
"""What is known of a stage only when it starts."""


@dataclass
class Seconds:
    """Seconds of a run by activity."""

    train: float = 0.0
    eval: float = 0.0
    data: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all activities."""
        return self.train + self.eval + self.data


@dataclass(frozen=True, kw_only=True)
class UnfinishedEpoch:
    """The part of an epoch that has been run, as tensors and plain data."""

    means: dict[str, Any]
    """Losses of its steps (`LossMeans.get_state`)."""
    shares: dict[str, float] | None
    """Gradient shares, which the first step measures; None if the epoch has none."""
    random_states: dict[str, Tensor]
    """States of the global generators, from which dropout draws, by device type."""

    @property
    def steps(self) -> int:
        """Number of finished steps."""
        steps: int = self.means["steps"]
        return steps


@dataclass
class Training:
    """A run between two epochs, or between two steps of one."""

    config: TrialConfig
    data: cache.ResidentData
    ranks: distributed.Ranks
    model: Regressor
    task: Task
    stage: Stage = field(init=False)
    """Stage of the last finished epoch."""
    sample_weights: Float[Tensor, " rows"] = field(init=False)
    """Weight of every training row by the stage's re-weighting."""
    loss: objective.TrainingLoss = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)
    scaler: torch.amp.GradScaler = field(init=False)
    """Scaler of the loss in fp16, disabled in other precisions."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One mapping name -> value per epoch."""
    best_epoch: int = 0
    """Counted from 1; 0 means no epoch of the stage has a defined objective yet."""
    best_weights: Weights = field(default_factory=dict)
    order_digest: str = ""
    samples: int = 0
    """Number of rows in all steps so far; a row counts once per pass, whatever its number of views."""
    seconds: Seconds = field(default_factory=Seconds)
    unfinished: UnfinishedEpoch | None = None
    """The next epoch, if some of its steps have been run."""

    def __post_init__(self) -> None:
        self.prepare(list_stages(self.config)[0])

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return len(self.history)

    @property
    def passes(self) -> Passes:
        """Passes of the stage over the training rows."""
        return Passes(self.stage, len(self.data.splits["train"]))

    @property
    def is_stage_finished(self) -> bool:
        """True after the last epoch of the stage, which early stopping may decide."""
        rule, objective = self.stage.recipe.early_stopping, self.stage.config.objective
        if rule is None or not self.stage.trains_predictor:
            return self.epoch >= self.stage.end
        values = [epoch[objective.name] for epoch in self.history[self.stage.start :]]
        return self.epoch >= self.stage.end or rule.is_over(values, maximize=objective.mode == "max")

    @property
    def is_finished(self) -> bool:
        """True after the last epoch of the last stage."""
        return self.is_stage_finished and self.stage.number == len(list_stages(self.config)) - 1

    @property
    def best_objective(self) -> float | None:
        """The validation objective at `best_epoch`."""
        return self.history[self.best_epoch - 1][self.config.objective.name] if self.best_epoch else None

    @property
    def regions(self) -> NDArray[Any]:
        """The shot region of each label bin, by the configured shot rule or the data set's default; shape `(bins,)`."""
        manifest = self.data.manifest
        rule = manifest.shot_rules[self.config.data.shot_rule or manifest.default_shot_rule]
        return shot_regions(manifest.train_counts, rule)

    @property
    def label_spec(self) -> LabelSpec:
        """The label in the unit of training."""
        return make_training_spec(self.data.manifest.label, self.config.model.label_transform)

    def prepare(self, stage: Stage) -> None:
        """Freeze the parts that a stage does not train; make its loss, fitted to the training labels, and optimizer."""
        self.stage = stage
        freeze(self.model, stage)
        split = self.data.splits["train"]
        self.sample_weights = self.task.compute_sample_weights(split, stage.config.reweighting)
        label_scale, _ = self.config.model.get_label_units()
        labels = TrainingLabels(
            labels=split.labels,
            label_bins=split.label_bins,
            spec=self.label_spec,
            label_scale=label_scale,
            weights=self.sample_weights,
            seed=self.config.seed,
            dims=self.model.vector_dims,
            histogram=tuple(self.task.manifest.train_counts) if split.labels.ndim == 1 else (),
        )
        self.loss = self.task.make_loss(labels, stage)
        self.optimizer = build_optimizer(stage.recipe, self.model, self.loss)
        self.scaler = numerics.make_loss_scaler(stage.recipe, self.data.device)

    def start_stage(self, stage: Stage) -> None:
        """Start the next stage from the best weights so far, with a new predictor; the search for the best restarts."""
        # Objectives of different stages do not compare: the first one may not have trained the predictor at all.
        load_best_weights(self)
        self.best_epoch, self.best_weights = 0, {}
        restart_predictor(self.model, self.config.seed)
        # The stage before may have ended early.
        begun = self.stage.passes_before + self.passes.count_begun(self.epoch - self.stage.start)
        self.prepare(replace(stage, start=self.epoch, passes_before=begun))

    def get_state(self) -> dict[str, Any]:
        """Return all that `load_state` needs, as tensors and plain data."""
        return {
            "model": self.model.state_dict(),
            "loss": self.loss.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "order_digest": self.order_digest,
            "samples": self.samples,
            "stage": {name: getattr(self.stage, name) for name in _STAGE_STATE},
            "seconds": vars(self.seconds).copy(),
            "unfinished": None if self.unfinished is None else vars(self.unfinished).copy(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state from `get_state`, in the stage of its last epoch."""
        # The stage first: it decides which parameters the optimizer has.
        self.history = state["history"]
        # Older checkpoints have no stage, and are of recipes in which an epoch is a pass and no stage ends early.
        found = state.get("stage")
        stage = list_stages(self.config)[found["number"]] if found else find_stage(self.config, self.epoch)
        self.prepare(replace(stage, **(found or {})))
        self.samples = state.get("samples", self.epoch * self.passes.used_rows)
        self.model.load_state_dict(state["model"])
        self.loss.load_state_dict(state["loss"])
        self.optimizer.load_state_dict(state["optimizer"])
        # Older checkpoints have no scaler.
        self.scaler.load_state_dict(state.get("scaler", {}))
        self.best_epoch = state["best_epoch"]
        self.best_weights = state["best_weights"]
        self.order_digest = state["order_digest"]
        self.seconds = Seconds(**state["seconds"])
        # Older checkpoints are all of whole epochs.
        self.unfinished = UnfinishedEpoch(**unfinished) if (unfinished := state.get("unfinished")) else None


def begin_training(
    config: TrialConfig,
    data: cache.ResidentData,
    ranks: distributed.Ranks = distributed.Ranks(),  # noqa: B008 - frozen
    vocabulary: list[str] | None = None,
) -> Training:
    """Return a run before its first epoch.

    Args:
        config: the trial's configuration.
        data: the data set on the worker's device.
        ranks: this rank in its group.
        vocabulary: tokens by id, for encoders that start from word vectors.

    Raises:
        InputError: no step has rows; or see `dirtune.training.task.Task.check`, `dirtune.models.build` and
            `dirtune.training.numerics.check_layers`.
    """
    transform = config.model.label_transform
    task = make_task(data.manifest, transform, config.plugin_metrics)
    task.check(config)
    data = cache.transform_training_labels(resplit.redraw_splits(data, config.data.split), transform)
    data = subset.select_training_subset(data, config.data.fraction)
    faults = [*find_batch_faults(config, len(data.splits["train"]), where=data.manifest.name)]
    if faults := [*faults, *_find_reading_faults(config, data.splits["train"], where=data.manifest.name)]:
        raise InputError(faults)
    data = synthetic_rows.add_synthetic_rows(data, config.synthesis, seed=config.seed, transform=transform)
    # Built on the CPU and then moved, so that the initialization does not depend on the device.
    model = numerics.prepare_model(task.build_regressor(config, vocabulary), config.recipe, data.device, ranks)
    return Training(config, data, ranks, model, task)


def _find_reading_faults(config: TrialConfig, split: cache.Split, *, where: str) -> Iterator[Fault]:
    """Yield a fault for every setting that needs rows in an order in which a split on disk is not read."""
    if not split.is_windowed:
        return
    if config.synthesis is not None:
        rule = "needs all training rows in memory, but they do not fit and are read in windows; use more memory"
        yield Fault(where=where, key="synthesis", rule=rule, got=config.synthesis.name)
    if config.sampling is not None:
        rule = "needs rows in any order, but they do not fit into memory and are read in windows; use more memory"
        yield Fault(where=where, key="sampling", rule=rule, got=config.sampling.name)
    advice = "but they do not fit into memory and are read in windows"
    if config.mixing is not None and getattr(config.mixing, "partners", "split") != "batch":
        rule = f"draws partners from all training rows, {advice}; use partners: batch, or more memory"
        yield Fault(where=where, key="mixing", rule=rule, got=config.mixing.name)


def load_best_weights(training: Training) -> None:
    """Load the weights of the best epoch, if there is one, into the model."""
    if training.best_weights:
        training.model.load_state_dict(training.best_weights)
