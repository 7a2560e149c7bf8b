"""Loss of a batch with per-pixel labels: the regression loss over labeled pixels, the terms over images.

    regression    mean over labeled pixels of each pixel's loss, weighted by the label bin of the pixel; 0 without any
    terms         one row per image: its flattened embedding, normalized, and the means of its label, prediction and
                  weight over its labeled pixels; an image without any, in one view at least, takes no part, and
                  without images the terms are 0

Labels are read at the height and width of the predictions, each from the nearest pixel. As in ConR, an image enters a term
as its flattened embedding and the mean of its labels.

Source: Yang et al., ICML 2021 (`nyud2-dir`: the weighted squared error of pixels, weights by bin); Keramati et al., ICLR
2024 (BorealisAI/ConR, `nyud2-dir/ConR.py`). Departure: an unlabeled pixel counts nowhere, where both train on a depth of
zero there; with labels everywhere the two are equal.
"""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.batch import Batch, TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.losses.pairs import normalize_rows
from dirtune.manifest import LabelSpec
from dirtune.models import dense_regressor, regressor
from dirtune.reweighting.density import FLOAT32_TOLERANCE
from dirtune.training.distributed import Ranks
from dirtune.training.objective import REGRESSION, Loss, TrainingLoss, gather_rows, stack_views

MAX_FITTED_PIXELS = 1_000_000


class DenseLoss(TrainingLoss):
    """Loss of one stage of a trial with per-pixel labels.

    Args:
        config: the trial's configuration.
        labels: mean label of each training sample, for terms with a parameter per sample.
        pixel_labels: labels of pixels, for a regression loss that is fitted to labels.
        bin_weights: weight of a pixel by the bin of its label.
        regression: whether the regression loss is a part.
        terms: whether the terms are parts.
    """

    bin_weights: Float[Tensor, " bins"]

    def __init__(
        self,
        config: TrialConfig,
        labels: TrainingLabels,
        pixel_labels: TrainingLabels,
        bin_weights: Float[Tensor, " bins"],
        *,
        regression: bool = True,
        terms: bool = True,
    ) -> None:
        super().__init__(config, labels, regression=regression, terms=terms, regression_labels=pixel_labels)
        assert labels.spec.dense is not None
        self.spec, self.column = labels.spec, labels.spec.dense.column
        self.register_buffer("bin_weights", bin_weights, persistent=False)

    def forward(self, output: regressor.RegressorOutput, batch: Batch, ranks: Ranks) -> Loss:
        """Return the loss of the global batch that this rank's `output` and `batch` are a part of.

        Args:
            output: the regressor's output for `stack_views(batch.views)`.
            batch: this rank's part of the batch.
            ranks: this rank in its group.
        """
        rows = {
            "predictions": output.predictions,
            "labels": dense_regressor.downsample_nearest(stack_views(batch.views)[self.column], output.predictions),
        }
        # Without terms the embeddings, which are large, need not be gathered.
        if self.terms:
            rows["embedding"] = output.embeddings.flatten(1)
        views = len(batch.views)
        gathered = {name: each.unflatten(0, (views, -1)) for name, each in gather_rows(rows, batch, ranks).items()}
        predictions, labels = gathered["predictions"], gathered["labels"]
        bins = compute_dense_bins(labels, self.spec)
        # Bin -1 would index the last weight, hence the clamp; the result is masked.
        weights = torch.where(bins >= 0, self.bin_weights[bins.clamp(min=0)], 0.0)
        parts = {}
        if self.regression is not None:
            of_regression = slice(0, 1 if self.first_view_is_apart else None)
            # A wait for the device: how many pixels have a label decides the sizes that follow.
            labeled = (bins[of_regression] >= 0).flatten().nonzero().squeeze(1)
            seen = predictions[of_regression].flatten()
            # A mean over no labeled pixel would be NaN; this zero is connected to the graph.
            parts[REGRESSION] = (
                self.compute_part(
                    REGRESSION,
                    seen[labeled] / self.label_scale,
                    labels[of_regression].flatten()[labeled] / self.label_scale,
                    weights[of_regression].flatten()[labeled],
                )
                if len(labeled)
                else 0.0 * seen.sum()
            )
        if self.terms:
            of_terms = slice(int(self.first_view_is_apart), None)
            embeddings = gathered["embedding"][of_terms]
            # All views of an image or none, so that rows stay those of whole views.
            images = (bins[of_terms] >= 0).flatten(2).any(dim=2).all(dim=0).nonzero().squeeze(1)
            inputs = make_dense_term_inputs(
                normalize_rows(embeddings[:, images].flatten(0, 1)),
                labels[of_terms][:, images],
                predictions[of_terms][:, images],
                weights[of_terms][:, images],
                spec=self.spec,
                samples=ranks.gather(batch.rows, batch.counts)[images],
            )
            inputs = replace(inputs, label_scale=self.label_scale, draw_seed=batch.draw_seed)
            parts |= {
                name: self.compute_part(name, inputs) if len(images) else 0.0 * embeddings.sum() for name in self.terms
            }
        return self.sum_parts(parts)


