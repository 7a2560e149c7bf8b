"""Augmented views of a batch, made on the device, one random draw per sample.

Only what keeps the label right may stand here. Draws are made on the CPU for the whole global batch and sliced, so that
1, 2 and 4 workers see the same views; a generator is derived for each (seed, epoch, step), never from the arm.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.randomness import derive_seed

Images = Float[Tensor, "batch channels height width"]
Augmentation = Callable[[Images, torch.Generator, int, slice], Images]
"""Maps images in [0, 1], a generator, the size of the global batch and this rank's slice of it to images."""


def none(images: Images, generator: torch.Generator, total: int, rows: slice) -> Images:
    """No augmentation: all views of an image are equal."""
    return images


def shift(images: Images, generator: torch.Generator, total: int, rows: slice) -> Images:
    """A crop of the image padded by a twelfth of its width with zeros, and a gain of 0.7 to 1.

    Keeps orientation: for labels that a mirror or a rotation would change.
    """
    cropped = _pad_crop(images, generator, total, rows, padding=max(1, images.shape[-1] // 12))
    gain = 0.7 + 0.3 * torch.rand(total, generator=generator)[rows]
    return cropped * gain.to(images.device)[:, None, None, None]


def light(images: Images, generator: torch.Generator, total: int, rows: slice) -> Images:
    """A crop of the image padded by 1/14 of its width (16 of 224) with zeros, mirrored with probability 1/2.

    Source: the training transform of Yang et al. (ICML 2021) for faces.
    """
    cropped = _pad_crop(images, generator, total, rows, padding=max(1, images.shape[-1] // 14))
    mirrored = (torch.rand(total, generator=generator)[rows] < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], cropped.flip(-1), cropped)


AUGMENTATIONS: dict[str, Augmentation] = {"light": light, "none": none, "shift": shift}


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
                name: augment(to_float(value), generator, total, rows) if is_image(value) else value
                for name, value in inputs.items()
            }
        )
    return tuple(views)


def plain_view(inputs: Inputs) -> Inputs:
    """The view that is evaluated: no augmentation."""
    return {name: to_float(value) if is_image(value) else value for name, value in inputs.items()}


def is_image(value: Tensor) -> bool:
    """Whether an input column holds images: they are the ones stored as bytes."""
    return value.dtype == torch.uint8


def to_float(images: UInt8[Tensor, "batch channels height width"]) -> Images:
    """Bytes 0..255 to [0, 1]."""
    return images.float().div_(255.0)


def _pad_crop(
    images: Images, generator: torch.Generator, total: int, rows: slice, *, padding: int
) -> Images:
    height, width = images.shape[-2:]
    offsets = torch.randint(2 * padding + 1, (total, 2), generator=generator)[rows].to(
        images.device
    )
    padded = F.pad(images, (padding,) * 4)
    sample = torch.arange(images.shape[0], device=images.device)[:, None, None]
    y = offsets[:, 0, None, None] + torch.arange(height, device=images.device)[:, None]
    x = offsets[:, 1, None, None] + torch.arange(width, device=images.device)
    # The channel axis stands behind the indexed ones, so that one gather serves all channels.
    return padded.permute(0, 2, 3, 1)[sample, y, x].permute(0, 3, 1, 2).contiguous()
