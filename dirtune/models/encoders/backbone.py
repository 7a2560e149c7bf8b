"""What encoders from libraries of pretrained networks share: settings, weights and their hash, images as the network reads them.

Weights come from a local file or from the cache of their hub, never from the network: a trial must not depend on it, and a
missing file is one sentence before anything runs. The hash of the weights is part of a trial's id.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, find_only_input, make_input_error

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the channels of ImageNet."""


class BackboneSpec(Frozen):
    """Settings of every encoder from a library."""

    standardizes_pixels: ClassVar[bool] = True
    """The encoder has a mean and deviation of its own, and `model.pixel_units` is not used."""

    model: str
    """Name of the network in its library."""
    pretrained: bool = False
    """Start from the weights of the library's hub, which must be in its cache; false means random weights."""
    freeze: bool = False
    """Keep the weights as they are: no gradient, and batch norm and dropout as in evaluation."""
    learning_rate_factor: float = Field(default=1.0, gt=0)
    """Factor of the recipe's learning rate for the weights of the network."""

    def find_weights(self) -> Sequence[Path]:
        """Return the files of the weights; none for random ones.

        Raises:
            InputError: they are not on this machine.
        """
        raise NotImplementedError

    def hash_weights(self) -> str | None:
        """Return the hash of the weights, or None for random ones; raises as `find_weights`."""
        files = self.find_weights()
        return hash_files(tuple(str(path) for path in files)) if files else None


class ImageBackboneSpec(BackboneSpec):
    """Settings of every network of images."""

    image_size: int | None = Field(default=None, gt=0)
    """Height and width to which images are resized; None means the size that the network was made for."""


class Backbone(Encoder):
    """Network of a library as an encoder."""

    def __init__(self, spec: BackboneSpec, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.is_frozen = spec.freeze
        self.learning_rate_factor = spec.learning_rate_factor
        if spec.freeze:
            network.requires_grad_(requires_grad=False)

    def train(self, mode: bool = True) -> "Backbone":
        """Set training mode, in which a frozen network evaluates."""
        super().train(mode)
        if self.is_frozen:
            self.network.eval()
        return self


class ImageBackbone(Backbone):
    """Network of images, which reads them resized and standardized.

    Args:
        spec: the settings.
        reads: name of the image input.
        network: returns an embedding for each image, or something of which `select` takes it.
        size: height and width that the network reads.
        dim: size of an embedding.
        mean: of each channel.
        deviation: of each channel.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        spec: BackboneSpec,
        reads: str,
        network: nn.Module,
        *,
        size: tuple[int, int],
        dim: int,
        mean: Sequence[float],
        deviation: Sequence[float],
    ) -> None:
        super().__init__(spec, network)
        self.reads, self.size, self.embedding_dim = reads, size, dim
        for name, values in (("mean", mean), ("deviation", deviation)):
            # Not in checkpoints: they are settings.
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        images = inputs[self.reads]
        if tuple(images.shape[-2:]) != self.size:
            images = F.interpolate(images, self.size, mode="bilinear", antialias=True)
        # Images of one channel are copied to three by the broadcast.
        return self.select(self.network((images - self.mean) / self.deviation))

    def select(self, output: Any) -> Tensor:
        """Return the embeddings of the network's output."""
        embeddings: Tensor = output
        return embeddings


def find_image(encoder: str, inputs: dict[str, manifest.InputSpec]) -> str:
    """Return the name of the only image input.

    Raises:
        InputError: there is none of one or three channels, or there are several.
    """
    name = find_only_input(encoder, "image", inputs)
    if inputs[name].shape[0] not in (1, 3):
        raise make_input_error(encoder, "an image input of one or three channels", inputs)
    return name


def is_meta() -> bool:
    """Return True while networks are built without memory, as `dirtune plan` builds them."""
    return torch.empty(0).is_meta


def make_missing_error(package: str, extra: str) -> InputError:
    """Return the error for a library that is not installed."""
    rule = f"needs the package {package}: pip install 'dirtune[{extra}]'"
    return InputError(Fault(where="model.encoder", rule=rule))


@cache
def hash_files(names: tuple[str, ...]) -> str:
    """Return the hash of the contents of files; computed once in a process, because weights are large."""
    state = hashlib.sha256()
    for name in names:
        with Path(name).open("rb") as file:
            state.update(hashlib.file_digest(file, "sha256").digest())
    return state.hexdigest()[:16]