def make_dense_term_inputs(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "views batch height width"],
    predictions: Float[Tensor, "views batch height width"],
    weights: Float[Tensor, "views batch height width"],
    *,
    spec: LabelSpec,
    samples: Int[Tensor, " batch"],
) -> TermInputs:
    """Return the terms' inputs: a row per image, with the means over its labeled pixels.

    Args:
        representations: one row per image and view.
        labels: per-pixel labels; zero means unlabeled, which not all pixels of an image may be.
        predictions: per-pixel predictions.
        weights: per-pixel weights; zero if unlabeled.
        spec: the data set's label.
        samples: positions of the images in the training split.
    """
    has_label = labels > 0
    counts = has_label.sum(dim=(-2, -1))
    means = [
        (torch.where(has_label, values.detach(), 0.0).sum(dim=(-2, -1)) / counts).flatten()
        for values in (labels, predictions, weights)
    ]
    return TermInputs(
        representations=representations,
        labels=means[0],
        predictions=means[1],
        weights=means[2],
        label_bins=compute_dense_bins(means[0], spec),
        samples=samples.repeat(len(labels)),
        num_views=len(labels),
        label_range=spec.label_range,
    )


def compute_dense_bins(labels: Float[Tensor, "*shape"], spec: LabelSpec) -> Int[Tensor, "*shape"]:
    """Return `dirtune.reweighting.density.label_bins` on the labels' device; -1 for an unlabeled pixel, which is zero."""
    tolerance = FLOAT32_TOLERANCE * max(abs(spec.low), abs(spec.high)) / spec.bin_width
    # In float64, and with the tolerance of float32 labels, so that a label at the edge of a bin is in the upper one.
    bins = ((labels.double() - spec.low) / spec.bin_width + tolerance).floor().long()
    return torch.where(labels > 0, bins.clamp(0, spec.num_bins - 1), -1)


def make_pixel_labels(labels: TrainingLabels, counts: np.typing.NDArray[np.int64]) -> TrainingLabels:
    """Return at most about `MAX_FITTED_PIXELS` bin centers, in the proportions of the training pixels per bin.

    A bin that has any pixel occurs at least once.

    Args:
        labels: mean label of each training sample.
        counts: training pixels per label bin.
    """
    # Rounded up, so that rare bins, which such losses are for, are not rounded away.
    shares = np.minimum(counts, np.ceil(counts * (MAX_FITTED_PIXELS / max(int(counts.sum()), 1))))
    bins = torch.from_numpy(np.repeat(np.arange(len(counts)), shares.astype(np.int64)))
    bins = bins.to(labels.labels.device)
    centers = labels.spec.low + (bins.double() + 0.5) * labels.spec.bin_width
    return replace(labels, labels=centers.float(), label_bins=bins)
