"""`pytest tests/models/encoders/test_cnn.py`: sizes of the small-image encoder, and its independence of the batch."""

from __future__ import annotations

import pytest
import torch

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.cnn import CNN


def _image(*shape: int):
    return {"image": InputSpec(kind="image", shape=shape)}


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 24, 24), (3, 36, 60), (1, 25, 31)])
def test_the_embedding_holds_three_times_channels_values_per_position(shape):
    encoder = CNN(channels=2).build(_image(*shape))
    assert encoder.embedding_dim == 6 * (shape[1] // 8) * (shape[2] // 8)
    assert encoder({"image": torch.rand(2, *shape)}).shape == (2, encoder.embedding_dim)


def test_images_too_small_for_three_halvings_are_refused():
    with pytest.raises(InputError, match="images of at least 8x8 pixels"):
        CNN().build(_image(1, 24, 7))


def test_training_on_halves_of_a_batch_sums_to_training_on_the_whole():
    torch.manual_seed(0)
    encoder = CNN(channels=4).build(_image(1, 16, 16)).double().train()
    images = torch.rand(6, 1, 16, 16, dtype=torch.float64)
    parameters = list(encoder.parameters())
    whole = torch.autograd.grad(encoder({"image": images}).square().sum(), parameters)
    halves = [torch.autograd.grad(encoder({"image": half}).square().sum(), parameters) for half in images.split(3)]
    for total, first, second in zip(whole, *halves, strict=True):
        torch.testing.assert_close(first + second, total)


def test_the_embedding_depends_on_positions():
    encoder = CNN(channels=4).build(_image(1, 24, 24))
    image = torch.zeros(1, 1, 24, 24)
    image[..., 2:6, 2:6] = 1
    moved = image.roll(8, dims=-1)
    difference = encoder({"image": image}) - encoder({"image": moved})
    assert difference.abs().max() > 1e-3
