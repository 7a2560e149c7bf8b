"""The views of samples with a label for each pixel: images and maps go through one geometry, color changes images alone.

A view holds the images in [0, 1] and, under the name of their column, the labels in their unit, `(batch, height, width)`,
zero where a pixel has none. What a rotation brings in from beyond the stored image has no label, where the official code
trains on a depth of zero there. In evaluation the mask, if there is one, comes along as it is.

Source of `depth`: the training transforms of NYUD2-DIR (YyzHarry/imbalanced-regression, `nyud2-dir/nyu_transform.py`),
those of Hu et al., "Revisiting Single Image Depth Estimation", WACV 2019. Departures: 1. maps are read at the nearest pixel,
there by splines, which mix depths across edges; 2. images are turned bilinearly; 3. color jitter comes in one fixed
order, and colors are clipped once, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.augmentations import Draws, Images, Stored, luma, to_float
from dirtune.data.maps import middle
from dirtune.manifest import LabelMap

Counts = Int16[Tensor, "batch 1 height width"]
"""Maps as they are stored."""
MapAugmentation = Callable[[Stored, Counts, LabelMap, Draws], tuple[Images, Counts]]
"""Maps stored images and counts to the part that is looked at, images in [0, 1]."""

_TURN = math.radians(5.0)
_LIGHTING = 0.1
# Deviations and axes of the colors of ImageNet (Krizhevsky et al., "ImageNet Classification with Deep CNNs", NeurIPS 2012).
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


def none(images: Stored, counts: Counts, spec: LabelMap, draws: Draws) -> tuple[Images, Counts]:
    """The middle of the image and of its map, as they are."""
    return to_float(middle(images, spec)), middle(counts, spec)


def depth(images: Stored, counts: Counts, spec: LabelMap, draws: Draws) -> tuple[Images, Counts]:
    """Mirrored with probability 1/2 and turned by up to 5 degrees with the map; color jitter 0.4, lighting 0.1."""
    grid = _turned_grid(images, spec, draws)
    turned = F.grid_sample(to_float(images), grid, padding_mode="zeros", align_corners=False)
    labels = F.grid_sample(counts.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return _recolored(turned, draws), labels.to(counts.dtype)


MAP_AUGMENTATIONS: dict[str, MapAugmentation] = {"depth": depth, "none": none}


def augmented_view(inputs: Inputs, spec: LabelMap, augmentation: str, draws: Draws) -> Inputs:
    """One view for training.

    Args:
        inputs: as stored: one image, the counts, and perhaps a mask, which training does not look at.
        augmentation: a name of `MAP_AUGMENTATIONS`.
    """
    (name,) = inputs.keys() - set(spec.columns)
    images, counts = MAP_AUGMENTATIONS[augmentation](inputs[name], inputs[spec.column], spec, draws)
    return {name: images, spec.column: labels_of(counts, spec)}


def plain_map_view(inputs: Inputs, spec: LabelMap) -> Inputs:
    """The view that is evaluated: the middle, without augmentation."""
    view = {name: middle(value, spec) for name, value in inputs.items()}
    for name in inputs.keys() - set(spec.columns):
        view[name] = to_float(view[name])
    view[spec.column] = labels_of(view[spec.column], spec)
    return view


def labels_of(counts: Counts, spec: LabelMap) -> Float[Tensor, "batch height width"]:
    """Stored counts as labels in their unit; zero: no label."""
    return counts.squeeze(1).float() * spec.unit_per_count


def _turned_grid(images: Stored, spec: LabelMap, draws: Draws) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel of the middle, turned about its center and perhaps mirrored, lies in the stored image."""
    stored_height, stored_width = images.shape[-2:]
    mirror = torch.where(draws.chance(0.5), -1.0, 1.0)[:, None, None]
    angles = draws.uniform(-_TURN, _TURN)[:, None, None]
    columns = mirror * _offsets(spec.width, images.device)[None, None, :]
    rows = _offsets(spec.height, images.device)[None, :, None]
    x = angles.cos() * columns - angles.sin() * rows + _off_center(stored_width, spec.width)
    y = angles.sin() * columns + angles.cos() * rows + _off_center(stored_height, spec.height)
    return torch.stack([2 * x / stored_width, 2 * y / stored_height], dim=-1)


def _offsets(pixels: int, device: torch.device) -> Float[Tensor, " pixels"]:
    return torch.arange(pixels, device=device) - (pixels - 1) / 2


def _off_center(stored: int, seen: int) -> float:
    """How far the middle's center lies off the stored image's: half a pixel where the margins cannot be equal."""
    return (stored - seen) // 2 - (stored - seen) / 2


def _recolored(images: Images, draws: Draws) -> Images:
    """`x -> c b (s I + (1 - s) G) x + (1 - c) b m + lighting`, clipped to [0, 1]; the letters are those of `augmentations`."""
    channels = images.shape[1]
    bright, contrast, saturation = (draws.uniform(0.6, 1.4)[:, None, None] for _ in range(3))
    identity = torch.eye(channels, device=images.device)
    gray = luma(images).expand(channels, channels)
    matrices = contrast * bright * (saturation * identity + (1 - saturation) * gray)
    means = images.mean(dim=(-2, -1)) @ luma(images)
    offsets = ((1 - contrast) * bright * means[:, None, None]).expand(-1, channels, 1)
    recolored = torch.baddbmm(offsets + _lighting(images, draws), matrices, images.flatten(2))
    return recolored.clamp_(0.0, 1.0).view_as(images)


def _lighting(images: Images, draws: Draws) -> Float[Tensor, "batch channels 1"]:
    """A step along the axes of natural colors, normally distributed; images of one channel take its luma."""
    steps = draws.normal(_LIGHTING, len(_DEVIATIONS)) * images.new_tensor(_DEVIATIONS)
    colors = steps @ images.new_tensor(_AXES).T
    if images.shape[1] != colors.shape[1]:
        colors = colors.mean(dim=1, keepdim=True)
    return colors[:, :, None]
