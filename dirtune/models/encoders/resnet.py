"""Residual networks of torchvision without their last layer, for images of one or three channels.

He et al., "Deep Residual Learning for Image Recognition", CVPR 2016. ResNet-50 from random weights is the encoder of
the published AgeDB-DIR and IMDB-WIKI-DIR tables (Yang et al., ICML 2021, and its successors). Departures: 1. an image of
one channel gets its own first convolution instead of being copied to three; 2. the average is taken over all remaining
positions, so that any image size works.
"""

import pickle
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.errors import Fault, InputError
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, find_only_input, make_input_error


class _ResNetSpec(Frozen):
    name: str
    weights_file: str | None = None
    """A state dict as torchvision saves it (its last layer is ignored); None means random weights."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator or the weights file.

        Raises:
            InputError: the inputs do not fit, or the weights file cannot be used.
        """
        # A local import: it takes as long as that of torch itself, and the other encoders do without.
        from torchvision.models import get_model

        name = find_only_input(self.name, "image", inputs)
        channels = inputs[name].shape[0]
        if channels not in (1, 3):
            raise make_input_error(self.name, "an image input of one or three channels", inputs)
        built = _ResNet(name, channels, get_model(self.name))
        if self.weights_file is not None:
            load_weights(built.network, self.weights_file)
        return built


class ResNet18(_ResNetSpec):
    """ResNet-18, 512 values; reads one image input of one or three channels."""

    name: Literal["resnet18"] = "resnet18"


class ResNet50(_ResNetSpec):
    """ResNet-50, 2048 values; reads one image input of one or three channels."""

    name: Literal["resnet50"] = "resnet50"


class _ResNet(Encoder):
    def __init__(self, name: str, channels: int, network: Any) -> None:
        super().__init__()
        self.reads = name
        self.embedding_dim = int(network.fc.in_features)
        network.fc = nn.Identity()
        # As torchvision initializes the layer that this one replaces
        if channels == 1:
            network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
            nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.network = network

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        embeddings: Tensor = self.network(inputs[self.reads])
        return embeddings


def load_weights(network: nn.Module, weights_file: str) -> None:
    """Load a file's weights into a residual network of torchvision, except those of its last layer.

    Raises:
        InputError: there is no such file, or it has the weights of another network.
    """
    try:
        state = torch.load(weights_file, map_location="cpu", weights_only=True)
        kept = {key: value for key, value in state.items() if not key.startswith("fc.")}
        # A study is checked with networks on the meta device, which have no storage to copy into.
        network.load_state_dict(kept, assign=next(network.parameters()).is_meta)
    except FileNotFoundError:
        raise InputError(Fault(where=weights_file, rule="no such file")) from None
    except (OSError, RuntimeError, AttributeError, pickle.UnpicklingError) as error:
        rule = f"not the weights of this encoder ({str(error).splitlines()[0]})"
        raise InputError(Fault(where=weights_file, rule=rule)) from None
