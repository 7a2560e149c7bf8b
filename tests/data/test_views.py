"""Run with `pytest tests/data/test_views.py`."""

from __future__ import annotations

import pytest
import torch

from dirtune.data.augmentations import AUGMENTATIONS
from dirtune.data.views import SampleTransform, make_views


def images(count: int, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 1, size, size), generator=generator, dtype=torch.uint8)


def views(pictures: torch.Tensor, name: str, rows: slice = slice(None), stream: tuple[int, int, int] = (0, 1, 0)):
    made = make_views(
        {"image": pictures[rows]},
        SampleTransform(),
        count=2,
        augmentation=name,
        stream=stream,
        total=len(pictures),
        rows=rows,
    )
    return [view["image"] for view in made]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_ranks_see_their_parts_of_the_same_views(name: str) -> None:
    pictures = images(10)
    whole = views(pictures, name)
    parts = [views(pictures, name, rows) for rows in (slice(0, 3), slice(3, 10))]
    for view in range(2):
        assert torch.equal(whole[view], torch.cat([part[view] for part in parts]))


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"none"}))
def test_views_differ_between_each_other_epochs_and_steps_but_not_between_runs(name: str) -> None:
    pictures = images(6)
    first, second = views(pictures, name)
    assert not torch.equal(first, second)
    assert torch.equal(first, views(pictures, name)[0])
    assert not torch.equal(first, views(pictures, name, stream=(0, 2, 0))[0])
    assert not torch.equal(first, views(pictures, name, stream=(0, 1, 1))[0])
    assert not torch.equal(first, views(pictures, name, stream=(1, 1, 0))[0])


def test_no_augmentation_gives_equal_views_in_the_unit_range() -> None:
    pictures = images(4)
    first, second = views(pictures, "none")
    assert torch.equal(first, second)
    assert torch.equal(first, pictures.float() / 255)


def test_inputs_other_than_images_pass_unchanged() -> None:
    tokens = torch.arange(12, dtype=torch.int32).reshape(3, 4)
    made = make_views(
        {"first": tokens}, SampleTransform(), count=2, augmentation="shift", stream=(0, 0, 0), total=3, rows=slice(None)
    )
    assert all(torch.equal(view["first"], tokens) for view in made)
