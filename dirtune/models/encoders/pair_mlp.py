"""A multilayer perceptron for pairs of vectors, such as frozen sentence features.

Both vectors pass one shared layer; `[u; v; |u - v|; u * v]` then enters hidden layers. The comparison is that of
Conneau et al., "Supervised Learning of Universal Sentence Representations", EMNLP 2017, which the STS-B-DIR baselines
use too; the rest is the project's own.
"""

from math import prod
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.frozen import Frozen
from dirtune.models.encoders import encoder, mlp

FIRST, SECOND = "first_features", "second_features"


class PairMLP(Frozen):
    """Reads two vector inputs of one shape, `first_features` and `second_features`."""

    reads_tokens: ClassVar[bool] = False
    """The texts from which the vectors are have no part in it."""
    name: Literal["pair_mlp"] = "pair_mlp"
    shared: int | None = Field(default=256, gt=0)
    """Width of the layer that both vectors pass (linear and ReLU); None compares the input vectors."""
    hidden: tuple[int, ...] = Field(default=(256,), min_length=1)
    """Widths of the layers after the comparison; the last is the embedding's size."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of values set to zero before each layer in training; with a value above 0 two views of a pair differ."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> encoder.Encoder:
        """Return the encoder, initialized from torch's global generator.

        Raises:
            InputError: the data set lacks one of the inputs, or they are not two vectors of one shape.
        """
        pair = [inputs[name] for name in (FIRST, SECOND) if name in inputs]
        # Of one shape, because one layer with one set of weights reads both.
        if len(pair) != 2 or pair[0] != pair[1] or pair[0].kind != "vector":
            raise encoder.make_input_error(self.name, "two vector inputs of one shape", inputs, (FIRST, SECOND))
        return _PairMLP(prod(pair[0].shape), self.shared, self.hidden, self.dropout)


class _PairMLP(encoder.Encoder):
    def __init__(self, size: int, shared: int | None, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        # One module for both sentences, so that swapping them only swaps u and v in the comparison.
        self.shared = nn.Identity() if shared is None else mlp.make_hidden_layers(size, (shared,), dropout)
        self.layers = mlp.make_hidden_layers(4 * (shared or size), hidden, dropout)
        self.embedding_dim = hidden[-1]

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        first, second = (self.shared(inputs[name].flatten(1)) for name in (FIRST, SECOND))
        embeddings: Tensor = self.layers(compare_pair(first, second))
        return embeddings


def compare_pair(
    first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
) -> Float[Tensor, "batch four_dim"]:
    """Return `[u; v; |u - v|; u * v]` along the last dimension."""
    return torch.cat([first, second, (first - second).abs(), first * second], dim=-1)
