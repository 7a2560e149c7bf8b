"""The views of a batch: how stored inputs become what an encoder sees, augmented in training and plain in evaluation.

A generator is derived for each (seed, epoch, step, view), never from the arm: two arms with one seed see the same views.
Where every pixel has a label, a view holds the labels too (`dirtune.data.dense_views`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.augmentations import AUGMENTATIONS, Draws, to_float
from dirtune.data.dense_views import augmented_view, plain_map_view
from dirtune.manifest import LabelMap
from dirtune.randomness import derive_seed


def make_views(
    inputs: Inputs,
    *,
    count: int,
    augmentation: str,
    stream: tuple[int, int, int],
    total: int,
    rows: slice,
    label_map: LabelMap | None = None,
) -> tuple[Inputs, ...]:
    """`count` independently augmented views of one rank's part of a global batch.

    Args:
        inputs: the rank's rows as stored (images uint8).
        stream: (seed, epoch, step) of the global batch.
        total: samples in the global batch.
        rows: the rank's slice of it.
        label_map: of labels of pixels; none: a sample has one label.
    """
    views = []
    for view in range(count):
        generator = torch.Generator().manual_seed(derive_seed(stream[0], "views", *stream[1:], view))
        device = next(iter(inputs.values())).device
        draws = Draws(generator, total, rows, device)
        if label_map is None:
            views.append(_augmented(inputs, augmentation, draws))
        else:
            views.append(augmented_view(inputs, label_map, augmentation, draws))
    return tuple(views)


def _augmented(inputs: Inputs, augmentation: str, draws: Draws) -> Inputs:
    augment = AUGMENTATIONS[augmentation]
    return {name: augment(value, draws) if is_image(value) else value for name, value in inputs.items()}


def plain_view(inputs: Inputs, label_map: LabelMap | None = None) -> Inputs:
    """The view that is evaluated: no augmentation."""
    if label_map is not None:
        return plain_map_view(inputs, label_map)
    return {name: to_float(value) if is_image(value) else value for name, value in inputs.items()}


def is_image(value: Tensor) -> bool:
    """Whether an input column holds images: they are the ones stored as bytes."""
    return value.dtype == torch.uint8
