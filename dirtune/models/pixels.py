"""Standardization of the pixels of images, channel by channel, before an encoder."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.models.encoders.encoder import Encoder


class PixelStandardization(Encoder):
    """Encoder that reads `(pixels - mean) / deviation` of images, with pixels in [0, 1]."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self, encoder: Encoder, images: Sequence[str], mean: Sequence[float], deviation: Sequence[float]
    ) -> None:
        super().__init__()
        self.encoder, self.images = encoder, tuple(images)
        self.embedding_dim, self.is_dense = encoder.embedding_dim, encoder.is_dense
        for name, values in (("mean", mean), ("deviation", deviation)):
            # Not in checkpoints: they are settings.
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, inputs: Inputs) -> Float[Tensor, "batch embedding_dim *space"]:
        """Return the embeddings of one view of a batch."""
        standardized = {name: (inputs[name] - self.mean) / self.deviation for name in self.images}
        embeddings: Tensor = self.encoder({**inputs, **standardized})
        return embeddings
