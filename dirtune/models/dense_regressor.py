"""Regressor for per-pixel labels: an embedding for each pixel, and a 5x5 convolution as its predictor.

    e = f(x)                                       (dim, height, width), coarser than the labels
    prediction = offset + scale * h(e)             one number for each pixel of e, in the label's unit
    z = mean of e over the pixels / its length     of the image, for the diagnostics of representations

Source: Hu et al., WACV 2019, whose last convolution the predictor is; Yang et al., ICML 2021 (`nyud2-dir`), who smooth
the predictor's input (FDS), with one bin for each pixel. Inputs of contrastive terms: `dirtune.training.dense_loss`.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.batch import Inputs, Mixture
from dirtune.models.regressor import Regressor, RegressorOutput

PREDICTOR_SIZE = 5


class DenseRegressor(Regressor):
    """Encoder, feature smoothing (or none) and convolutional predictor, without projection."""

    def forward(
        self,
        inputs: Inputs,
        label_bins: Int[Tensor, "batch height width"] | None = None,
        mixture: Mixture | None = None,
    ) -> RegressorOutput:
        """Return embeddings `(batch, dim, h, w)`, their means `(batch, dim)` and predictions `(batch, h, w)`.

        Args:
            inputs: one view, or several stacked.
            label_bins: bins of the per-pixel labels, for feature smoothing in training; a bin below zero leaves its
                pixel unsmoothed.
            mixture: None; per-pixel labels are not mixed.
        """
        assert mixture is None
        embeddings = read = self.embed(inputs)
        if self.smoothing is not None and label_bins is not None:
            read = self.smoothing(embeddings, downsample_nearest(label_bins, embeddings))
            if self.smoothing.settings.smooths_terms:
                embeddings = read
        predictions = self._scale_output(self.predictor(read).squeeze(1))
        return RegressorOutput(embeddings, embeddings.mean(dim=(-2, -1)), predictions)


def downsample_nearest(dense: Tensor, like: Tensor) -> Tensor:
    """Return per-pixel values `(batch, height, width)` at the height and width of `like`, each from the nearest pixel.

    No values are mixed. Of two pixels that are equally near the second is taken, as in Pillow.
    """
    if dense.shape[-2:] == like.shape[-2:]:
        return dense
    for axis in (-2, -1):
        old, new = dense.shape[axis], like.shape[axis]
        nearest = ((2 * torch.arange(new, device=dense.device) + 1) * old) // (2 * new)
        dense = dense.index_select(axis, nearest)
    return dense


def upsample_bilinear(
    predictions: Float[Tensor, "batch height width"], like: Tensor
) -> Float[Tensor, "batch rows columns"]:
    """Return predictions at the height and width of `like`, corner pixels on corner pixels, as published."""
    size = tuple(like.shape[-2:])
    larger: Tensor = F.interpolate(predictions[:, None], size, mode="bilinear", align_corners=True)
    return larger[:, 0]
