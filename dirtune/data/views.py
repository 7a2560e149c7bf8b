"""The views of a batch: how stored inputs become what an encoder sees, augmented in training and plain in evaluation.

A generator is derived for each (seed, epoch, step, view), never from the arm: two arms with one seed see the same views.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.augmentations import AUGMENTATIONS, Draws, to_float
from dirtune.randomness import derive_seed


def make_views(
    inputs: Inputs,
    *,
    count: int,
    augmentation: str,
    stream: tuple[int, int, int],
    total: int,
    rows: slice,
) -> tuple[Inputs, ...]:
    """`count` independently augmented views of one rank's part of a global batch.

    Args:
        inputs: the rank's rows as stored (images uint8).
        stream: (seed, epoch, step) of the global batch.
        total: samples in the global batch.
        rows: the rank's slice of it.
    """
    augment = AUGMENTATIONS[augmentation]
    views = []
    for view in range(count):
        generator = torch.Generator().manual_seed(
            derive_seed(stream[0], "views", *stream[1:], view)
        )
        views.append(
            {
                name: augment(value, Draws(generator, total, rows, value.device)) if is_image(value) else value
                for name, value in inputs.items()
            }
        )  # fmt: skip
    return tuple(views)


def plain_view(inputs: Inputs) -> Inputs:
    """The view that is evaluated: no augmentation."""
    return {name: to_float(value) if is_image(value) else value for name, value in inputs.items()}


def is_image(value: Tensor) -> bool:
    """Whether an input column holds images: they are the ones stored as bytes."""
    return value.dtype == torch.uint8
