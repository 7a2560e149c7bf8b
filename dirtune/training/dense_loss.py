"""The loss of a batch whose labels are maps: the regression loss over labelled pixels, the terms over images.

    regression    the mean over labelled pixels of what the loss says of each; a pixel weighs what its label's bin weighs
    terms         one row per image: its flattened embedding, normalised, and the means of its label, prediction and
                  weight over its labelled pixels

Labels are read at the height and width of the predictions, each from the nearest pixel. That a term sees an image as its
flattened map and its labels as their mean is ConR's way.

Source: Yang et al., ICML 2021 (`nyud2-dir`: the weighted squared error of pixels, weights by bin); Keramati et al., ICLR
2024 (BorealisAI/ConR, `nyud2-dir/ConR.py`). Departure: a pixel without label counts nowhere, where both train on a depth
of zero there; with labels everywhere the two are equal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from dirtune.batch import Batch, TermInputs, TrainingLabels
from dirtune.config import TrialConfig
from dirtune.losses.balanced_mse import BMC
from dirtune.manifest import LabelSpec, Manifest
from dirtune.models.dense_regressor import thinned
from dirtune.models.regressor import RegressorOutput, normalised
from dirtune.reweighting.density import FLOAT32_TOLERANCE
from dirtune.training.distributed import Ranks
from dirtune.training.objective import REGRESSION, Loss, TrainingLoss, by_view, stacked_views
from dirtune.training.stages import Stage

FITTED_PIXELS = 1_000_000
MAP_TERMS = ("conr",)
"""The terms that have a form for labels that are maps."""


class MapLoss(TrainingLoss):
    """The loss of one stage of a trial whose labels are maps.

    Args:
        labels: the means of the training samples, for terms with a parameter per sample.
        pixel_labels: of pixels, for a regression loss that is fitted to labels.
        bin_weights: of a pixel whose label lies in a bin.
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
        assert labels.spec.map is not None
        self.spec, self.column = labels.spec, labels.spec.map.column
        self.register_buffer("bin_weights", bin_weights, persistent=False)

    def forward(self, output: RegressorOutput, batch: Batch, ranks: Ranks) -> Loss:
        """The loss of the global batch that this rank's `output` and `batch` are a part of.

        Args:
            output: the regressor's output for `stacked_views(batch)`.
        """
        views = len(batch.views)
        labels = thinned(stacked_views(batch)[self.column], output.predictions)
        predictions, labels = (by_view(output.predictions, views, ranks), by_view(labels, views, ranks))
        bins = map_bins(labels, self.spec)
        weights = torch.where(bins >= 0, self.bin_weights[bins.clamp(min=0)], 0.0)
        parts = {}
        if self.regression is not None:
            seen = slice(0, 1 if self.first_view_is_apart else None)
            parts[REGRESSION] = self._of_pixels(predictions[seen], labels[seen], weights[seen], bins[seen])
        if self.terms:
            of_terms = slice(int(self.first_view_is_apart), None)
            embeddings = by_view(output.embeddings.flatten(1), views, ranks)[of_terms]
            inputs = map_term_inputs(
                normalised(embeddings.flatten(0, 1)),
                labels[of_terms],
                predictions[of_terms],
                weights[of_terms],
                spec=self.spec,
                samples=ranks.gather(batch.rows),
            )
            parts |= {name: self.part(name)(inputs) for name in self.terms}
        return self.summed(parts)

    def _of_pixels(self, predictions: Tensor, labels: Tensor, weights: Tensor, bins: Tensor) -> Float[Tensor, ""]:
        chosen = bins >= 0
        value: Tensor = self.part(REGRESSION)(
            predictions[chosen] / self.label_scale, labels[chosen] / self.label_scale, weights[chosen]
        )
        return value


def map_term_inputs(
    representations: Float[Tensor, "rows dim"],
    labels: Float[Tensor, "views batch height width"],
    predictions: Float[Tensor, "views batch height width"],
    weights: Float[Tensor, "views batch height width"],
    *,
    spec: LabelSpec,
    samples: Int[Tensor, " batch"],
) -> TermInputs:
    """What the terms see of maps: a row per image, with the means over its labelled pixels.

    Args:
        labels: zero where a pixel has none.
        weights: of the pixels; zero where one has no label.
        samples: positions of the images in the training split.
    """
    has_label = labels > 0
    means = [_means(maps.detach(), has_label).flatten() for maps in (labels, predictions, weights)]
    return TermInputs(
        representations=representations,
        labels=means[0],
        predictions=means[1],
        weights=means[2],
        label_bins=map_bins(means[0], spec).clamp(min=0),
        samples=samples.repeat(len(labels)),
        num_views=len(labels),
        label_range=spec.label_range,
    )


def _means(
    maps: Float[Tensor, "*images height width"], chosen: Bool[Tensor, "*images height width"]
) -> Float[Tensor, "*images"]:
    """The mean over an image's chosen pixels; zero of none."""
    counts = chosen.sum(dim=(-2, -1)).clamp(min=1)
    return torch.where(chosen, maps, 0.0).sum(dim=(-2, -1)) / counts


def map_bins(labels: Float[Tensor, "*shape"], spec: LabelSpec) -> Int[Tensor, "*shape"]:
    """`dirtune.reweighting.density.label_bins` on the labels' device; -1 for a pixel without label, which is zero."""
    tolerance = FLOAT32_TOLERANCE * max(abs(spec.low), abs(spec.high)) / spec.bin_width
    places = ((labels.double() - spec.low) / spec.bin_width + tolerance).floor().long()
    return torch.where(labels > 0, places.clamp(0, spec.num_bins - 1), -1)


def map_loss(config: TrialConfig, labels: TrainingLabels, stage: Stage, manifest: Manifest) -> MapLoss:
    """The loss of a stage; pixels weigh by the bins of all training pixels, with mean one over them."""
    counts = np.asarray(manifest.train_counts, dtype=np.int64)
    weights = stage.reweighting.bin_weights(counts)
    return MapLoss(
        config,
        labels,
        labels_of_pixels(labels, counts),
        torch.from_numpy(weights).to(labels.labels.device, torch.float32),
        regression=stage.trains_predictor,
        terms=stage.trains_representation,
    )


def labels_of_pixels(labels: TrainingLabels, counts: NDArray[np.int64]) -> TrainingLabels:
    """`FITTED_PIXELS` labels, at most, that stand for those of all training pixels: the middles of the bins, as often.

    A bin that occurs at all is there once at least.
    """
    shares = np.minimum(counts, np.ceil(counts * (FITTED_PIXELS / max(int(counts.sum()), 1))))
    bins = torch.from_numpy(np.repeat(np.arange(len(counts)), shares.astype(np.int64)))
    bins = bins.to(labels.labels.device)
    middles = labels.spec.low + (bins.double() + 0.5) * labels.spec.bin_width
    return replace(labels, labels=middles.float(), label_bins=bins)


def misfits(config: TrialConfig) -> dict[str, object]:
    """The settings that have no form for labels that are maps, by their key, with their values."""
    found: dict[str, object] = {f"terms.{name}": name for name in config.terms.active() if name not in MAP_TERMS}
    if config.reweighting.scheme == "dense":
        found["reweighting.scheme"] = "dense"
    # Compares every label of a batch with every other
    if isinstance(config.loss, BMC):
        found["loss.name"] = "bmc"
    return found
