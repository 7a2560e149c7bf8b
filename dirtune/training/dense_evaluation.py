"""The evaluation of predictions of maps: at the labels' own height and width, pixel by pixel, summed batch by batch.

Predictions, which are coarser, are enlarged bilinearly, as published. Where the data set has a mask, the metrics are those
of its pixels, the same number of every label bin, which is what papers on NYUD2-DIR report; those of all labelled pixels
have the same names with `whole_` before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dirtune.data.cache import share
from dirtune.data.views import plain_view
from dirtune.manifest import LabelMap
from dirtune.metrics import PixelSums, RegionMetric, no_pixels, pixel_metrics, pixel_sums
from dirtune.models.dense_regressor import enlarged
from dirtune.reweighting.density import label_bins, shot_regions
from dirtune.training.state import Training

MAPS_AT_ONCE = 32
WHOLE = "whole_"


@dataclass(frozen=True)
class MapAssessment:
    """What is kept of a model's predictions for a split."""

    metrics: list[RegionMetric]
    means: NDArray[np.float64]
    """Of the predictions over each sample's labelled pixels, (rows,)."""


@dataclass
class _Sums:
    whole: PixelSums
    masked: PixelSums


def assess_maps(training: Training, split: str, label_map: LabelMap) -> MapAssessment:
    """All metrics of the current model's predictions for a split, on all ranks, and their means by sample."""
    manifest, data = training.data.manifest, training.data.splits[split]
    empty = no_pixels(manifest.label.num_bins, manifest.metrics)
    sums, means = _Sums(empty, empty), [torch.zeros(0, device=training.data.device)]
    for view, predictions in _predicted(training, split, label_map):
        means.append(_add(sums, training, view, predictions, label_map))
    as_read = training.ranks.gather(torch.cat(means))
    by_row = as_read[data.reading_order.argsort().to(as_read.device)]
    metrics = _metrics(training, sums, label_map)
    return MapAssessment(metrics, by_row.double().cpu().numpy())


def _predicted(
    training: Training, split: str, label_map: LabelMap
) -> Iterator[tuple[dict[str, Tensor], Float[Tensor, "batch height width"]]]:
    """This rank's share of a split: views, and predictions at the size of the labels."""
    data = training.data.splits[split]
    start, stop = share(len(data), training.ranks.rank, training.ranks.world)
    training.model.eval()
    for inputs in data.read(data.reading_order[start:stop].split(MAPS_AT_ONCE)):
        view = plain_view(inputs, label_map)
        with torch.inference_mode():
            predictions = training.model(view).predictions
            yield view, enlarged(predictions, view[label_map.column])


def _add(
    sums: _Sums,
    training: Training,
    view: dict[str, Tensor],
    predictions: Float[Tensor, "batch height width"],
    label_map: LabelMap,
) -> Float[Tensor, " batch"]:
    """Take a batch into the sums; the mean prediction of each sample."""
    manifest, labels = training.data.manifest, view[label_map.column]
    has_label = labels > 0
    truth, said = (each[has_label].double().cpu().numpy() for each in (labels, predictions))
    bins, own = label_bins(truth, manifest.label), manifest.metrics
    sums.whole += pixel_sums(truth, said, bins, manifest.label.num_bins, own)
    if label_map.mask is not None:
        kept = (view[label_map.mask].squeeze(1) > 0)[has_label].cpu().numpy()
        sums.masked += pixel_sums(truth[kept], said[kept], bins[kept], manifest.label.num_bins, own)
    totals = torch.where(has_label, predictions, 0.0).sum(dim=(-2, -1))
    return totals / has_label.sum(dim=(-2, -1)).clamp(min=1)


def _metrics(training: Training, sums: _Sums, label_map: LabelMap) -> list[RegionMetric]:
    manifest = training.data.manifest
    rule = manifest.shot_rules[training.config.data.shot_rule or manifest.default_shot_rule]
    regions = shot_regions(np.asarray(manifest.train_counts), rule)
    whole = pixel_metrics(_of_all_ranks(training, sums.whole), regions)
    if label_map.mask is None:
        return whole
    for row in whole:
        row["metric"] = f"{WHOLE}{row['metric']}"
    return [*pixel_metrics(_of_all_ranks(training, sums.masked), regions), *whole]


def _of_all_ranks(training: Training, sums: PixelSums) -> PixelSums:
    table = torch.from_numpy(sums.table)[None].to(training.data.device)
    return PixelSums(sums.names, training.ranks.gather(table).sum(dim=0).cpu().numpy())
