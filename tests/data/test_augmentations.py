"""Run with `pytest tests/data/test_augmentations.py`; that ranks and repetitions agree is in `test_views.py`."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop, functional

from dirtune.data.augmentations import (
    AUGMENTATIONS,
    Draws,
    _resized_crop,
    crop_center,
    fit_box,
    jitter_colors,
    light,
    shift,
    strong,
)


def images(count: int, size: int = 24, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def draws(seed: int, total: int) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), total, slice(None), torch.device("cpu"))


def crop_by_loops(picture: torch.Tensor, top: int, left: int, padding: int) -> torch.Tensor:
    height, width = picture.shape[-2:]
    padded = torch.zeros(picture.shape[0], height + 2 * padding, width + 2 * padding)
    padded[:, padding : padding + height, padding : padding + width] = picture
    return padded[:, top : top + height, left : left + width]


def scaled_by_loops(part: torch.Tensor, size: int) -> torch.Tensor:
    """Bilinear, with pixel centers at halves and the edges repeated."""
    for dim in (1, 2):
        length = part.shape[dim]
        places = [(at + 0.5) * length / size - 0.5 for at in range(size)]
        places = [min(max(place, 0.0), length - 1.0) for place in places]
        lower = [int(place) for place in places]
        upper = [min(low + 1, length - 1) for low in lower]
        share = torch.tensor([place - low for place, low in zip(places, lower, strict=True)])
        share = share[None, :, None] if dim == 1 else share[None, None, :]
        part = (
            part.index_select(dim, torch.tensor(lower)) * (1 - share)
            + part.index_select(dim, torch.tensor(upper)) * share
        )
    return part


def test_crops_of_bytes_equal_crops_of_floats_up_to_rounding() -> None:
    pictures = (255 * images(30, size=40, channels=3)).byte()
    how = {"area": (0.2, 1.0), "ratio": (0.75, 4 / 3), "mirror": 0.5}
    made = _resized_crop(pictures, draws(6, 30), **how)
    assert made.dtype == torch.uint8
    exact = 255 * _resized_crop(pictures / 255, draws(6, 30), **how)
    # Rounded after each of the two directions
    assert (made - exact).abs().max() < 1.6


def test_shift_is_a_crop_of_the_padded_image_times_a_gain() -> None:
    pictures = images(8)
    shifted = shift(pictures, draws(1, 8))
    generator = torch.Generator().manual_seed(1)
    offsets = torch.randint(5, (8, 2), generator=generator)
    gains = 0.7 + 0.3 * torch.rand(8, generator=generator)
    for index, (top, left) in enumerate(offsets.tolist()):
        expected = gains[index] * crop_by_loops(pictures[index], top, left, padding=2)
        torch.testing.assert_close(shifted[index], expected)


def test_light_is_a_crop_of_the_padded_image_that_may_be_mirrored() -> None:
    pictures = images(16, size=28)
    made = light(pictures, draws(3, 16))
    generator = torch.Generator().manual_seed(3)
    offsets = torch.randint(5, (16, 2), generator=generator)
    mirrored = torch.rand(16, generator=generator) < 0.5
    assert mirrored.any()
    assert not mirrored.all()
    for index, (top, left) in enumerate(offsets.tolist()):
        expected = crop_by_loops(pictures[index], top, left, padding=2)
        assert torch.equal(made[index], expected.flip(-1) if mirrored[index] else expected)


def test_a_crop_of_the_whole_area_and_ratio_one_is_the_image() -> None:
    pictures = images(5, channels=3)
    made = _resized_crop(pictures, draws(0, 5), area=(1.0, 1.0), ratio=(1.0, 1.0))
    torch.testing.assert_close(made, pictures, atol=1e-5, rtol=0)


def test_a_quarter_of_the_area_is_a_window_of_half_the_width_scaled_up() -> None:
    ramp = torch.linspace(0, 1, 32)
    pictures = torch.stack([ramp.expand(32, 32), ramp.expand(32, 32).T])[:, None]
    made = _resized_crop(pictures, draws(5, 2), area=(0.25, 0.25), ratio=(1.0, 1.0))
    across = made[0, 0].amax() - made[0, 0].amin()
    # Sixteen pixels of a ramp of 32
    assert across == pytest.approx(15 / 31, abs=1e-4)
    assert made[0, 0].std(dim=0).amax() < 1e-6
    assert made[1, 0].std(dim=1).amax() < 1e-6


@pytest.mark.slow
def test_a_resized_crop_is_a_box_of_whole_pixels_scaled_up_and_perhaps_mirrored() -> None:
    pictures = images(20, size=9, channels=3)
    made = _resized_crop(pictures, draws(4, 20), area=(0.2, 1.0), ratio=(0.75, 4 / 3), mirror=0.5)
    for picture, found in zip(pictures, made, strict=True):
        boxes = [
            picture[:, y : y + height, x : x + width]
            for height in range(3, 10)
            for width in range(3, 10)
            for y in range(10 - height)
            for x in range(10 - width)
        ]
        corners = found[:, [0, 0, -1, -1], [0, -1, 0, -1]]
        fitting = [
            box
            for box in boxes
            for seen in (box, box.flip(-1))
            if torch.allclose(seen[:, [0, 0, -1, -1], [0, -1, 0, -1]], corners, atol=1e-6)
            and torch.allclose(scaled_by_loops(seen, 9), found, atol=1e-5)
        ]
        assert len(fitting) == 1


def test_crops_are_inside_the_image_at_all_positions() -> None:
    pictures = torch.linspace(0, 1, 16).expand(200, 1, 16, 16).contiguous()
    made = _resized_crop(pictures, draws(2, 200), area=(0.2, 0.5), ratio=(0.75, 4 / 3))
    assert made.amin() < 0.05
    assert made.amax() > 0.95
    middles = made.mean(dim=(1, 2, 3))
    assert middles.std() > 0.05


@pytest.mark.parametrize("by_image", [True, False])
def test_changes_of_color_are_those_of_torchvision_in_any_order(*, by_image: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    pictures = images(24, size=12, channels=3).double()
    # Gray, primary colors and their mixtures, where the hue is undefined or at an edge
    pictures[0] = 0.5
    pictures[1] = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]]).T.repeat(1, 3)[:, None]
    pictures[2, :, :6] = pictures[2, :1, :6]
    scales = 0.6 + 0.8 * torch.rand(24, 3, generator=generator)
    turns = 0.2 * torch.rand(24, 1, generator=generator) - 0.1
    factors = torch.cat([scales, turns], dim=1).double()
    orders = torch.rand(24, 4, generator=generator).argsort(dim=1)
    changes = (
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    )
    expected = pictures.clone()
    for index, order in enumerate(orders.tolist()):
        for number in order:
            expected[index] = changes[number](expected[index], float(factors[index, number]))
    # Of a tensor torchvision's luma has 0.2989 of red, of a Pillow image 0.299.
    found = jitter_colors(pictures, factors, orders, by_image=by_image)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    assert torch.equal(jitter_colors(pictures, factors, torch.full((24, 4), -1), by_image=by_image), pictures)


@pytest.mark.parametrize("size", [(24, 24), (40, 20), (9, 60)])
def test_the_box_of_a_crop_is_that_of_torchvision(size: tuple[int, int]) -> None:
    """torchvision draws area, logarithm of the ratio and then the corner from torch's generator."""
    limits = {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}
    picture = torch.zeros(3, *size)
    for seed in range(100):
        torch.manual_seed(seed)
        _, _, height, width = RandomResizedCrop.get_params(picture, **limits)
        torch.manual_seed(seed)
        low, high = (math.log(value) for value in limits["ratio"])
        tries = [
            (float(torch.empty(1).uniform_(*limits["scale"])), float(torch.exp(torch.empty(1).uniform_(low, high))))
            for _ in range(10)
        ]
        assert fit_box(size, tries, limits["ratio"])[:2] == (height, width)


