"""The total loss of a trial on one global batch: `alpha * L_reg + sum of weight * term`.

Views are kept apart here: which of them enter the regression loss and which the terms is the recipe's choice
(`dirtune.config.Views.regression`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dirtune.batch import Batch, Inputs, TermInputs
from dirtune.config import TrialConfig
from dirtune.models.regressor import RegressorOutput
from dirtune.training.distributed import Ranks


@dataclass(frozen=True)
class Loss:
    """The total and its unweighted parts by name, all scalars."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def stacked_views(batch: Batch) -> Inputs:
    """All views of a batch in one, view-major, so that one forward pass serves them all."""
    first = batch.views[0]
    if len(batch.views) == 1:
        return first
    return {name: torch.cat([view[name] for view in batch.views]) for name in first}


def total_loss(
    config: TrialConfig, output: RegressorOutput, batch: Batch, ranks: Ranks, label_range: float
) -> Loss:
    """The loss of the global batch that this rank's `output` and `batch` are a part of.

    Args:
        output: the regressor's output for `stacked_views(batch)`.
        label_range: width of the label's range, from the manifest.
    """
    views = len(batch.views)
    predictions = _gathered_views(output.predictions, views, ranks)
    labels, weights = ranks.gather(batch.labels), ranks.gather(batch.weights)
    regression_views = views if config.recipe.views.regression == "all" else 1
    scale = config.model.label_scale
    parts = {
        "regression": config.loss(
            predictions[:regression_views].flatten() / scale,
            labels.repeat(regression_views) / scale,
            weights.repeat(regression_views),
        )
    }
    total = config.alpha * parts["regression"]
    terms = config.terms.active()
    if not terms:
        return Loss(total, parts)
    skipped = 0 if config.recipe.views.regression == "all" else 1
    inputs = TermInputs(
        representations=_gathered_views(output.representations, views, ranks)[skipped:].flatten(
            0, 1
        ),
        labels=labels.repeat(views - skipped),
        label_bins=ranks.gather(batch.label_bins).repeat(views - skipped),
        predictions=predictions[skipped:].detach().flatten(),
        weights=weights.repeat(views - skipped),
        samples=ranks.gather(batch.rows).repeat(views - skipped),
        num_views=views - skipped,
        label_range=label_range,
    )
    for name, term in terms.items():
        parts[name] = term(inputs)
        total = total + term.weight * parts[name]
    return Loss(total, parts)


def _gathered_views(rows: Tensor, views: int, ranks: Ranks) -> Float[Tensor, "views batch *rest"]:
    """Rows stacked view-major on every rank, as (view, sample of the global batch, ...)."""
    by_view = rows.unflatten(0, (views, -1))
    return ranks.gather(by_view.transpose(0, 1)).transpose(0, 1)
