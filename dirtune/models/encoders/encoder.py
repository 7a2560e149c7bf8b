"""Base class of encoders, and checks of a data set's inputs.

An encoder is a module from one view of a batch to embeddings of a known size. Its spec (one `Frozen` value per file of
this package) builds it for the inputs of a data set, or raises an `InputError` that names both. A data set may have more
inputs than an encoder reads.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.errors import Fault, InputError


class Encoder(nn.Module):
    """Module from inputs to embeddings; a subclass sets `embedding_dim` and defines `forward`."""

    embedding_dim: int
    is_dense: bool = False
    """True if embeddings are per pixel, `(batch, embedding_dim, height, width)`."""

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim *space"]:
        """Return the embeddings of one view of a batch."""
        raise NotImplementedError


def find_only_input(
    encoder: str, kind: Literal["image", "tokens", "vector"], inputs: dict[str, manifest.InputSpec]
) -> str:
    """Return the name of the only input of a kind.

    Raises:
        InputError: the data set has no such input, or several.
    """
    # Not by name: any data set with one input of the kind fits, whatever its pipeline calls it.
    fitting = [name for name, spec in inputs.items() if spec.kind == kind]
    if len(fitting) != 1:
        raise make_input_error(encoder, f"one {kind} input", inputs)
    return fitting[0]


def make_input_error(
    encoder: str, need: str, inputs: dict[str, manifest.InputSpec], known: Sequence[str] = ()
) -> InputError:
    """Return the error that names the inputs that an encoder needs and those of the data set."""
    got = {name: f"{spec.kind} {spec.shape}" for name, spec in inputs.items()}
    rule = f"encoder {encoder!r} needs {need}"
    return InputError(Fault(where="model.encoder", rule=rule, got=got, known=known))
