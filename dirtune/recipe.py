"""`Recipe`: all settings of a training except the method under test, including those of its numerics.

Optimizer, schedule, batch, epochs and views change the error more than any method does. The last five settings are for
speed and memory and change the error by rounding only, unless documented otherwise. Their requirements on the
machine and the encoder are checked in `dirtune.training.numerics`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dirtune.frozen import Added, Frozen

Optimizer = Literal["adam", "adamw", "sgd"]
Precision = Literal["float32", "bf16", "fp16"]
LastBatch = Literal["keep", "drop", "drop_single"]


class Constant(Frozen):
    """Constant learning rate."""

    name: Literal["constant"] = "constant"

    def compute_factor(self, epoch: int, epochs: int) -> float:
        """Return the factor of the learning rate in epoch `epoch` (from 1) of `epochs`."""
        return 1.0


class Steps(Frozen):
    """Learning rate multiplied by `factor_per_step` after each milestone, in finished epochs."""

    name: Literal["steps"] = "steps"
    milestones: tuple[int, ...]
    factor_per_step: float = 0.1

    def compute_factor(self, epoch: int, epochs: int) -> float:
        """Return the factor of the learning rate in epoch `epoch` (from 1) of `epochs`."""
        # An epoch after a milestone has the factor of all milestones before it.
        passed = sum(epoch > milestone for milestone in self.milestones)
        return float(self.factor_per_step**passed)


class Cosine(Frozen):
    """Half a cosine from 1 to `floor`, by epochs."""

    name: Literal["cosine"] = "cosine"
    floor: Annotated[float, Added()] = Field(default=0.0, ge=0, lt=1)
    """Factor at the end. Rank-N-Contrast's code: 0.001 (the representation), 0.008 (the predictor)."""
    position: Annotated[Literal["start", "end"], Added()] = "start"
    """start: an epoch has the factor at its start, which is 1 in the first; end: the factor at its end, which is `floor` in
    the last, as in Rank-N-Contrast's code, which counts epochs from 1."""

    def compute_factor(self, epoch: int, epochs: int) -> float:
        """Return the factor of the learning rate in epoch `epoch` (from 1) of `epochs`."""
        passed = epoch - 1 if self.position == "start" else epoch
        # By epochs, not by steps: the rate then does not depend on the batch size.
        return self.floor + (1.0 - self.floor) * 0.5 * (1.0 + math.cos(math.pi * passed / epochs))


Schedule = Annotated[Constant | Steps | Cosine, Field(discriminator="name")]


class Views(Frozen):
    """Augmented views of a sample, and the parts of the loss that receive them."""

    count: int = Field(default=1, ge=1)
    augmentation: str = "none"
    """A name of `dirtune.data.augmentations.AUGMENTATIONS`; text views differ by the encoder's dropout alone."""
    regression: Literal["all", "first"] = "all"
    """all: every view enters the regression loss and the terms (ACCon). first: the first view enters the regression loss,
    the others the terms (ConR's official code, with count 3)."""

    passes: Annotated[Literal["joint", "apart"], Added()] = "joint"
    """joint: one forward pass over all views; apart: with regression `first`, one over the views of the terms, then one over
    the view of the regression loss, as in ConR's official code. They differ in batch normalization alone: apart, each
    pass has statistics of its own and moves the running ones."""

    @model_validator(mode="after")
    def _check_count(self) -> "Views":
        if self.regression == "first" and self.count < 2:
            raise ValueError("regression: first leaves no view for the terms unless count >= 2")
        if self.passes == "apart" and self.regression == "all":
            raise ValueError("passes: apart needs regression: first, or every view is in both passes")
        return self


class EarlyStopping(Frozen):
    """Rule by which a stage ends before its epochs do, from the validation objective; the best weights are kept."""

    patience: int = Field(ge=1)
    """Number of epochs that the rule compares."""
    rule: Literal["plateau", "newest_worst"] = "plateau"
    """plateau: end after `patience` epochs without a new best one; newest_worst: end when the newest epoch is no better than
    any of the `patience` epochs before it, from epoch `patience` + 2 on, which is the rule of the STS-B trainer
    (github.com/YyzHarry/imbalanced-regression, `sts-b-dir/trainer.py`; patience 10 there, 30 in ACCon and RankSim)."""

    def is_over(self, objectives: Sequence[float], *, maximize: bool) -> bool:
        """Return True if a stage ends after the epochs that have these objectives; an undefined one is the worst."""
        losses = [math.inf if math.isnan(value) else -value if maximize else value for value in objectives]
        if self.rule == "plateau":
            # The first of several equal ones is the best.
            return len(losses) - 1 - losses.index(min(losses)) >= self.patience if losses else False
        return len(losses) > self.patience + 1 and losses[-1] >= max(losses[-self.patience - 1 :])