def test_a_crop_that_is_scaled_down_is_smoothed_as_in_pillow() -> None:
    pictures = (255 * images(6, size=64, channels=3)).byte()
    made = _resized_crop(pictures, draws(1, 6), (28, 28), area=(1.0, 1.0), ratio=(1.0, 1.0))
    for picture, found in zip(pictures, made, strict=True):
        judge = Image.fromarray(picture.permute(1, 2, 0).numpy()).resize((28, 28), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(judge)).permute(2, 0, 1)
        # Both round to bytes after each direction.
        assert (found.int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_a_view_smaller_than_the_stored_image_is_of_its_center_or_a_scaled_crop(name: str) -> None:
    pictures = images(5, size=40, channels=3)
    made = AUGMENTATIONS[name](pictures, draws(0, 5), (28, 28))
    assert made.shape == (5, 3, 28, 28)
    if name != "strong":
        assert torch.equal(made, AUGMENTATIONS[name](pictures[:, :, 6:34, 6:34], draws(0, 5)))


def test_a_center_crop_is_that_of_torchvision() -> None:
    pictures = images(2, size=31)
    for size in ((31, 31), (24, 24), (24, 17), (8, 23)):
        assert torch.equal(crop_center(pictures, size), functional.center_crop(pictures, list(size)))


def test_strong_turns_about_a_fifth_gray_and_stays_in_the_unit_range() -> None:
    made = strong(images(500, size=8, channels=3), draws(0, 500))
    gray = (made.amax(dim=1) - made.amin(dim=1)).amax(dim=(1, 2)) < 1e-6
    assert 0.14 < gray.float().mean() < 0.26
    assert made.amin() >= 0
    assert made.amax() <= 1


def test_strong_keeps_the_colors_of_about_a_sixth() -> None:
    """Of a picture of one color, the crop and the mirror keep everything and only the jitter changes it."""
    color = torch.tensor([0.5, 0.3, 0.4])[:, None, None].expand(500, 3, 8, 8).contiguous()
    made = strong(color, draws(1, 500))
    same = (made - color).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 0.8 * 0.2 - 0.06 < same.float().mean() < 0.8 * 0.2 + 0.06


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_keep_shape_and_range(name: str, channels: int) -> None:
    made = AUGMENTATIONS[name](images(6, channels=channels), draws(0, 6))
    assert made.shape == (6, channels, 24, 24)
    assert made.isfinite().all()
    assert (made >= 0).all()
    assert (made <= 1).all()
