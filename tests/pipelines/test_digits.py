from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as vision
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from dirtune.data.ingest import ingest
from dirtune.data.store import decode, read_split
from dirtune.errors import InputError
from dirtune.io.storage import Storage
from dirtune.manifest import ShotRule
from dirtune.pipelines.digits import LABEL, compute_training_counts, draw_plans, rotate
from dirtune.reweighting.density import label_bins, shot_regions


def test_training_bins_are_18_many_29_medium_and_73_few_shot() -> None:
    counts = compute_training_counts()
    regions = shot_regions(counts, ShotRule())
    assert [int((regions == region).sum()) for region in ("many", "medium", "few")] == [18, 29, 73]
    assert counts.sum() == 4809
    assert counts.min() == 1


def test_training_counts_follow_the_stated_density() -> None:
    for index, count in enumerate(compute_training_counts()):
        distance = abs(-60 + index + 0.5 - 0.25)
        assert count == max(1, round(264 * math.exp(-distance / 9.1)))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_angles_fill_the_bins_as_planned(seed: int) -> None:
    plan = draw_plans(seed)
    for split, counts in {"train": compute_training_counts(), "val": np.full(120, 5), "test": np.full(120, 10)}.items():
        angles = plan[split].angles
        assert angles.min() >= -60
        assert angles.max() < 60
        np.testing.assert_array_equal(np.histogram(angles, np.arange(-60, 61))[0], counts)
        np.testing.assert_array_equal(np.bincount(label_bins(angles, LABEL), minlength=120), counts)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_splits_use_different_digits(seed: int) -> None:
    sources = {split: set(plan.sources.tolist()) for split, plan in draw_plans(seed).items()}
    assert {split: len(digits) for split, digits in sources.items()} == {"train": 1197, "val": 200, "test": 400}
    assert len(sources["train"] | sources["val"] | sources["test"]) == 1797


def test_the_plan_depends_on_the_seed_alone() -> None:
    one, again, other = draw_plans(0), draw_plans(0), draw_plans(1)
    for split in one:
        np.testing.assert_array_equal(one[split].sources, again[split].sources)
        np.testing.assert_array_equal(one[split].angles, again[split].angles)
        assert not np.array_equal(one[split].angles, other[split].angles)


def _rotated_by_loops(image: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    """Each output pixel looks up, in x to the right and y upwards, where it came from."""
    result = np.zeros((24, 24))
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for row in range(24):
        for column in range(24):
            # In input pixels
            x, y = (column - 11.5) / 3, (11.5 - row) / 3
            # Turned back clockwise
            before_x, before_y = x * cos + y * sin, -x * sin + y * cos
            result[row, column] = _bilinear(image, 3.5 - before_y, 3.5 + before_x)
    return result * 255 / 16


def _bilinear(image: NDArray[np.float64], row: float, column: float) -> float:
    top, left, total = math.floor(row), math.floor(column), 0.0
    for r in (top, top + 1):
        for c in (left, left + 1):
            if 0 <= r < 8 and 0 <= c < 8:
                total += image[r, c] * (1 - abs(row - r)) * (1 - abs(column - c))
    return total


@pytest.mark.parametrize("angle", [-60.0, -17.3, 0.0, 45.0, 59.999])
def test_an_image_is_turned_by_the_labeled_angle(angle: float) -> None:
    image = load_digits().images[5]
    np.testing.assert_allclose(rotate(image, angle), _rotated_by_loops(image, angle), atol=0.5001)


@pytest.mark.parametrize("angle", [-40, 0, 25])
def test_torchvision_agrees_on_angle_and_direction(angle: int) -> None:
    image = load_digits().images[3]
    upsampled = torch.nn.functional.interpolate(torch.from_numpy(image)[None, None], size=(24, 24), mode="bilinear")
    ours = rotate(image, float(angle)).ravel().astype(np.float64)

    def likeness(candidate: int) -> float:
        theirs = vision.rotate(upsampled, candidate, vision.InterpolationMode.BILINEAR)
        return float(np.corrcoef(theirs.numpy().ravel(), ours)[0, 1])

    assert max(range(-60, 61, 5), key=likeness) == angle
    assert likeness(angle) > 0.98


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_ingest_stores_the_planned_images_and_is_the_same_every_time(tmp_path: Path) -> None:
    manifest = ingest("digits", root=tmp_path / "one", report=str)
    assert ingest("digits", root=tmp_path / "two", report=str).content_hash == manifest.content_hash
    assert {split: info.rows for split, info in manifest.splits.items()} == {"train": 4809, "val": 600, "test": 1200}
    assert manifest.train_counts == tuple(compute_training_counts())
    pixels = load_digits().images
    for split, plan in draw_plans(0).items():
        arrays = decode(read_split(Storage.open(tmp_path / "one"), manifest, split), manifest)
        np.testing.assert_array_equal(arrays["label"], plan.angles)
        assert arrays["image"].shape == (len(plan.angles), 1, 24, 24)
        for row in range(0, len(plan.angles), 97):
            expected = rotate(pixels[plan.sources[row]], plan.angles[row])
            np.testing.assert_array_equal(arrays["image"][row, 0], expected)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_session")
def test_raw_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="digits: raw: digits is synthetic and takes no raw files"):
        ingest("digits", root=tmp_path, raw=tmp_path)
