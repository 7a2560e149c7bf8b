"""`Recipe`: everything about a training that is not the method under test, and how its numbers are computed.

Optimizer, schedule, batch, epochs and views move the error, more than any method does; the last five settings are for
speed and memory, and move it by rounding, except where their text says more. What a machine or an encoder must have for
them is checked where it is known (`dirtune.training.numerics`).
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from dirtune.frozen import Added, Frozen

Precision = Literal["float32", "bf16", "fp16"]


class Constant(Frozen):
    """The learning rate stays."""

    name: Literal["constant"] = "constant"

    def factor(self, epoch: int, epochs: int) -> float:
        """Learning-rate factor of epoch `epoch` (from 1) of `epochs`."""
        return 1.0


class Steps(Frozen):
    """The learning rate is multiplied by `factor_per_step` after each milestone (epochs finished)."""

    name: Literal["steps"] = "steps"
    milestones: tuple[int, ...]
    factor_per_step: float = 0.1

    def factor(self, epoch: int, epochs: int) -> float:
        """Learning-rate factor of epoch `epoch` (from 1) of `epochs`."""
        passed = sum(epoch > milestone for milestone in self.milestones)
        return float(self.factor_per_step**passed)


class Cosine(Frozen):
    """Half a cosine from 1 in the first epoch towards 0 after the last."""

    name: Literal["cosine"] = "cosine"

    def factor(self, epoch: int, epochs: int) -> float:
        """Learning-rate factor of epoch `epoch` (from 1) of `epochs`."""
        return 0.5 * (1.0 + math.cos(math.pi * (epoch - 1) / epochs))


class Views(Frozen):
    """How many augmented views of a sample are made, and which part of the loss sees which."""

    count: int = Field(default=1, ge=1)
    augmentation: str = "none"
    """A name of `dirtune.data.augmentations.AUGMENTATIONS`; text views differ by the encoder's dropout alone."""
    regression: Literal["all", "first"] = "all"
    """all: every view enters the regression loss and the terms (ACCon). first: view one enters the regression loss,
    the others the terms (ConR's official scheme, with count 3)."""

    @model_validator(mode="after")
    def _terms_need_a_view(self) -> Views:
        if self.regression == "first" and self.count < 2:
            raise ValueError("regression: first leaves no view for the terms unless count >= 2")
        return self


class Recipe(Frozen):
    """Everything about the training that is not the method under test."""

    name: str = "custom"
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """sgd only."""
    schedule: Annotated[Constant | Steps | Cosine, Field(discriminator="name")] = Constant()
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    """Samples per step over all workers; each sample counts once, however many views it has."""
    gradient_clip: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient of all parameters; none: no clipping."""
    views: Views = Views()
    precision: Annotated[Precision, Added()] = "float32"
    """What encoder, projection and predictor compute in while they are trained, by torch's autocast; weights, losses, terms
    and every evaluation are float32. In training a prediction then has 8 (bf16) or 11 (fp16) significant bits. fp16 needs
    a GPU; the loss is scaled so that small gradients do not vanish, and a step whose gradient overflows is left out."""
    channels_last: Annotated[bool, Added()] = False
    """Whether images and convolutions lie in memory pixel by pixel, which GPUs compute faster in half precision."""
    accumulation: Annotated[int, Added()] = Field(default=1, ge=1)
    """Micro-batches that a batch is cut into, of equal size; their gradients add up to one step, which is clipped once. The
    regression loss is that of the whole batch, with its weights. Whatever looks at several samples sees one micro-batch:
    terms compare pairs inside of it only, as do bmc and tukey; batch normalization takes its statistics there; dropout
    draws anew. Of labels that are maps a micro-batch counts by its images, not by their labeled pixels."""
    compile: Annotated[bool, Added()] = False
    """Whether training steps run the regressor through `torch.compile`, anew for every trial, which takes up to minutes;
    evaluation does not. Checkpoints are the same."""
    sync_batch_norm: Annotated[bool, Added()] = False
    """Whether batch normalization takes its statistics over all workers of a trial, on GPUs; nothing to do for one worker."""

    @model_validator(mode="after")
    def _micro_batches_are_equal(self) -> Recipe:
        if self.batch_size % self.accumulation:
            sizes = f"{self.batch_size} and {self.accumulation}"
            raise ValueError(f"batch_size must be a multiple of accumulation; they are {sizes}")
        return self

    @property
    def micro_batch(self) -> int:
        """Samples, over all workers, whose gradient is computed at once."""
        return self.batch_size // self.accumulation

    def find_next_accumulation(self, *, least: int = 2) -> int | None:
        """Return the smallest `accumulation` whose micro-batches have at most half the samples of today's.

        Args:
            least: samples that a micro-batch must have.

        Returns:
            A divisor of `batch_size`; None if the micro-batches of every such value would be smaller than `least`.
        """
        finer = range(2 * self.accumulation, self.batch_size // least + 1)
        return next((pieces for pieces in finer if self.batch_size % pieces == 0), None)
