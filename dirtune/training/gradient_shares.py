"""Shares of the loss's parts in the gradient that reaches the encoder, at the start and at the end of a training.

A term whose gradient is a thousandth of the regression loss's changes nothing, whatever its value is; a regression loss
whose gradient is a thousandth of a term's is not trained. The share of a part is the norm of the gradient of its weighted
value on the encoder's output (the embedding), over the sum of these norms:

    gradient/<part> = |d(w_p L_p)/de| / sum_q |d(w_q L_q)/de|

It is taken from the graph of the first step (its first micro-batch), in the first epoch and in the last one that trains the
encoder. The encoder itself is not passed through, so that this takes less than the step's own backward pass; nothing is
evaluated twice and no random number is drawn, so that the training is the same to the last bit.

Nothing is recorded where the loss has one part, where a frozen encoder gets no gradient, and, because gradients then pass
through a wrapper that counts its backward passes, with several workers per trial or under `recipe.compile`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from dirtune.results.records.names import GRADIENT
from dirtune.training.objective import Loss, TrainingLoss
from dirtune.training.state import Training


@dataclass
class GradientShares:
    """Measurement of one epoch, in its first step."""

    values: dict[str, float] = field(default_factory=dict)
    """Share by name in the table `epochs`; empty if no part has a gradient."""
    is_finished: bool = False
    _embeddings: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watch(self, encoder: nn.Module) -> Iterator[None]:
        """Collect the encoder's outputs of the forward passes of the block."""

        def collect(module: nn.Module, inputs: object, output: Tensor) -> None:
            self._embeddings.append(output)

        handle = encoder.register_forward_hook(collect)
        try:
            yield
        finally:
            handle.remove()

    def measure(self, loss: Loss, objective: TrainingLoss, scaler: torch.amp.GradScaler) -> None:
        """Measure the shares of the parts of a loss that still has its graph, before its backward pass."""
        embeddings = [each for each in self._embeddings if each.requires_grad]
        self._embeddings, self.is_finished = [], True
        if not embeddings:
            return
        norms = {}
        for name, part in loss.parts.items():
            # Scaled as in the step, because the gradients of fp16 would underflow.
            weighted = scaler.scale(objective.factors[name] * part)
            gradients: Sequence[Tensor | None] = ()
            if part.requires_grad:
                gradients = torch.autograd.grad(weighted, embeddings, retain_graph=True, allow_unused=True)
            squares = [each.detach().double().square().sum() for each in gradients if each is not None]
            norms[name] = float(sum(squares)) ** 0.5
        total = sum(norms.values())
        if total > 0:
            self.values = {f"{GRADIENT}{name}": norm / total for name, norm in norms.items()}


def start_measurement(training: Training) -> GradientShares | None:
    """Return the measurement of the next epoch; None if it has none."""
    stage, loss = training.stage, training.loss
    parts = len(loss.terms) + (loss.regression is not None)
    if parts < 2 or not stage.trains_representation or training.ranks.world > 1 or stage.recipe.compile:
        return None
    # With early stopping, every epoch may turn out to be the last.
    is_last = training.epoch + 1 == stage.end or stage.recipe.early_stopping is not None
    return GradientShares() if training.epoch == 0 or is_last else None


def drop_earlier_shares(history: list[dict[str, float]]) -> None:
    """Remove the shares of all epochs but the first and the last from a history, in place."""
    for values in history[1:-1]:
        for name in [name for name in values if name.startswith(GRADIENT)]:
            del values[name]
