"""Evaluation of dense predictions: at the labels' own height and width, pixel by pixel, summed batch by batch.

Predictions, which are coarser than the labels, are upsampled bilinearly, as published. If the data set has a mask, the
metrics are those of its pixels, which are equally many in every label bin: papers on NYUD2-DIR report these. Those of all
labeled pixels have the same names with the prefix `whole_`.

The sums of all batches stay on the device of the predictions and are read once, so that the host never waits for a batch.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.cache import Split, get_rank_share
from dirtune.manifest import Manifest
from dirtune.metrics import ERROR_SUMS, PixelSums, RegionMetric, compute_pixel_metrics
from dirtune.metrics.depth import PIXEL_VALUES
from dirtune.models import dense_regressor
from dirtune.training import batch_limit, dense_loss
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
    names = (*ERROR_SUMS, *own)
    # With a mask, the pixels of each bin that are not in it have a bin of their own.
    num_bins = label.num_bins * (1 if mask is None else 2)
    sums = torch.zeros(len(names), num_bins, dtype=torch.float64, device=device)
    # A rank may have no row of a small split.
    means = [torch.zeros(0, device=device)]
    shares = [get_rank_share(len(split), rank, ranks.world) for rank in range(ranks.world)]
    model.eval()

    def evaluate_part(inputs: Inputs) -> tuple[Tensor, Tensor]:
        view = split.transform.apply_evaluation(inputs)
        labels = view[column]
        with torch.inference_mode():
            predictions = dense_regressor.upsample_bilinear(model(view).predictions, labels)
        bins = dense_loss.compute_dense_bins(labels, label)
        has_label = bins >= 0
        if mask is not None:
            bins = torch.where(has_label & (view[mask].squeeze(1) <= 0), bins + label.num_bins, bins)
        totals = torch.where(has_label, predictions, 0.0).sum(dim=(-2, -1))
        mean = totals / has_label.sum(dim=(-2, -1)).clamp(min=1)
        return sum_pixels(labels, predictions, bins, num_bins, own), mean

    limit = batch_limit.BatchLimit()
    for inputs in split.read(split.reading_order[slice(*shares[ranks.rank])].split(DENSE_EVALUATION_ROWS)):

        def evaluate_rows(part: slice, inputs: Inputs = inputs) -> tuple[Tensor, Tensor]:
            return evaluate_part(batch_limit.select_part(inputs, part))

        for part_sums, mean in limit.map_parts(evaluate_rows, batch_limit.count_rows(inputs)):
            sums += part_sums
            means.append(mean)
    as_read = ranks.gather(torch.cat(means), [stop - start for start, stop in shares]).double().cpu().numpy()
    table = ranks.gather(sums[None], [1] * ranks.world).sum(dim=0).cpu().numpy()
    by_mask = table.reshape(len(names), -1, label.num_bins)
    metrics = compute_pixel_metrics(PixelSums(names, by_mask.sum(axis=1)), regions)
    if mask is not None:
        for row in metrics:
            row["metric"] = f"{WHOLE}{row['metric']}"
        metrics = [*compute_pixel_metrics(PixelSums(names, by_mask[:, 0]), regions), *metrics]
    return as_read[split.reading_order.argsort().numpy()], metrics


def sum_pixels(
    labels: Float[Tensor, "*shape"],
    predictions: Float[Tensor, "*shape"],
    bins: Int[Tensor, "*shape"],
    num_bins: int,
    extra: Sequence[str] = (),
) -> Float[Tensor, "names bins"]:
    """Sum the errors of pixels by bin, on their device, in float64; rows are those of `PixelSums`.

    Args:
        labels: in the label's unit, as the predictions.
        predictions: of the same pixels.
        bins: of the same pixels; -1 for a pixel that does not count.
        num_bins: number of bins.
        extra: further metrics, of `PIXEL_VALUES`.
    """
    truth, predicted = labels.double().flatten(), predictions.double().flatten()
    # A bin of their own for the pixels that do not count: to select the others, the host would wait for their number.
    bins = torch.where(bins < 0, num_bins, bins).flatten()
    # One after the other: each has as many bytes as a batch of images.
    sums = [
        truth.new_zeros(num_bins + 1).index_add_(0, bins, values.double())
        for values in _compute_pixel_values(truth, predicted, extra)
    ]
    return torch.stack(sums)[:, :num_bins]


def _compute_pixel_values(truth: Tensor, predicted: Tensor, extra: Sequence[str]) -> Iterator[Tensor]:
    errors = (predicted - truth).abs()
    is_zero = errors == 0
    yield torch.ones_like(errors)
    yield errors
    yield errors.square()
    # Exact hits add log 1 = 0 and are counted apart.
    yield torch.where(is_zero, 1.0, errors).log()
    yield is_zero
    for name in extra:
        yield PIXEL_VALUES[name](truth, predicted, torch)
