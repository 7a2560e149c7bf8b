"""End of an epoch for all parts with statistics of the training rows: feature smoothing, and fitted losses and terms.

A pass over the training split collects the statistics. Every rank evaluates its share of the rows; the statistics of all
ranks are merged in the order of the ranks, so that every rank arrives at the same state without a broadcast, and 1, 2 and 4
ranks at the same statistics up to float64 rounding.

Source: Yang et al., ICML 2021 (YyzHarry/imbalanced-regression, `train.py`). Departures: 1. the pass is in evaluation
mode, the official one in training mode: dropout would blur the statistics, and batch normalization would count every
sample twice in its own; 2. it reads the stored samples, not an augmented view; 3. no embedding is kept, where officially
those of the whole split are in memory at once; 4. with per-pixel labels all images are read, officially 600 that a list
names.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import torch

from dirtune.batch import EvaluatedRows, Inputs
from dirtune.data.cache import Rows, Split, get_rank_share
from dirtune.losses import EndsEpochs
from dirtune.losses.pairs import normalize_rows
from dirtune.models import regressor
from dirtune.training import batch_limit
from dirtune.training.distributed import Ranks
from dirtune.training.objective import TrainingLoss, get_term_input
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
    smoothing = model.smoothing
    if smoothing is None:
        return

    def compute(rows: Rows, inputs: Inputs) -> Any:
        return smoothing.compute_statistics(*task.embed_inputs(model, split, rows, inputs))

    empty = smoothing.make_empty_statistics()
    smoothing.end_epoch(collect_statistics(model, split, ranks, compute, empty, batch_rows=task.statistics_rows))


def end_epoch_of_parts(model: regressor.Regressor, loss: TrainingLoss, split: Split, ranks: Ranks, task: Task) -> None:
    """End an epoch of the fitted losses and terms that have an end of it, in one pass each; arguments as `update_smoothing`."""
    for name, part in loss.fitted.items():
        if not isinstance(part, EndsEpochs):
            continue
        kind = get_term_input(loss.terms.get(name))

        def compute(rows: Rows, inputs: Inputs, name: str = name, part: EndsEpochs = part, kind: str = kind) -> Any:
            output = model(split.transform.apply_evaluation(inputs))
            vectors = output.representations if kind == "representation" else output.embeddings
            samples = rows.to(split.labels.device)
            evaluated = EvaluatedRows(
                vectors=normalize_rows(vectors) if kind == "direction" else vectors,
                predictions=output.predictions,
                labels=split.labels[samples],
                label_bins=split.label_bins[samples],
                samples=samples,
            )
            with loss.name_part(name):
                return part.compute_statistics(evaluated)

        with loss.name_part(name):
            empty = part.make_empty_statistics()
            part.end_epoch(collect_statistics(model, split, ranks, compute, empty, batch_rows=task.statistics_rows))


def collect_statistics(
    model: regressor.Regressor,
    split: Split,
    ranks: Ranks,
    compute: Callable[[Rows, Inputs], Any],
    empty: Any,
    *,
    batch_rows: int,
) -> Any:
    """Return the sum of the statistics of all rows of a split over all ranks; the model is left in evaluation mode.

    Args:
        model: the regressor itself, not its distributed wrapper.
        split: the split.
        ranks: this rank in its group, over which the split is shared.
        compute: statistics of some rows, given their positions and stored inputs.
        empty: statistics of no row.
        batch_rows: rows that are evaluated together.
    """
    model.eval()
    # In the reading order, so that a streamed split is read one row group after the other.
    start, stop = get_rank_share(len(split), ranks.rank, ranks.world)
    batches = split.reading_order[start:stop].split(batch_rows)
    statistics, limit = empty, batch_limit.BatchLimit()
    with torch.no_grad():
        for rows, inputs in zip(batches, split.read(batches), strict=True):

            def compute_part(part: slice, rows: Rows = rows, inputs: Inputs = inputs) -> Any:
                return compute(rows[part], batch_limit.select_part(inputs, part))

            statistics = reduce(add, limit.map_parts(compute_part, len(rows)), statistics)
    # Statistics of a rank have one shape, also without rows, so that one gather for each part is enough.
    by_rank = [ranks.gather(part[None]) for part in statistics]
    return reduce(add, (type(statistics)(*parts) for parts in zip(*by_rank, strict=True)))
