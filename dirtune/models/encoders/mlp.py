"""A multilayer perceptron for tabular data: one vector input through hidden layers with ReLU and dropout."""

from collections import OrderedDict
from math import prod
from typing import Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, find_only_input


class MLP(Frozen):
    """Hidden layers; reads one vector input. The last layer's width is the embedding's size."""

    name: Literal["mlp"] = "mlp"
    hidden: tuple[int, ...] = Field(default=(128, 128), min_length=1)
    """Widths of the hidden layers."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of values set to zero before each layer in training; with a value above 0 two views of a sample differ."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator.

        Raises:
            InputError: the data set does not have exactly one vector input.
        """
        name = find_only_input(self.name, "vector", inputs)
        return _MLP(name, prod(inputs[name].shape), self.hidden, self.dropout)


class _MLP(Encoder):
    def __init__(self, name: str, size: int, hidden: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        self.reads = name
        self.layers = make_hidden_layers(size, hidden, dropout)
        self.embedding_dim = hidden[-1]

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        embeddings: Tensor = self.layers(inputs[self.reads].flatten(1))
        return embeddings


def make_hidden_layers(size: int, hidden: tuple[int, ...], dropout: float) -> nn.Sequential:
    """Return dropout, linear map and ReLU for each width in turn, from `size` values to `hidden[-1]`."""
    layers: list[nn.Module | None] = []
    for width in hidden:
        # Dropout precedes the linear map, so that also the input is dropped and two views of a sample differ.
        layers += [nn.Dropout(dropout) if dropout else None, nn.Linear(size, width), nn.ReLU()]
        size = width
    # The weights have the same names with and without dropout
    return nn.Sequential(OrderedDict((str(at), layer) for at, layer in enumerate(layers) if layer is not None))
