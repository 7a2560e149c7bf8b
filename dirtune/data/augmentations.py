"""Augmentations of image batches: an independent random change of each sample, on the device of the batch.

Only changes that keep the label valid belong here. Random numbers are drawn on the CPU for the whole global batch and
sliced (`Draws`), so that 1, 2 and 4 workers see the same images; the transforms of torchvision draw once for a batch, or
run once for each image. On a CPU the passes over memory are expensive, not the arithmetic: pixels stay bytes while they
are cropped and mirrored, a window is a slice and not a gather (a tenth of its time), and all changes of color are one
matrix.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

Images = Float[Tensor, "batch channels height width"]
Stored = Images | UInt8[Tensor, "batch channels height width"]

# Luma of red, green and blue (ITU-R BT.601), as PIL and torchvision use.
_GRAY = (0.299, 0.587, 0.114)
_TO_YIQ = ((0.299, 0.587, 0.114), (0.596, -0.274, -0.322), (0.211, -0.523, 0.312))


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

    def _select_own(self, values: Tensor) -> Tensor:
        return values[self.rows].to(self.device)


Augmentation = Callable[[Stored, Draws], Images]
"""Function from images, as bytes or in [0, 1], to images in [0, 1]."""


def to_float(images: Stored) -> Images:
    """Return images in [0, 1]: bytes are divided by 255, floating point images are returned as they are."""
    # In place on the new tensor of the conversion, which saves a pass over memory.
    return images if images.is_floating_point() else images.float().div_(255.0)


def get_luma_weights(images: Images) -> Float[Tensor, " channels"]:
    """Return the weights of the channels in a pixel's luma; equal weights if they are not red, green and blue."""
    channels = images.shape[1]
    weights = _GRAY if channels == len(_GRAY) else (1 / channels,) * channels
    return torch.tensor(weights, device=images.device, dtype=images.dtype)


def none(images: Stored, draws: Draws) -> Images:
    """Return the images in [0, 1] without augmentation: all views of an image are equal."""
    return to_float(images)


