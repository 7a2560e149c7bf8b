"""Augmentations of image batches: each sample is changed by its own random draw, on the device the batch lies on.

Only what keeps the label right may stand here. Draws are made on the CPU for the whole global batch and sliced
(`Draws`), so that 1, 2 and 4 workers see the same images. Everything is a few tensor operations on the whole batch: the
transforms of torchvision draw once for a batch, or run once for each image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]

_GREY = (
    0.299,
    0.587,
    0.114,
)  # luma of red, green and blue (ITU-R BT.601), as PIL and torchvision use
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


@dataclass(frozen=True)
class Draws:
    """Random numbers for one rank's part of a global batch."""

    generator: torch.Generator  # on the CPU
    total: int  # samples in the global batch
    rows: slice  # this rank's part of it
    device: torch.device

    def uniform(self, low: float, high: float) -> Float[Tensor, " batch"]:
        """One number in [low, high) for each sample."""
        return low + (high - low) * self._mine(torch.rand(self.total, generator=self.generator))

    def chance(self, probability: float) -> Shaped[Tensor, "batch 1 1 1"]:
        """A yes or no for each sample, broadcast over its pixels."""
        return (self.uniform(0.0, 1.0) < probability)[:, None, None, None]

    def offsets(self, end: int) -> Shaped[Tensor, "batch 2"]:
        """Two integers in [0, end) for each sample."""
        return self._mine(torch.randint(end, (self.total, 2), generator=self.generator))

    def _mine(self, values: Tensor) -> Tensor:
        return values[self.rows].to(self.device)


Augmentation = Callable[[Images, Draws], Images]
"""Maps images in [0, 1] to images."""


def none(images: Images, draws: Draws) -> Images:
    """No augmentation: all views of an image are equal."""
    return images


def shift(images: Images, draws: Draws) -> Images:
    """A crop of the image padded by a twelfth of its width with zeros, and a gain of 0.7 to 1.

    Keeps orientation: for labels that a mirror or a rotation would change, such as angles and gaze.
    """
    cropped = _pad_crop(images, draws, padding=max(1, images.shape[-1] // 12))
    return cropped * draws.uniform(0.7, 1.0)[:, None, None, None]


def light(images: Images, draws: Draws) -> Images:
    """A crop of the image padded by 1/14 of its width (16 of 224) with zeros, mirrored with probability 1/2.

    Source: the training transform of Yang et al. (ICML 2021) for faces.
    """
    cropped = _pad_crop(images, draws, padding=max(1, images.shape[-1] // 14))
    return torch.where(draws.chance(0.5), cropped.flip(-1), cropped)


def strong(images: Images, draws: Draws) -> Images:
    """A resized crop of 20 to 100 % of the area, mirror 1/2, colour jitter 0.4/0.4/0.4/0.1 with 0.8, grey with 0.2.

    Source: the training transform of ACCon on AgeDB (Zhao et al., AAAI 2025) and of Rank-N-Contrast (Zha et al., NeurIPS
    2023), without the jitter's strength being known exactly. Departures: 1. a crop that would leave the image is made
    narrower instead of being drawn again; 2. jitter comes in one fixed order, brightness, contrast, saturation, hue;
    3. hue turns the chroma plane of YIQ instead of HSV's hue. Images of one channel have no saturation, hue or grey.
    """
    cropped = _resized_crop(images, draws, area=(0.2, 1.0), ratio=(3 / 4, 4 / 3))
    mirrored = torch.where(draws.chance(0.5), cropped.flip(-1), cropped)
    jittered = torch.where(draws.chance(0.8), _jittered(mirrored, draws), mirrored)
    is_grey = draws.chance(0.2)
    return torch.where(is_grey, _grey(jittered), jittered) if images.shape[1] == 3 else jittered


AUGMENTATIONS: dict[str, Augmentation] = {
    "light": light, "none": none, "shift": shift, "strong": strong,
}  # fmt: skip


def _pad_crop(images: Images, draws: Draws, *, padding: int) -> Images:
    height, width = images.shape[-2:]
    offsets = draws.offsets(2 * padding + 1)
    padded = F.pad(images, (padding,) * 4)
    sample = torch.arange(images.shape[0], device=images.device)[:, None, None]
    y = offsets[:, 0, None, None] + torch.arange(height, device=images.device)[:, None]
    x = offsets[:, 1, None, None] + torch.arange(width, device=images.device)
    # The channel axis stands behind the indexed ones, so that one gather serves all channels.
    return padded.permute(0, 2, 3, 1)[sample, y, x].permute(0, 3, 1, 2).contiguous()


def _resized_crop(
    images: Images, draws: Draws, *, area: tuple[float, float], ratio: tuple[float, float]
) -> Images:
    """A part of each image, of random area, aspect ratio and place, scaled to the size of the image (bilinear)."""
    share = draws.uniform(*area)
    aspect = draws.uniform(math.log(ratio[0]), math.log(ratio[1])).exp()
    width = (share * aspect).sqrt().clamp(max=1.0)
    height = (share / aspect).sqrt().clamp(max=1.0)
    # In the coordinates of affine_grid the image is [-1, 1], so a part of width w may lie up to 1 - w off the centre.
    x, y = draws.uniform(-1.0, 1.0) * (1 - width), draws.uniform(-1.0, 1.0) * (1 - height)
    zero = torch.zeros_like(width)
    rows = [torch.stack(row, dim=1) for row in ((width, zero, x), (zero, height, y))]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _jittered(images: Images, draws: Draws) -> Images:
    """Brightness, contrast and saturation by a factor of 0.6 to 1.4, hue by up to a tenth of the circle."""
    bright, contrast, saturation = (draws.uniform(0.6, 1.4)[:, None, None, None] for _ in range(3))
    turns = draws.uniform(-0.1, 0.1)
    images = (images * bright).clamp(0.0, 1.0)
    mean = _grey(images).mean(dim=(-3, -2, -1), keepdim=True)
    images = (mean + contrast * (images - mean)).clamp(0.0, 1.0)
    if images.shape[1] != 3:
        return images
    grey = _grey(images)
    images = (grey + saturation * (images - grey)).clamp(0.0, 1.0)
    return torch.einsum("nij,njhw->nihw", _hue_turns(turns), images).clamp(0.0, 1.0)


def _grey(images: Images) -> Float[Tensor, "batch 1 height width"]:
    """The luma of each pixel; an image of one channel is its own."""
    if images.shape[1] != 3:
        return images.mean(dim=1, keepdim=True)
    weights = torch.tensor(_GREY, device=images.device, dtype=images.dtype)
    return torch.einsum("nchw,c->nhw", images, weights)[:, None]


def _hue_turns(turns: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """RGB matrices that turn the chroma plane by a share of the circle and leave the luma alone."""
    to_yiq = torch.tensor(_TO_YIQ, device=turns.device, dtype=turns.dtype)
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    rows = ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))
    turn = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    matrices: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return matrices
