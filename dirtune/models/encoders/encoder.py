"""What an encoder is, and what it asks of a data set's inputs.

An encoder is a module from one view of a batch to embeddings of a known size. Its spec (one `Frozen` value per file of
this package) builds it for the inputs of a data set, or refuses with an `InputError` that names both sides. A data set
may have more inputs than an encoder reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from dirtune.batch import Inputs
from dirtune.errors import Fault, InputError
from dirtune.manifest import InputSpec


class Encoder(nn.Module):
    """A module from inputs to embeddings; a heir sets `embedding_dim` and defines `forward`."""

    embedding_dim: int
    makes_maps: bool = False
    """Whether it makes an embedding for each pixel: `(batch, embedding_dim, height, width)`."""

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch embedding_dim *space"]:
        """Embeddings of one view of a batch."""
        raise NotImplementedError


def only_input(encoder: str, kind: Literal["image", "tokens", "vector"], inputs: dict[str, InputSpec]) -> str:
    """The name of the one input of that kind.

    Raises:
        InputError: there is none, or more than one.
    """
    fitting = [name for name, spec in inputs.items() if spec.kind == kind]
    if len(fitting) != 1:
        raise misfit(encoder, f"one {kind} input", inputs)
    return fitting[0]


def misfit(encoder: str, need: str, inputs: dict[str, InputSpec], known: Sequence[str] = ()) -> InputError:
    """The error that says what the encoder needs and what the data set has."""
    got = {name: f"{spec.kind} {spec.shape}" for name, spec in inputs.items()}
    rule = f"encoder {encoder!r} needs {need}"
    return InputError(Fault(where="model.encoder", rule=rule, got=got, known=known))