def shift(images: Stored, draws: Draws) -> Images:
    """Return crops of the images padded by a twelfth of their width with zeros, times a gain of 0.7 to 1.

    Orientation is kept: for labels that a mirror or a rotation would change, such as angles and gaze.
    """
    cropped = _pad_crop(images, draws, padding=max(1, images.shape[-1] // 12))
    return to_float(cropped).mul_(draws.draw_uniform(0.7, 1.0)[:, None, None, None])


def light(images: Stored, draws: Draws) -> Images:
    """Return crops of the images padded by 1/14 of their width (16 of 224) with zeros, mirrored with probability 1/2.

    Source: the training transform of Yang et al. (ICML 2021) for faces.
    """
    return to_float(_pad_crop(images, draws, padding=max(1, images.shape[-1] // 14), mirror=0.5))


def strong(images: Stored, draws: Draws) -> Images:
    """Return resized crops of 20 to 100 % of the area, mirrored 1/2, color jitter 0.4/0.4/0.4/0.1 at 0.8, gray at 0.2.

    Source: the training transform of ACCon on AgeDB (Zhao et al., AAAI 2025) and of Rank-N-Contrast (Zha et al., NeurIPS
    2023); the strength of their jitter is not known exactly. Departures: 1. a crop that would leave the image is made
    narrower instead of being drawn again; 2. jitter comes in one fixed order, brightness, contrast, saturation, hue, then
    gray; 3. hue rotates the chroma plane of YIQ instead of HSV's hue; 4. colors are clipped to [0, 1] once, at the end, not
    after each change, which makes all of them one matrix per image. Images of one channel have no saturation, hue or gray.
    """
    cropped = to_float(_resized_crop(images, draws, area=(0.2, 1.0), ratio=(3 / 4, 4 / 3), mirror=0.5))
    matrices, offsets = _draw_color_jitter(cropped, draws)
    # One matrix per image: every further pass over the pixels would cost as much again.
    recolored = torch.baddbmm(offsets, matrices, cropped.flatten(2))
    return recolored.clamp_(0.0, 1.0).view_as(cropped)


AUGMENTATIONS: dict[str, Augmentation] = {"light": light, "none": none, "shift": shift, "strong": strong}


def _pad_crop(images: Stored, draws: Draws, *, padding: int, mirror: float = 0.0) -> Stored:
    """Return a random window of each image padded with zeros, mirrored with some probability; bytes stay bytes."""
    height, width = images.shape[-2:]
    corners = draws.draw_corners(2 * padding + 1)
    # Slices of one image after the other take a tenth of the time of a gather over the batch.
    windows = [
        image[:, y : y + height, x : x + width]
        for image, (y, x) in zip(F.pad(images, (padding,) * 4), corners, strict=True)
    ]
    mirrored = draws.draw_choices(mirror) if mirror else [False] * len(windows)
    cropped = [window.flip(-1) if flips else window for window, flips in zip(windows, mirrored, strict=True)]
    return torch.stack(cropped) if cropped else images


def _resized_crop(
    images: Stored, draws: Draws, *, area: tuple[float, float], ratio: tuple[float, float], mirror: float = 0.0
) -> Stored:
    """Return a part of each image, of random area, aspect ratio and place, scaled to the size of the image (bilinear).

    On a CPU bytes stay bytes and are rounded, as in Pillow, which halves the time.
    """
    # CUDA has no bilinear interpolation of bytes.
    if images.is_cuda:
        images = to_float(images)
    size = (images.shape[-2], images.shape[-1])
    boxes = _draw_boxes(size, draws, area=area, ratio=ratio)
    mirrored = draws.draw_choices(mirror) if mirror else [False] * len(boxes)
    cropped = []
    for image, (y, x, height, width), flips in zip(images, boxes, mirrored, strict=True):
        part = image[None, :, y : y + height, x : x + width]
        (scaled,) = F.interpolate(part, size=size, mode="bilinear", align_corners=False)
        cropped.append(scaled.flip(-1) if flips else scaled)
    return torch.stack(cropped) if cropped else images


def _draw_boxes(
    size: tuple[int, int], draws: Draws, *, area: tuple[float, float], ratio: tuple[float, float]
) -> list[tuple[int, int, int, int]]:
    """Return the upper left corner (y, x), the height and the width of a part of each image, in pixels."""
    shares = draws.draw_numbers(*area)
    aspects = map(math.exp, draws.draw_numbers(*map(math.log, ratio)))
    places = draws.draw_numbers(0.0, 1.0), draws.draw_numbers(0.0, 1.0)
    boxes = []
    for share, aspect, right, down in zip(shares, aspects, *places, strict=True):
        # Departure 1: a crop that would leave the image is made narrower.
        sides = min(1.0, math.sqrt(share / aspect)), min(1.0, math.sqrt(share * aspect))
        height, width = (max(1, round(side * of)) for side, of in zip(sides, size, strict=True))
        y, x = int(down * (size[0] - height + 1)), int(right * (size[1] - width + 1))
        boxes.append((y, x, height, width))
    return boxes


def _draw_color_jitter(
    images: Images, draws: Draws
) -> tuple[Float[Tensor, "batch channels channels"], Float[Tensor, "batch channels 1"]]:
    """Return a matrix and an offset of the colors of each image: jittered with probability 0.8, then gray with 0.2.

    With luma weights w, G = 1 w^T, factors b, c, s of 0.6 to 1.4 for brightness, contrast and saturation, the hue's
    rotation H by up to a tenth of the circle, and the image's mean luma m: `x -> c b H (s I + (1 - s) G) x + (1 - c) b m`.
    The offset is gray, so that saturation and hue do not change it. A gray image is G times that.
    """
    channels = images.shape[1]
    bright, contrast, saturation = (draws.draw_uniform(0.6, 1.4)[:, None, None] for _ in range(3))
    rotations, is_jittered = draws.draw_uniform(-0.1, 0.1), draws.draw_bernoulli(0.8)[:, None, None]
    is_gray = draws.draw_bernoulli(0.2)[:, None, None]
    identity = torch.eye(channels, device=images.device)
    weights = get_luma_weights(images)
    gray = weights.expand(channels, channels)
    matrices = contrast * bright * identity
    if channels == len(_GRAY):
        matrices = _make_hue_rotations(rotations) @ (saturation * identity + (1 - saturation) * gray) @ matrices
    matrices = torch.where(is_jittered, matrices, identity)
    if channels == len(_GRAY):
        matrices = torch.where(is_gray, gray @ matrices, matrices)
    means = images.mean(dim=(-2, -1)) @ weights
    offsets = torch.where(is_jittered, (1 - contrast) * bright * means[:, None, None], 0.0)
    return matrices, offsets.expand(-1, channels, 1)


def _make_hue_rotations(turns: Float[Tensor, " batch"]) -> Float[Tensor, "batch 3 3"]:
    """Return RGB matrices that rotate the chroma plane by a share of the circle and keep the luma."""
    to_yiq = torch.tensor(_TO_YIQ, device=turns.device, dtype=turns.dtype)
    cos, sin = (2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()
    one, zero = torch.ones_like(cos), torch.zeros_like(cos)
    rows = ((one, zero, zero), (zero, cos, -sin), (zero, sin, cos))
    turn = torch.stack([torch.stack(row, dim=1) for row in rows], dim=1)
    matrices: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return matrices
