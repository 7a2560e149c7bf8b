"""Augmentations of image batches: an independent random change of each sample, on the device of the batch.

Only changes that keep the label valid belong here. Random numbers are drawn on the CPU for the whole global batch and
sliced (`Draws`), so that 1, 2 and 4 workers see the same images; the transforms of torchvision draw once for a batch, or
run once for each image. On a CPU the passes over memory are expensive, not the arithmetic: pixels stay bytes while they
are cropped and mirrored, and a window is a slice and not a gather (a tenth of its time).

Images may be stored larger than a view (`dirtune.manifest.InputSpec.view`): a resized crop is then one of the whole stored
image, everything else acts on its center.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dirtune.data import batched_crops
from dirtune.registry import Registry
from dirtune.transfer import make_constant, to_device

Images = Float[Tensor, "batch channels height width"]
Stored = Images | UInt8[Tensor, "batch channels height width"]
View = Float[Tensor, "batch channels view_height view_width"]
"""Images that may be smaller than those stored."""

# Luma of red, green and blue (ITU-R BT.601), as PIL and torchvision use.
_GRAY = (0.299, 0.587, 0.114)
_CROP_TRIES = 10
"""Boxes drawn for a resized crop before the largest one in the center is taken, as in torchvision."""


@dataclass(frozen=True)
class Draws:
    """Random numbers for one rank's part of a global batch; each method draws for all samples and returns the rank's."""

    generator: torch.Generator
    """On the CPU."""
    total: int
    """Samples in the global batch."""
    rows: slice
    """This rank's part of it."""
    device: torch.device

    def draw_uniform(self, low: float, high: float) -> Float[Tensor, " batch"]:
        """Return one number in [low, high) for each sample."""
        return low + (high - low) * self._select_own(torch.rand(self.total, generator=self.generator))

    def draw_bernoulli(self, probability: float) -> Bool[Tensor, " batch"]:
        """Return True with this probability for each sample."""
        return self.draw_uniform(0.0, 1.0) < probability

    def draw_normal(self, deviation: float, count: int) -> Float[Tensor, "batch count"]:
        """Return `count` numbers for each sample, normally distributed around zero with this standard deviation."""
        return deviation * self._select_own(torch.randn(self.total, count, generator=self.generator))

    def draw_corners(self, end: int) -> list[list[int]]:
        """Return the upper left corner of a window for each sample, two integers in [0, end), as Python numbers."""
        drawn = torch.randint(end, (self.total, 2), generator=self.generator)
        corners: list[list[int]] = drawn[self.rows].tolist()
        return corners

    def draw_numbers(self, low: float, high: float) -> list[float]:
        """Return one number in [low, high) for each sample, as Python numbers."""
        drawn = torch.rand(self.total, generator=self.generator)[self.rows]
        numbers: list[float] = (low + (high - low) * drawn.double()).tolist()
        return numbers

    def draw_choices(self, probability: float) -> list[bool]:
        """Return True with this probability for each sample, as Python values."""
        return [number < probability for number in self.draw_numbers(0.0, 1.0)]

    def draw_orders(self, count: int) -> Int[Tensor, "batch count"]:
        """Return a random permutation of `count` things for each sample."""
        return self._select_own(torch.rand(self.total, count, generator=self.generator)).argsort(dim=1)

    def _select_own(self, values: Tensor) -> Tensor:
        return to_device(values[self.rows], self.device)


Size = tuple[int, int]
"""Height and width."""


class Augmentation(Protocol):
    """Function from images, as bytes or in [0, 1], to images in [0, 1]."""

    def __call__(self, images: Stored, draws: Draws, size: Size | None = None) -> View:
        """Return one view of each image, of this size; None means that of the images."""


def to_float(images: Stored) -> Images:
    """Return images in [0, 1]: bytes are divided by 255, floating point images are returned as they are."""
    # In place on the new tensor of the conversion, which saves a pass over memory.
    return images if images.is_floating_point() else images.float().div_(255.0)


