"""Run with `pytest tests/data/test_dense_views.py`."""

from __future__ import annotations

import math

import pytest
import torch

from dirtune.data.augmentations import Draws
from dirtune.data.dense_views import DENSE_AUGMENTATIONS, DenseTransform, to_labels
from dirtune.data.views import make_views
from dirtune.manifest import DenseLabels

SPEC = DenseLabels(column="depth", unit_per_count=0.001, height=30, width=40, mask="mask")
TRANSFORM = DenseTransform(SPEC)


def _inputs(rows: int = 6, height: int = 40, width: int = 52):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.randint(256, (rows, 3, height, width), generator=generator).to(torch.uint8),
        "depth": torch.randint(1, 10_000, (rows, 1, height, width), generator=generator).to(torch.int16),
        "mask": torch.randint(2, (rows, 1, height, width), generator=generator).to(torch.uint8),
    }


def _draws(total: int, rows: slice | None = None, seed: int = 1) -> Draws:
    generator = torch.Generator().manual_seed(seed)
    return Draws(generator, total, rows or slice(0, total), torch.device("cpu"))


def test_the_evaluation_transform_crops_the_center():
    inputs = _inputs()
    view = TRANSFORM.apply_evaluation(inputs)
    assert torch.equal(view["image"], inputs["image"][:, :, 5:35, 6:46].float() / 255)
    assert torch.equal(view["mask"], inputs["mask"][:, :, 5:35, 6:46])
    for y, x in ((0, 0), (29, 39), (7, 13)):
        assert float(view["depth"][2, y, x]) == pytest.approx(int(inputs["depth"][2, 0, y + 5, x + 6]) / 1000)
    assert view["depth"].shape == (6, 30, 40)


def test_no_augmentation_is_the_evaluated_view_without_the_mask():
    inputs = _inputs()
    view, plain = TRANSFORM.apply_augmentation(inputs, "none", _draws(6)), TRANSFORM.apply_evaluation(inputs)
    assert view.keys() == {"image", "depth"}
    assert all(torch.equal(view[name], plain[name]) for name in view)


def _rotate_by_loops(height: int, width: int, angle: float, mirrored: bool, stored: torch.Tensor):
    """Return the nearest stored pixel of each pixel of the crop, by trigonometry; zero outside of the stored image."""
    rows, columns = stored.shape
    result = torch.zeros(height, width, dtype=stored.dtype)
    # True halfway between two pixels, or nearly.
    edge = torch.zeros(height, width, dtype=torch.bool)
    for y in range(height):
        for x in range(width):
            dx, dy = x - (width - 1) / 2, y - (height - 1) / 2
            dx = -dx if mirrored else dx
            sx = math.cos(angle) * dx - math.sin(angle) * dy + (columns - 1) / 2
            sy = math.sin(angle) * dx + math.cos(angle) * dy + (rows - 1) / 2
            edge[y, x] = min(abs(s - math.floor(s) - 0.5) for s in (sx, sy)) < 1e-3
            nx, ny = round(sx), round(sy)
            if 0 <= nx < columns and 0 <= ny < rows:
                result[y, x] = stored[ny, nx]
    return result, edge


def test_labels_are_mirrored_and_rotated_to_the_nearest_pixel():
    inputs = _inputs()
    _, counts = DENSE_AUGMENTATIONS["depth"](inputs["image"], inputs["depth"], SPEC, _draws(6))
    generator = torch.Generator().manual_seed(1)
    mirrored = torch.rand(6, generator=generator) < 0.5
    angles = math.radians(5) * (2 * torch.rand(6, generator=generator) - 1)
    assert mirrored.any()
    assert not mirrored.all()
    for row in range(6):
        expected, edge = _rotate_by_loops(30, 40, float(angles[row]), bool(mirrored[row]), inputs["depth"][row, 0])
        assert torch.equal(counts[row, 0][~edge], expected[~edge])


def test_images_and_labels_stay_aligned():
    ramp = torch.linspace(20, 230, 52).round().to(torch.uint8).expand(8, 3, 40, 52).contiguous()
    inputs = {"image": ramp, "depth": ramp[:, :1].to(torch.int16) * 10}
    images, counts = DENSE_AUGMENTATIONS["depth"](inputs["image"], inputs["depth"], SPEC, _draws(8))
    for row in range(8):
        pair = torch.stack([images[row, 0].flatten(), counts[row, 0].flatten().float()])
        # Colors change linearly, but for clipping
        assert float(torch.corrcoef(pair)[0, 1]) > 0.99


def test_pixels_rotated_in_from_outside_have_no_label():
    whole = DenseLabels(column="depth", unit_per_count=0.001, height=40, width=52)
    inputs = _inputs()
    _, counts = DENSE_AUGMENTATIONS["depth"](inputs["image"], inputs["depth"], whole, _draws(6))
    assert (inputs["depth"] > 0).all()
    missing = (counts == 0).flatten(1).sum(dim=1)
    assert (missing > 0).any()
    assert (missing < 200).all()
    assert (to_labels(counts, whole)[counts.squeeze(1) == 0] == 0).all()
    # Nothing is mixed: every number stood in the map.
    for row in range(6):
        assert set(counts[row].unique().tolist()) <= {0, *inputs["depth"][row].unique().tolist()}


def test_colors_stay_in_range_and_do_not_change_the_labels():
    inputs = _inputs()
    other = {**inputs, "image": 255 - inputs["image"]}
    one, two = (TRANSFORM.apply_augmentation(each, "depth", _draws(6)) for each in (inputs, other))
    assert torch.equal(one["depth"], two["depth"])
    assert 0 <= float(one["image"].min()) < float(one["image"].max()) <= 1


def test_ranks_see_their_parts_of_the_same_views():
    inputs = _inputs()
    whole = make_views(inputs, TRANSFORM, count=2, augmentation="depth", stream=(1, 2, 3), total=6, rows=slice(0, 6))
    part = {name: value[2:4] for name, value in inputs.items()}
    share = make_views(part, TRANSFORM, count=2, augmentation="depth", stream=(1, 2, 3), total=6, rows=slice(2, 4))
    for mine, all_of_them in zip(share, whole, strict=True):
        for name in mine:
            torch.testing.assert_close(mine[name], all_of_them[name][2:4])
    assert not torch.equal(whole[0]["depth"], whole[1]["depth"])


def test_an_image_of_one_channel_can_be_augmented():
    inputs = _inputs()
    view = TRANSFORM.apply_augmentation({**inputs, "image": inputs["image"][:, :1]}, "depth", _draws(6))
    assert view["image"].shape == (6, 1, 30, 40)
