"""Crops of all images of a batch in one operation, for GPUs.

A GPU spends more time on the launch of an operation for each image than on its pixels. On a CPU it is the other way around:
there the augmentations cut one image after the other.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dirtune.transfer import to_device

Box = tuple[int, int, int, int]
"""Upper left corner (y, x), height and width of a part of an image, in pixels."""


def cut_windows(
    images: Tensor, corners: Sequence[Sequence[int]], mirrored: Sequence[bool], size: tuple[int, int]
) -> Tensor:
    """Return the window of each image with this upper left corner (y, x) and this height and width, perhaps mirrored."""
    height, width = size
    chosen = torch.tensor([[y, x, flips] for (y, x), flips in zip(corners, mirrored, strict=True)], dtype=torch.int64)
    top, left, flips = to_device(chosen, images.device)[:, :, None].unbind(1)
    columns = torch.arange(width, device=images.device)
    columns = left + torch.where(flips > 0, width - 1 - columns, columns)
    rows = top + torch.arange(height, device=images.device)
    pixels = (rows[:, :, None] * images.shape[-1] + columns[:, None, :]).flatten(1)
    flat = images.flatten(2)
    cut = flat.gather(2, pixels[:, None].expand(-1, images.shape[1], -1))
    return cut.view(*images.shape[:2], *size)


def resize_boxes(
    images: Float[Tensor, "batch channels height width"],
    boxes: Sequence[Box],
    mirrored: Sequence[bool],
    size: tuple[int, int],
) -> Float[Tensor, "batch channels box_height box_width"]:
    """Return a part of each image, scaled to a height and width (bilinear, without smoothing), perhaps mirrored."""
    stored = images.shape[-2:]
    chosen = torch.tensor([[*box, flips] for box, flips in zip(boxes, mirrored, strict=True)], dtype=torch.float32)
    y, x, height, width, flips = to_device(chosen, images.device)[:, :, None].unbind(1)
    rows = _get_positions(size[0], height) + y
    columns = _get_positions(size[1], width)
    columns = torch.where(flips > 0, columns.flip(1), columns) + x
    # In the coordinates of `grid_sample`: -1 and 1 are the outer edges of the outermost pixels.
    rows, columns = (2 * rows + 1) / stored[0] - 1, (2 * columns + 1) / stored[1] - 1
    grid = torch.stack(torch.broadcast_tensors(columns[:, None, :], rows[:, :, None]), dim=-1)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _get_positions(pixels: int, length: Float[Tensor, "batch 1"]) -> Float[Tensor, "batch pixels"]:
    """Return the position in a part of this length of each pixel of its scaled form; none reads beyond the part."""
    centers = torch.arange(pixels, device=length.device) + 0.5
    return torch.minimum((centers * length / pixels - 0.5).clamp_(min=0.0), length - 1)
