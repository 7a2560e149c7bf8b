"""Views of samples with per-pixel labels: images and labels share one geometry, color changes images alone.

A view holds the images in [0, 1] and, under the name of their column, the labels in their unit, `(batch, height, width)`,
zero where a pixel has no label. Pixels that a rotation brings in from outside the stored image have no label, where the
official code trains on a depth of zero there. In evaluation the mask, if there is one, is included unchanged.

Source of `depth`: the training transforms of NYUD2-DIR (YyzHarry/imbalanced-regression, `nyud2-dir/nyu_transform.py`),
those of Hu et al., "Revisiting Single Image Depth Estimation", WACV 2019. Departures: 1. labels are taken from the nearest
pixel, there by splines, which mix depths across edges; 2. images are rotated bilinearly; 3. color jitter comes in one
fixed order, and colors are clipped once, at the end.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int16
from torch import Tensor

from dirtune.batch import Inputs
from dirtune.data.augmentations import Draws, Images, Stored, get_luma_weights, to_float
from dirtune.manifest import DenseLabels
from dirtune.registry import Registry
from dirtune.transfer import make_constant

Counts = Int16[Tensor, "batch 1 height width"]
"""Per-pixel labels as stored."""
Cropped = tuple[
    Float[Tensor, "batch channels cropped_height cropped_width"], Int16[Tensor, "batch 1 cropped_height cropped_width"]
]
"""Images and counts at the height and width of the labels."""
DenseAugmentation = Callable[[Stored, Counts, DenseLabels, Draws], Cropped]
"""Function from stored images and counts to the evaluated crop of both, images in [0, 1]."""

_MAX_ROTATION = math.radians(5.0)
_LIGHTING = 0.1
# Deviations and axes of the colors of ImageNet (Krizhevsky et al., "ImageNet Classification with Deep CNNs", NeurIPS 2012).
_DEVIATIONS = (0.2175, 0.0188, 0.0045)
_AXES = ((-0.5675, 0.7192, 0.4009), (-0.5808, -0.0045, -0.8140), (-0.5836, -0.6948, 0.4203))


@dataclass(frozen=True)
class DenseTransform:
    """Transforms for per-pixel labels, as `dirtune.data.views.Transform` describes."""

    spec: DenseLabels

    @property
    def augmentations(self) -> Mapping[str, object]:
        """The augmentations of images together with their per-pixel labels, by name."""
        return DENSE_AUGMENTATIONS

    def apply_augmentation(self, inputs: Inputs, augmentation: str, draws: Draws) -> Inputs:
        """Return one view for training.

        Args:
            inputs: as stored: one image, the counts, and perhaps a mask, which training does not read.
            augmentation: a name of `DENSE_AUGMENTATIONS`.
            draws: the random numbers of the view.
        """
        spec = self.spec
        (name,) = inputs.keys() - set(spec.columns)
        images, counts = DENSE_AUGMENTATIONS[augmentation](inputs[name], inputs[spec.column], spec, draws)
        return {name: images, spec.column: to_labels(counts, spec)}

    def apply_evaluation(self, inputs: Inputs) -> Inputs:
        """Return the view for evaluation: the center crop, without augmentation."""
        spec = self.spec
        view = {name: spec.crop(value) for name, value in inputs.items()}
        for name in inputs.keys() - set(spec.columns):
            view[name] = to_float(view[name])
        view[spec.column] = to_labels(view[spec.column], spec)
        return view


def none(images: Stored, counts: Counts, spec: DenseLabels, draws: Draws) -> Cropped:
    """Crop the center of the images and of their labels, without augmentation."""
    return to_float(spec.crop(images)), spec.crop(counts)


def depth(images: Stored, counts: Counts, spec: DenseLabels, draws: Draws) -> Cropped:
    """Flip with probability 1/2 and rotate by up to 5 degrees, labels included; color jitter 0.4, lighting 0.1."""
    grid = _make_rotated_grid(images, spec, draws)
    rotated = F.grid_sample(to_float(images), grid, padding_mode="zeros", align_corners=False)
    labels = F.grid_sample(counts.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return _jitter_colors(rotated, draws), labels.to(counts.dtype)


DENSE_AUGMENTATIONS: Registry[DenseAugmentation] = Registry(
    "augmentation", {"depth": depth, "none": none}, is_open=False
)


def to_labels(counts: Counts, spec: DenseLabels) -> Float[Tensor, "batch height width"]:
    """Return stored counts as labels in their unit; zero means no label."""
    return counts.squeeze(1).float() * spec.unit_per_count


def _make_rotated_grid(
    images: Stored, spec: DenseLabels, draws: Draws
) -> Float[Tensor, "batch cropped_height cropped_width 2"]:
    """Return the position in the stored image of each pixel of the center crop, rotated and perhaps mirrored."""
    stored_height, stored_width = images.shape[-2:]
    mirror = torch.where(draws.draw_bernoulli(0.5), -1.0, 1.0)[:, None, None]
    angles = draws.draw_uniform(-_MAX_ROTATION, _MAX_ROTATION)[:, None, None]
    columns = mirror * _make_offsets(spec.width, images.device)[None, None, :]
    rows = _make_offsets(spec.height, images.device)[None, :, None]
    x = angles.cos() * columns - angles.sin() * rows + _compute_center_shift(stored_width, spec.width)
    y = angles.sin() * columns + angles.cos() * rows + _compute_center_shift(stored_height, spec.height)
    return torch.stack([2 * x / stored_width, 2 * y / stored_height], dim=-1)


def _make_offsets(pixels: int, device: torch.device) -> Float[Tensor, " pixels"]:
    return torch.arange(pixels, device=device) - (pixels - 1) / 2


def _compute_center_shift(stored: int, cropped: int) -> float:
    """Return the shift of the crop's center from the stored image's: half a pixel if the margins cannot be equal."""
    return (stored - cropped) // 2 - (stored - cropped) / 2


def _jitter_colors(images: Images, draws: Draws) -> Images:
    """Return `c b (s I + (1 - s) G) x + (1 - c) b m + lighting`, clipped to [0, 1]; the letters are those of `augmentations`."""
    channels = images.shape[1]
    bright, contrast, saturation = (draws.draw_uniform(0.6, 1.4)[:, None, None] for _ in range(3))
    identity = torch.eye(channels, device=images.device)
    gray = get_luma_weights(images).expand(channels, channels)
    matrices = contrast * bright * (saturation * identity + (1 - saturation) * gray)
    means = images.mean(dim=(-2, -1)) @ get_luma_weights(images)
    offsets = ((1 - contrast) * bright * means[:, None, None]).expand(-1, channels, 1)
    jittered = torch.baddbmm(offsets + _draw_lighting(images, draws), matrices, images.flatten(2))
    return jittered.clamp_(0.0, 1.0).view_as(images)


def _draw_lighting(images: Images, draws: Draws) -> Float[Tensor, "batch channels 1"]:
    """Draw a normally distributed step along the axes of natural colors; images of one channel take its mean."""
    deviations, axes = (make_constant(each, images.dtype, images.device) for each in (_DEVIATIONS, _AXES))
    colors = (draws.draw_normal(_LIGHTING, len(_DEVIATIONS)) * deviations) @ axes.T
    if images.shape[1] != colors.shape[1]:
        colors = colors.mean(dim=1, keepdim=True)
    return colors[:, :, None]
