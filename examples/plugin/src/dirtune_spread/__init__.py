"""A regularizer term, an encoder and a metric for dirtune, found by the entry points in pyproject.toml."""

from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from dirtune.batch import Inputs, TermInputs
from dirtune.frozen import Frozen
from dirtune.manifest import InputSpec
from dirtune.models.encoders.encoder import Encoder, find_only_input


class Spread(Frozen):
    """Repel samples of different label bins: the mean cosine similarity of their pairs."""

    weight: float = Field(default=1.0, ge=0)
    """Weight of the term in the total loss; 0 switches it off."""

    def __call__(self, inputs: TermInputs) -> Tensor:
        cosines = inputs.representations @ inputs.representations.T
        differ = inputs.label_bins[:, None] != inputs.label_bins[None, :]
        return (cosines * differ).sum() / differ.sum().clamp(min=1)


class WideMLP(Frozen):
    """One wide hidden layer; reads one vector input."""

    name: Literal["wide_mlp"] = "wide_mlp"
    width: int = Field(default=64, gt=0)
    """Size of the layer, and of the embedding."""

    def build(self, inputs: dict[str, InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator."""
        name = find_only_input(self.name, "vector", inputs)
        return _WideMLP(name, inputs[name].size, self.width)


class _WideMLP(Encoder):
    def __init__(self, reads: str, size: int, width: int) -> None:
        super().__init__()
        self.reads = reads
        self.embedding_dim = width
        self.layer = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.ReLU())

    def forward(self, inputs: Inputs) -> Tensor:
        embeddings: Tensor = self.layer(inputs[self.reads])
        return embeddings


class Sines(nn.Module):
    """Sines of random projections, without weights to train but a linear layer; used as `{name: module, factory: ...}`."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.embedding_dim = width
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(size, width))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs).sin()


def make_sines(shape: tuple[int, ...], width: int = 16) -> nn.Module:
    """Return the module for inputs of a shape."""
    return Sines(int(np.prod(shape)), width)


def tail_error(labels: Any, predictions: Any) -> float:
    """Compute the 95th percentile of the absolute error, in the label's unit."""
    return float(np.percentile(np.abs(labels - predictions), 95)) if len(labels) else float("nan")


tail_error.higher_is_better = False  # type: ignore[attr-defined]
