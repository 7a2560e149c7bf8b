"""End of an epoch for feature distribution smoothing: a pass over the training split collects its statistics.

Every rank embeds its share of the rows; the statistics of all ranks are merged in the order of the ranks, so that every
rank arrives at the same state without a broadcast, and 1, 2 and 4 ranks at the same statistics up to float64 rounding.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression, `train.py`). Departures: 1. the pass is in evaluation
mode, the official one in training mode: dropout would blur the statistics, and batch normalization would count every
sample twice in its own; 2. it reads the stored samples, not an augmented view; 3. no embedding is kept, where officially
those of the whole split are in memory at once; 4. with per-pixel labels all images are read, officially 600 that a list
names.
"""

from functools import reduce
from operator import add

import torch

from dirtune.batch import Inputs
from dirtune.data.cache import Rows, Split, get_rank_share
from dirtune.models import fds, regressor
from dirtune.training import batch_limit
from dirtune.training.distributed import Ranks
from dirtune.training.task import Task


def update_smoothing(model: regressor.Regressor, split: Split, ranks: Ranks, task: Task) -> None:
    """End an epoch of the model's feature smoothing, if it has one; the model is left in evaluation mode.

    All ranks must call it, also one that has no row of its own.

    Args:
        model: the regressor itself, not its distributed wrapper.
        split: the training split.
        ranks: this rank in its group, over which the split is shared.
        task: the data set's task.
    """
    if model.smoothing is None:
        return
    model.eval()
    # In the reading order, so that a streamed split is read one row group after the other.
    start, stop = get_rank_share(len(split), ranks.rank, ranks.world)
    batches = split.reading_order[start:stop].split(task.statistics_rows)
    statistics, collect = model.smoothing.make_empty_statistics(), model.smoothing.compute_statistics
    limit = batch_limit.BatchLimit()
    with torch.no_grad():
        for rows, inputs in zip(batches, split.read(batches), strict=True):

            def compute(part: slice, rows: Rows = rows, inputs: Inputs = inputs) -> fds.BinStatistics:
                embedded = task.embed_inputs(model, split, rows[part], batch_limit.select_part(inputs, part))
                return collect(*embedded)

            statistics = reduce(add, limit.map_parts(compute, len(rows)), statistics)
    # Statistics of a rank have one shape, also without rows, so that one gather for each part is enough.
    by_rank = [ranks.gather(part[None]) for part in (statistics.count, statistics.mean, statistics.squares)]
    merged = reduce(add, (fds.BinStatistics(*parts) for parts in zip(*by_rank, strict=True)))
    model.smoothing.end_epoch(merged)
