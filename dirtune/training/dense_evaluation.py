"""Evaluation of dense predictions: at the labels' own height and width, pixel by pixel, summed batch by batch.

Predictions, which are coarser than the labels, are upsampled bilinearly, as published. If the data set has a mask, the
metrics are those of its pixels, which are equally many in every label bin: papers on NYUD2-DIR report these. Those of all
labeled pixels have the same names with the prefix `whole_`.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.cache import Split, get_rank_share
from dirtune.manifest import Manifest
from dirtune.metrics import PixelSums, RegionMetric, compute_pixel_metrics, make_empty_pixel_sums, sum_pixels
from dirtune.models import dense_regressor
from dirtune.reweighting.density import label_bins
from dirtune.training import batch_limit
from dirtune.training.distributed import Ranks

DENSE_EVALUATION_ROWS = 32
WHOLE = "whole_"


def evaluate_dense(
    model: torch.nn.Module, split: Split, ranks: Ranks, manifest: Manifest, regions: np.typing.NDArray[Any]
) -> tuple[np.typing.NDArray[np.float64], list[RegionMetric]]:
    """Return each sample's mean prediction over its labeled pixels, shape `(rows,)`, and all metrics of a split.

    Args:
        model: the regressor itself, not its distributed wrapper, or any module whose output has `predictions` by pixel.
        split: the split, of which every rank evaluates its share.
        ranks: this rank in its group.
        manifest: the data set, with per-pixel labels.
        regions: shot region of each label bin.
    """
    label, own = manifest.label, manifest.metrics
    assert label.dense is not None
    column, mask, device = label.dense.column, label.dense.mask, split.labels.device
    whole = masked = make_empty_pixel_sums(label.num_bins, own)
    # A rank may have no row of a small split.
    means = [torch.zeros(0, device=device)]
    start, stop = get_rank_share(len(split), ranks.rank, ranks.world)
    model.eval()

    def evaluate_part(inputs: Inputs) -> tuple[PixelSums, PixelSums, Tensor]:
        view = split.transform.apply_evaluation(inputs)
        labels = view[column]
        with torch.inference_mode():
            predictions = dense_regressor.upsample_bilinear(model(view).predictions, labels)
        # In float64 on the CPU: sums over hundreds of millions of pixels lose digits in float32.
        has_label = labels > 0
        truth, predicted = (each[has_label].double().cpu().numpy() for each in (labels, predictions))
        bins = label_bins(truth, label)
        of_mask = make_empty_pixel_sums(label.num_bins, own)
        if mask is not None:
            kept = (view[mask].squeeze(1) > 0)[has_label].cpu().numpy()
            of_mask = sum_pixels(truth[kept], predicted[kept], bins[kept], label.num_bins, own)
        totals = torch.where(has_label, predictions, 0.0).sum(dim=(-2, -1))
        mean = totals / has_label.sum(dim=(-2, -1)).clamp(min=1)
        return sum_pixels(truth, predicted, bins, label.num_bins, own), of_mask, mean

    limit = batch_limit.BatchLimit()
    for inputs in split.read(split.reading_order[start:stop].split(DENSE_EVALUATION_ROWS)):

        def evaluate_rows(part: slice, inputs: Inputs = inputs) -> tuple[PixelSums, PixelSums, Tensor]:
            return evaluate_part(batch_limit.select_part(inputs, part))

        for parts in limit.map_parts(evaluate_rows, batch_limit.count_rows(inputs)):
            whole, masked = whole + parts[0], masked + parts[1]
            means.append(parts[2])
    as_read = ranks.gather(torch.cat(means))
    by_row = as_read[split.reading_order.argsort().to(as_read.device)]
    metrics = compute_pixel_metrics(_sum_over_ranks(whole, ranks, device), regions)
    if mask is not None:
        for row in metrics:
            row["metric"] = f"{WHOLE}{row['metric']}"
        metrics = [*compute_pixel_metrics(_sum_over_ranks(masked, ranks, device), regions), *metrics]
    return by_row.double().cpu().numpy(), metrics


def _sum_over_ranks(sums: PixelSums, ranks: Ranks, device: torch.device) -> PixelSums:
    table: Tensor = ranks.gather(torch.from_numpy(sums.table)[None].to(device))
    return PixelSums(sums.names, table.sum(dim=0).cpu().numpy())