def get_luma_weights(images: Images) -> Float[Tensor, " channels"]:
    """Return the weights of the channels in a pixel's luma; equal weights if they are not red, green and blue."""
    channels = images.shape[1]
    weights = _GRAY if channels == len(_GRAY) else (1 / channels,) * channels
    return make_constant(weights, images.dtype, images.device)


def crop_center(images: Stored, size: Size | None) -> Tensor:
    """Return the center of the images of this height and width, as torchvision does; None returns the images."""
    if size is None or size == tuple(images.shape[-2:]):
        return images
    top, left = (round((full - part) / 2) for full, part in zip(images.shape[-2:], size, strict=True))
    return images[..., top : top + size[0], left : left + size[1]]


def none(images: Stored, draws: Draws, size: Size | None = None) -> View:
    """Return the images in [0, 1] without augmentation: all views of an image are equal."""
    return to_float(crop_center(images, size))


def shift(images: Stored, draws: Draws, size: Size | None = None) -> View:
    """Return crops of the images padded by a twelfth of their width with zeros, times a gain of 0.7 to 1.

    Orientation is kept: for labels that a mirror or a rotation would change, such as angles and gaze.
    """
    images = crop_center(images, size)
    cropped = _pad_crop(images, draws, padding=max(1, images.shape[-1] // 12))
    return to_float(cropped).mul_(draws.draw_uniform(0.7, 1.0)[:, None, None, None])


def light(images: Stored, draws: Draws, size: Size | None = None) -> View:
    """Return crops of the images padded by 1/14 of their width (16 of 224) with zeros, mirrored with probability 1/2.

    Source: the training transform of Yang et al. (ICML 2021) for faces.
    """
    images = crop_center(images, size)
    return to_float(_pad_crop(images, draws, padding=max(1, images.shape[-1] // 14), mirror=0.5))


def strong(images: Stored, draws: Draws, size: Size | None = None) -> View:
    """Return resized crops of 20 to 100 % of the area, mirrored 1/2, color jitter 0.4/0.4/0.4/0.1 at 0.8, gray at 0.2.

    Source: the training transform of ACCon on AgeDB (Zhao et al., AAAI 2025) and of Rank-N-Contrast (Zha et al., NeurIPS
    2023), which is torchvision's RandomResizedCrop, RandomHorizontalFlip, ColorJitter and RandomGrayscale; the four changes
    of color come in random order. Departure: colors are not rounded to bytes between two changes. Images of one channel
    have no saturation, hue or gray.
    """
    cropped = to_float(_resized_crop(images, draws, size, area=(0.2, 1.0), ratio=(3 / 4, 4 / 3), mirror=0.5))
    # On the CPU, where it is known which images each change has: a GPU that selects them itself makes the host wait.
    draws = replace(draws, device=torch.device("cpu"))
    factors = torch.stack([draws.draw_uniform(0.6, 1.4) for _ in range(3)] + [draws.draw_uniform(-0.1, 0.1)], dim=1)
    orders, is_jittered, is_gray = draws.draw_orders(4), draws.draw_bernoulli(0.8), draws.draw_bernoulli(0.2)
    orders = torch.where(is_jittered[:, None], orders, -1)
    jittered = jitter_colors(cropped, factors, orders, by_image=not cropped.is_cuda)
    if jittered.shape[1] == len(_GRAY):
        gray = to_device(is_gray.nonzero().squeeze(1), jittered.device)
        jittered[gray] = _compute_luma(jittered[gray])
    return jittered


def jitter_colors(
    images: Images, factors: Float[Tensor, "batch 4"], orders: Int[Tensor, "batch 4"], *, by_image: bool
) -> Images:
    """Return images with changed brightness, contrast, saturation and hue, as torchvision's ColorJitter.

    Args:
        images: in [0, 1].
        factors: of brightness, contrast and saturation, and the share of the circle by which the hue is rotated; on the CPU.
        orders: the changes of each image by their number, one after another; -1 means none. On the CPU.
        by_image: one image after another, of which each fits into a processor's cache (two thirds of the time on a CPU); or
            all images of one change together, for a GPU.
    """
    changes: tuple[Callable[[Images, Tensor], Images], ...] = (scale_brightness, scale_contrast)
    if images.shape[1] == len(_GRAY):
        changes = (*changes, scale_saturation, rotate_hue)
    if by_image:
        parts = [_change_colors(*each, changes) for each in zip(images.split(1), factors, orders.tolist(), strict=True)]
        return torch.cat(parts) if parts else images
    changed, factors = images.clone(), to_device(factors, images.device)
    # The images of each change, for each place in the order: known here, sent in one copy.
    by_change = to_device(orders.argsort(dim=0, stable=True), images.device)
    for place, numbers in enumerate(orders.unbind(1)):
        counts = torch.bincount(numbers + 1, minlength=len(changes) + 1).tolist()
        parts = by_change[:, place].split(counts)[1 : len(changes) + 1]
        for number, (change, rows) in enumerate(zip(changes, parts, strict=True)):
            if len(rows):
                changed[rows] = change(changed[rows], factors[rows, number, None, None, None])
    return changed


def _change_colors(
    image: Images, factors: Float[Tensor, "4"], order: list[int], changes: Sequence[Callable[[Images, Tensor], Images]]
) -> Images:
    for number in order:
        if 0 <= number < len(changes):
            image = changes[number](image, factors[number].view(1, 1, 1, 1))
    return image


AUGMENTATIONS: Registry[Augmentation] = Registry(
    "augmentation", {"light": light, "none": none, "shift": shift, "strong": strong}, is_open=False
)


def _pad_crop(images: Stored, draws: Draws, *, padding: int, mirror: float = 0.0) -> Stored:
    """Return a random window of each image padded with zeros, mirrored with some probability; bytes stay bytes."""
    height, width = images.shape[-2:]
    corners = draws.draw_corners(2 * padding + 1)
    if images.is_cuda:
        mirrored = draws.draw_choices(mirror) if mirror else [False] * len(corners)
        return batched_crops.cut_windows(F.pad(images, (padding,) * 4), corners, mirrored, (height, width))
    # Slices of one image after the other take a tenth of the time of a gather over the batch.
    windows = [
        image[:, y : y + height, x : x + width]
        for image, (y, x) in zip(F.pad(images, (padding,) * 4), corners, strict=True)
    ]
    mirrored = draws.draw_choices(mirror) if mirror else [False] * len(windows)
    cropped = [window.flip(-1) if flips else window for window, flips in zip(windows, mirrored, strict=True)]
    return torch.stack(cropped) if cropped else images


def _resized_crop(
    images: Stored,
    draws: Draws,
    size: Size | None = None,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    mirror: float = 0.0,
) -> Tensor:
    """Return a part of each image, of random area, aspect ratio and place, scaled to a size (bilinear).

    On a CPU bytes stay bytes and are rounded, as in Pillow, which halves the time.
    """
    stored = (images.shape[-2], images.shape[-1])
    size = size or stored
    boxes = _draw_boxes(stored, draws, area=area, ratio=ratio)
    mirrored = draws.draw_choices(mirror) if mirror else [False] * len(boxes)
    if images.is_cuda:
        # CUDA has no bilinear interpolation of bytes.
        images = to_float(images)
        if all(height <= size[0] and width <= size[1] for _, _, height, width in boxes):
            return batched_crops.resize_boxes(images, boxes, mirrored, size)
    cropped = []
    for image, (y, x, height, width), flips in zip(images, boxes, mirrored, strict=True):
        part = image[None, :, y : y + height, x : x + width]
        # Pillow and torchvision smooth what they scale down.
        shrinks = height > size[0] or width > size[1]
        (scaled,) = F.interpolate(part, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
        cropped.append(scaled.flip(-1) if flips else scaled)
    return torch.stack(cropped) if cropped else images


def _draw_boxes(
    size: Size, draws: Draws, *, area: tuple[float, float], ratio: tuple[float, float]
) -> list[tuple[int, int, int, int]]:
    """Return the upper left corner (y, x), the height and the width of a part of each image, in pixels.

    As torchvision: a box that would leave the image is drawn again, and after ten tries the largest one in the center with
    an allowed ratio is taken.
    """
    shares = [draws.draw_numbers(*area) for _ in range(_CROP_TRIES)]
    logarithms = [draws.draw_numbers(*map(math.log, ratio)) for _ in range(_CROP_TRIES)]
    places = draws.draw_numbers(0.0, 1.0), draws.draw_numbers(0.0, 1.0)
    boxes = []
    for at, (down, right) in enumerate(zip(*places, strict=True)):
        tries = zip((drawn[at] for drawn in shares), (math.exp(drawn[at]) for drawn in logarithms), strict=True)
        height, width, is_inside = fit_box(size, tries, ratio)
        # The center of the fallback is a place like any other.
        down, right = (down, right) if is_inside else (0.5, 0.5)
        boxes.append((int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1)), height, width))
    return boxes


def fit_box(size: Size, tries: Iterable[tuple[float, float]], ratio: tuple[float, float]) -> tuple[int, int, bool]:
    """Return height and width of the first box inside an image and True, or those of the largest one allowed and False.

    Args:
        size: of the image.
        tries: share of the area, and width by height, of each box.
        ratio: least and largest width by height.
    """
    for share, aspect in tries:
        area = share * size[0] * size[1]
        height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < height <= size[0] and 0 < width <= size[1]:
            return height, width, True
    aspect = min(max(size[1] / size[0], ratio[0]), ratio[1])
    return min(size[0], round(size[1] / aspect)), min(size[1], round(size[0] * aspect)), False


def _compute_luma(images: Images) -> Float[Tensor, "batch 1 height width"]:
    return torch.einsum("bchw,c->bhw", images, get_luma_weights(images))[:, None]


def scale_brightness(images: Images, factors: Tensor) -> Images:
    """Blend images with black: `factor * image`, limited to [0, 1]."""
    return (images * factors).clamp_(0.0, 1.0)


def scale_contrast(images: Images, factors: Tensor) -> Images:
    """Blend images with their mean luma: `factor * image + (1 - factor) * mean`, limited to [0, 1]."""
    means = _compute_luma(images).mean(dim=(-2, -1), keepdim=True)
    return (images * factors).add_((1 - factors) * means).clamp_(0.0, 1.0)


def scale_saturation(images: Images, factors: Tensor) -> Images:
    """Blend images with their luma: `factor * image + (1 - factor) * luma`, limited to [0, 1]."""
    return (images * factors).add_((1 - factors) * _compute_luma(images)).clamp_(0.0, 1.0)


def rotate_hue(images: Images, turns: Tensor) -> Images:
    """Rotate the hue of HSV by shares of the circle; value and saturation stay."""
    red, green, blue = images.unbind(dim=1)
    value = images.amax(dim=1)
    chroma = value - images.amin(dim=1)
    # Sums of products instead of `where` and `remainder`, which take twice the time on a CPU.
    is_red = (value == red).to(images.dtype)
    is_green = (value == green).to(images.dtype) * (1 - is_red)
    is_blue = 1 - is_red - is_green
    position = (is_red * (green - blue)).addcmul_(is_green, blue - red).addcmul_(is_blue, red - green)
    # In sixths of the circle: red is 0, green 2, blue 4. A gray pixel has no hue, and any does.
    hue = position.div_(chroma.clamp(min=1e-12)).add_(is_green, alpha=2).add_(is_blue, alpha=4).add_(6 * turns[:, 0])
    rotated = torch.empty_like(images)
    for channel, shift in enumerate((5.0, 3.0, 1.0)):
        distance = hue + shift
        distance.sub_((distance / 6).floor_(), alpha=6)
        # The channel is at its highest for two sixths, at its lowest for two, and linear between.
        share = distance.sub_(2).abs_().neg_().add_(2).clamp_(0.0, 1.0)
        rotated[:, channel] = value.addcmul(chroma, share, value=-1)
    return rotated
