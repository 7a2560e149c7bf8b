"""The end of an epoch for feature distribution smoothing: a pass over the training split collects its statistics.

Every rank embeds its share of the rows; the statistics of all ranks are merged in the order of the ranks, so that every
rank arrives at the same state without a broadcast, and 1, 2 and 4 ranks at the same statistics up to float64 rounding.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression, `train.py`). Departures: 1. the pass is in evaluation
mode, the official one in training mode: dropout would blur the statistics, and batch normalisation would count every
sample twice in its own; 2. it sees the stored samples, not an augmented view; 3. no embedding is kept, where officially
those of the whole split stand in memory at once; 4. of labels that are maps, all images are looked at, officially 600 that
a list names.
"""

from __future__ import annotations

from functools import reduce
from operator import add

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.data.cache import Split, share
from dirtune.data.views import plain_view
from dirtune.manifest import LabelSpec
from dirtune.models.dense_regressor import thinned
from dirtune.models.fds import BinStatistics, FeatureSmoothing
from dirtune.models.regressor import Regressor
from dirtune.training.dense_loss import map_bins
from dirtune.training.distributed import Ranks

FEATURE_BATCH = 1024
# 128 values in float64 for each of 114 x 152 pixels: 18 MB a map
FEATURE_MAPS = 8


def update_smoothing(model: Regressor, split: Split, ranks: Ranks, label: LabelSpec | None = None) -> None:
    """End an epoch of the model's feature smoothing, if it has one; the model is left in evaluation mode.

    All ranks must call it, also one that has no row of its own.

    Args:
        model: the regressor itself, not its distributed wrapper.
        split: the training split.
        ranks: over which the split is shared.
        label: needed for labels that are maps, of which statistics are taken of pixels.
    """
    if model.smoothing is None:
        return
    model.eval()
    model.smoothing.end_epoch(_merged(_local_statistics(model, model.smoothing, split, ranks, label), ranks))


def _local_statistics(
    model: Regressor, smoothing: FeatureSmoothing, split: Split, ranks: Ranks, label: LabelSpec | None
) -> BinStatistics:
    start, stop = share(len(split), ranks.rank, ranks.world)
    batches = split.reading_order[start:stop].split(FEATURE_BATCH if split.label_map is None else FEATURE_MAPS)
    statistics = smoothing.no_statistics()
    with torch.no_grad():
        for rows, inputs in zip(batches, split.read(batches), strict=True):
            view = plain_view(inputs, split.label_map)
            embeddings = model.encoder(view)
            if label is None or label.map is None:
                bins = split.label_bins[rows.to(split.label_bins.device)]
            else:
                embeddings, bins = _labelled(embeddings, view[label.map.column], label)
            statistics += smoothing.statistics(embeddings, bins)
    return statistics


def _labelled(
    embeddings: Float[Tensor, "batch dim height width"], labels: Float[Tensor, "batch rows columns"], label: LabelSpec
) -> tuple[Float[Tensor, "pixels dim"], Int[Tensor, " pixels"]]:
    """The embeddings and bins of the pixels that have a label, at the size of the embeddings."""
    bins = map_bins(thinned(labels, embeddings), label)
    return embeddings.movedim(1, -1)[bins >= 0], bins[bins >= 0]


def _merged(statistics: BinStatistics, ranks: Ranks) -> BinStatistics:
    by_rank = [ranks.gather(part[None]) for part in (statistics.count, statistics.mean, statistics.squares)]
    return reduce(add, (BinStatistics(*parts) for parts in zip(*by_rank, strict=True)))
