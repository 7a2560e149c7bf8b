"""LeNet for small gray images of eyes: two convolutions, each with max pooling, and one linear layer.

Source: Zhang et al., "Appearance-Based Gaze Estimation in the Wild", CVPR 2015, whose network concatenates the head pose
to the 500 values of the linear layer; official model in Caffe; the initialization is that of the PyTorch port
hysts/pytorch_mpiigaze (`gaze_estimation/models/mpiigaze/lenet.py`). As there, the convolutions have no other nonlinearity
than the pooling. Departures: 1. any number of channels and any size of at least 16 x 16 pixels; 2. the embedding may be
projected before the predictor, as with every encoder of this library.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dirtune import batch, manifest
from dirtune.frozen import Frozen
from dirtune.models.encoders.encoder import Encoder, find_only_input, make_input_error

# Both convolutions and poolings leave one position of this many pixels.
_MIN_SIDE = 16
_WIDTHS, _HIDDEN = (20, 50), 500


class LeNet(Frozen):
    """LeNet, 500 values and those of the side input; reads one image input, at least 16 x 16 pixels."""

    name: Literal["lenet"] = "lenet"
    side_input: str | None = None
    """Vector input whose values are concatenated to the 500, as the head pose in the paper; None means the image alone."""

    def build(self, inputs: dict[str, manifest.InputSpec]) -> Encoder:
        """Return the encoder, initialized from torch's global generator.

        Raises:
            InputError: the data set does not have exactly one image input, its images are too small, or it has no such
                vector input.
        """
        name = find_only_input(self.name, "image", inputs)
        if min(inputs[name].shape[1:]) < _MIN_SIDE:
            raise make_input_error(self.name, f"images of at least {_MIN_SIDE}x{_MIN_SIDE} pixels", inputs)
        if self.side_input is None:
            return _LeNet(name, inputs[name].shape)
        vectors = [each for each, spec in inputs.items() if spec.kind == "vector"]
        if self.side_input not in vectors:
            raise make_input_error(self.name, f"a vector input {self.side_input!r}", inputs, vectors)
        return _LeNet(name, inputs[name].shape, self.side_input, inputs[self.side_input].size)


class _LeNet(Encoder):
    def __init__(self, image: str, shape: tuple[int, ...], side_input: str | None = None, side_size: int = 0) -> None:
        super().__init__()
        self.image, self.side_input = image, side_input
        channels, height, width = shape
        first = nn.Conv2d(channels, _WIDTHS[0], kernel_size=5)
        second = nn.Conv2d(*_WIDTHS, kernel_size=5)
        linear = nn.Linear(_WIDTHS[1] * _count_positions(height) * _count_positions(width), _HIDDEN)
        # The initialization of the port; biases start at zero, below.
        nn.init.normal_(first.weight, std=0.1)
        nn.init.normal_(second.weight, std=0.01)
        nn.init.xavier_uniform_(linear.weight)
        pool = nn.MaxPool2d(2)
        self.layers = nn.Sequential(first, pool, second, pool, nn.Flatten(), linear, nn.ReLU())
        for name, parameter in self.layers.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
        self.embedding_dim = _HIDDEN + side_size

    def forward(self, inputs: batch.Inputs) -> Float[Tensor, "batch embedding_dim"]:
        embeddings: Tensor = self.layers(inputs[self.image])
        if self.side_input is None:
            return embeddings
        # After the last layer, as in the paper: the regressor alone combines image and head pose.
        return torch.cat([embeddings, inputs[self.side_input].flatten(1)], dim=1)


def _count_positions(pixels: int) -> int:
    """Return the positions along a side after both convolutions and poolings."""
    return ((pixels - 4) // 2 - 4) // 2