class Recipe(Frozen):
    """All settings of a training except the method under test."""

    name: str = "custom"
    optimizer: Optimizer = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Used by sgd only."""
    schedule: Schedule = Constant()
    epochs: int = Field(default=10, ge=1)
    """Number of epochs; the largest number with early stopping."""
    steps_per_epoch: Annotated[int | None, Added()] = Field(default=None, ge=1)
    """Steps of an epoch, the unit of validation, schedule, early stopping and records: steps continue over passes through
    the shuffled training rows, within epochs and across them. Feature smoothing counts passes. None: an epoch is one pass.
    STS-B's scripts: 400."""
    early_stopping: Annotated[EarlyStopping | None, Added()] = None
    """Rule by which a stage that validates ends before its epochs do. None: no such rule."""
    last_batch: Annotated[LastBatch, Added()] = "keep"
    """Last batch of a pass if it has fewer rows than the others. keep: it is a step; drop: it is left out, so that other rows
    are left out in every pass (ACCon's scripts on ages, Rank-N-Contrast's); drop_single: it is left out if it is a single row and the stage has
    terms, which compare rows (ACCon's script on STS-B)."""
    batch_size: int = Field(default=128, ge=1)
    """Samples per step over all workers; a sample counts once, whatever its number of views."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all parameters. None: no clipping."""
    views: Views = Views()
    precision: Annotated[Precision, Added()] = "float32"
    """Autocast precision of the encoder in training, with per-pixel labels of projection and predictor, too; all else, such
    as weights, losses and every evaluation, is float32. An embedding in training then has 8 (bf16) or 11 (fp16) significant
    bits. fp16 needs a GPU; its loss is scaled so that small gradients do not underflow, and a step whose gradient overflows is
    skipped."""
    channels_last: Annotated[bool, Added()] = False
    """Memory layout of images and convolutions with the channels last, faster on GPUs in half precision."""
    accumulation: Annotated[int, Added()] = Field(default=1, ge=1)
    """Number of micro-batches of equal size per batch; their gradients are accumulated into one step and clipped once. The
    regression loss is that of the whole batch, with its weights. Everything that compares samples sees one micro-batch:
    the pairs of terms, dist, tukey and the statistics of batch normalization; bmc and ccc, which estimate a distribution or
    a correlation from the batch, are refused. Dropout draws a mask per micro-batch. Of per-pixel labels, a micro-batch is
    weighted by its images, not by their labeled pixels."""
    compile: Annotated[bool, Added()] = False
    """Compile the training steps of every trial with `torch.compile`, which takes up to minutes; evaluation is not compiled.
    Checkpoints are the same."""
    sync_batch_norm: Annotated[bool, Added()] = False
    """Compute the statistics of batch normalization over all workers of a trial, on GPUs; no effect with one worker."""
    batch_norm_groups: Annotated[int, Added()] = Field(default=1, ge=1)
    """Number of parts of each forward pass in training that batch normalization treats apart, cut in the order of the rows.
    The running statistics are those of the first part, as under `torch.nn.DataParallel`, which the published command lines
    run on this number of GPUs: 4 (DIR; ConR on IMDB-WIKI), 2 (ACCon on IMDB-WIKI, so that each view is a part). With several
    workers each cuts its own rows."""

    @model_validator(mode="after")
    def _check_accumulation(self) -> "Recipe":
        check_micro_batches(self, key="batch_size")
        if self.sync_batch_norm and self.batch_norm_groups > 1:
            raise ValueError("sync_batch_norm joins what batch_norm_groups separates: choose one of them")
        return self

    @property
    def micro_batch(self) -> int:
        """Samples per gradient computation, over all workers."""
        return self.batch_size // self.accumulation

    def find_next_accumulation(self, *, least: int = 2) -> int | None:
        """Return the smallest `accumulation` whose micro-batches have at most half the samples of today's.

        Args:
            least: samples that a micro-batch must have.

        Returns:
            A divisor of `batch_size`; None if the micro-batches of every such value would be smaller than `least`.
        """
        # At least twice as many micro-batches: fewer rows only help if the peak falls clearly.
        finer = range(2 * self.accumulation, self.batch_size // least + 1)
        return next((pieces for pieces in finer if self.batch_size % pieces == 0), None)


def check_micro_batches(recipe: Recipe, *, key: str) -> None:
    """Raise an error if a batch cannot be cut into micro-batches of equal size; `key` is the place of the batch size."""
    # Means over micro-batches of unequal size would not be the mean over the batch.
    if recipe.batch_size % recipe.accumulation:
        sizes = f"{recipe.batch_size} and {recipe.accumulation}"
        raise ValueError(f"{key} must be a multiple of accumulation; they are {sizes}")
