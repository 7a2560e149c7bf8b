"""Mixed batches: each sample of a training batch combined with a partner, by the `dirtune.mixing` of the configuration.

Inputs are combined here; where embeddings are to be mixed, the batch has the partners' views and the shares for the regressor.

The partners of all steps are an order of rows like the pass's own, so that they are read, prefetched, cut into micro-batches
and shared by the ranks in the same way. Partners and shares are drawn for whole global batches from a stream of (seed, pass,
step): 1, 2 and 4 ranks and any accumulation train on the same mixtures. Views of a sample have one partner and one share,
and a partner's augmentation has a stream of its own.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dirtune.batch import Batch, Inputs
from dirtune.data.cache import make_train_batches, slice_order
from dirtune.label_transform import restore_labels, transform_labels
from dirtune.mixing import Mixtures, fit_mixing
from dirtune.randomness import derive_seed
from dirtune.reweighting.density import label_bins
from dirtune.training.passes import PassPart
from dirtune.training.state import Training


def mix_batches(
    batches: Iterator[Batch],
    training: Training,
    order: Int[Tensor, " rows"],
    part: PassPart,
) -> Iterator[Batch]:
    """Yield the batches of a part of a pass with mixed views, labels and weights.

    Args:
        batches: this rank's part of them, from `make_train_batches`.
        training: the run.
        order: the order of the pass, without rows that no batch has.
        part: the part.
    """
    recipe, ranks, split = training.stage.recipe, training.ranks, training.data.splits["train"]
    mixes_embeddings = getattr(training.stage.config.mixing, "place", "input") == "embedding"
    mixtures = _draw_mixtures(training, order, part)
    transform = training.task.label_transform
    # In float64 from the stored labels, on the CPU, so that mixed labels are in the same bin on every device.
    labels = transform_labels(split.exact_labels, transform)
    shares = mixtures.shares.reshape(-1, *[1] * (labels.ndim - 1))
    labels = shares * labels[order.numpy()] + (1 - shares) * labels[mixtures.partners]
    bins = label_bins(restore_labels(labels, transform), training.data.manifest.label)
    # Once for all steps, because a copy makes the host wait for a GPU.
    mixed_labels = torch.from_numpy(labels).to(split.labels)
    mixed_bins = torch.from_numpy(bins).to(split.labels.device)
    own_shares = torch.from_numpy(mixtures.shares).to(split.labels.device)
    partners = make_train_batches(
        split,
        training.sample_weights,
        torch.from_numpy(mixtures.partners),
        batch_size=recipe.batch_size,
        views=recipe.views,
        seed=derive_seed(training.config.seed, "mixing"),
        epoch=part.number,
        rank=ranks.rank,
        world=ranks.world,
        accumulation=recipe.accumulation,
        steps=part.steps,
    )
    slices = slice_order(len(order), recipe.micro_batch, rank=ranks.rank, world=ranks.world)
    slices = slices[part.steps.start * recipe.accumulation : part.steps.stop * recipe.accumulation]
    for batch, partner, rows in zip(batches, partners, slices, strict=True):
        own = own_shares[rows]
        if mixes_embeddings:
            mixed = replace(batch, partner_views=partner.views, own_shares=own)
        else:
            mixed = replace(batch, views=tuple(map(partial(combine_inputs, own), batch.views, partner.views)))
        yield replace(
            mixed,
            labels=mixed_labels[rows],
            label_bins=mixed_bins[rows],
            weights=combine(batch.weights, partner.weights, own),
        )


def _draw_mixtures(training: Training, order: Int[Tensor, " rows"], part: PassPart) -> Mixtures:
    """Draw the mixtures of the part's steps; the rows of other steps are their own partners."""
    mixing, split = training.stage.config.mixing, training.data.splits["train"]
    assert mixing is not None
    draw = fit_mixing(mixing, transform_labels(split.exact_labels, training.task.label_transform))
    rows = order.numpy()
    partners, shares = rows.copy(), np.ones(len(rows))
    for step in part.steps:
        place = slice(step * training.stage.recipe.batch_size, (step + 1) * training.stage.recipe.batch_size)
        generator = np.random.default_rng(derive_seed(training.config.seed, "mixing", part.number, step))
        partners[place], shares[place] = draw(rows[place], generator)
    return Mixtures(partners, shares)


def combine_inputs(shares: Float[Tensor, " rows"], own: Inputs, partner: Inputs) -> Inputs:
    """Return the combinations of two views; tokens, which an encoder of features does not read, are those of the first."""
    return {
        name: combine(value, partner[name], shares) if value.is_floating_point() else value
        for name, value in own.items()
    }


def combine(own: Tensor, partner: Tensor, shares: Float[Tensor, " rows"]) -> Tensor:
    """Return the convex combinations of two tensors with one row per sample."""
    own_share = shares.reshape(-1, *[1] * (own.ndim - 1)).to(own.dtype)
    return own_share * own + (1 - own_share) * partner
