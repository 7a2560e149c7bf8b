"""The regressor of labels of pixels: an embedding for each pixel, and a 5x5 convolution as its predictor.

    e = f(x)                                       (dim, height, width), coarser than the labels
    prediction = offset + scale * h(e)             one number for each pixel of e, in the label's unit
    z = mean of e over the pixels / its length     of the image, for the diagnostics of representations

Source: Hu et al., WACV 2019, whose last convolution the predictor is; Yang et al., ICML 2021 (`nyud2-dir`), who smooth
what it reads (FDS), with one bin for each pixel. What contrastive terms read of maps: `dirtune.training.dense_loss`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dirtune.batch import Inputs
from dirtune.models.regressor import Regressor, RegressorOutput, normalised

PREDICTOR_SIZE = 5


class MapRegressor(Regressor):
    """Encoder, feature smoothing (or none) and predictor; there is no projection."""

    def forward(self, inputs: Inputs, label_bins: Int[Tensor, "batch height width"] | None = None) -> RegressorOutput:
        """What the regressor says about a batch: embeddings `(batch, dim, h, w)`, predictions `(batch, h, w)`.

        Args:
            inputs: one view, or several stacked.
            label_bins: of the pixels of the labels, for feature smoothing in training; below zero: not smoothed.
        """
        embeddings = read = self.encoder(inputs)
        if self.smoothing is not None and label_bins is not None:
            read = self.smoothing(embeddings, thinned(label_bins, embeddings))
        raw = self.predictor(read).squeeze(1)
        raw = raw.to(torch.promote_types(raw.dtype, torch.float32))
        predictions = self.spec.label_offset + self.spec.label_scale * raw
        return RegressorOutput(embeddings, normalised(embeddings.mean(dim=(-2, -1))), predictions)


def thinned(maps: Tensor, like: Tensor) -> Tensor:
    """Maps `(batch, height, width)` at the height and width of others: the nearest pixel, nothing is mixed.

    Of two pixels that are equally near the second is taken, as Pillow does.
    """
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return maps.index_select(-2, _nearest(maps, like, -2)).index_select(-1, _nearest(maps, like, -1))


def enlarged(predictions: Float[Tensor, "batch height width"], like: Tensor) -> Float[Tensor, "batch rows columns"]:
    """Predictions at the height and width of the labels: bilinear, corner pixels on corner pixels, as published."""
    size = tuple(like.shape[-2:])
    larger: Tensor = F.interpolate(predictions[:, None], size, mode="bilinear", align_corners=True)
    return larger[:, 0]


def map_predictor(dim: int) -> nn.Conv2d:
    """The last convolution, initialised from torch's global generator."""
    return nn.Conv2d(dim, 1, PREDICTOR_SIZE, padding=PREDICTOR_SIZE // 2)


def _nearest(maps: Tensor, like: Tensor, axis: int) -> Int[Tensor, " places"]:
    old, new = maps.shape[axis], like.shape[axis]
    return ((2 * torch.arange(new, device=maps.device) + 1) * old) // (2 * new)
