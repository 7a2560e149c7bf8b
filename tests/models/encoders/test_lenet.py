"""`pytest tests/models/encoders/test_lenet.py`: sizes and start of the published network, and the side input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.lenet import LeNet

EYE = {"image": InputSpec(kind="image", shape=(1, 36, 60))}
POSE = {"pose": InputSpec(kind="vector", shape=(2,))}


def _seeded(spec: LeNet, inputs: dict[str, InputSpec]):
    torch.manual_seed(0)
    return spec.build(inputs).eval()


def test_an_eye_becomes_500_values_by_way_of_3600():
    encoder = _seeded(LeNet(), EYE)
    assert encoder.embedding_dim == 500
    shapes = [tuple(parameter.shape) for parameter in encoder.parameters()]
    assert shapes == [(20, 1, 5, 5), (20,), (50, 20, 5, 5), (50,), (500, 3600), (500,)]


def test_the_network_is_two_pooled_convolutions_and_one_rectified_linear_layer():
    encoder = _seeded(LeNet(), EYE)
    one, one_bias, two, two_bias, linear, linear_bias = encoder.parameters()
    for bias in (one_bias, two_bias, linear_bias):
        torch.nn.init.normal_(bias)
    images = torch.rand(3, 1, 36, 60)
    x = F.max_pool2d(F.conv2d(images, one, one_bias), 2)
    x = F.max_pool2d(F.conv2d(x, two, two_bias), 2)
    expected = F.relu(x.reshape(3, -1) @ linear.T + linear_bias)
    torch.testing.assert_close(encoder({"image": images}), expected)
    assert 0 < (expected == 0).float().mean() < 1


def test_the_start_has_the_published_spreads_and_no_biases():
    one, one_bias, two, two_bias, linear, linear_bias = _seeded(LeNet(), EYE).parameters()
    assert one.std().item() == pytest.approx(0.1, rel=0.1)
    assert two.std().item() == pytest.approx(0.01, rel=0.02)
    bound = (6 / (3600 + 500)) ** 0.5
    assert linear.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert not any(bias.any() for bias in (one_bias, two_bias, linear_bias))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 17, 31), (2, 36, 60)])
def test_images_of_any_channels_and_size_from_16_pixels_on_fit(shape):
    encoder = LeNet().build({"image": InputSpec(kind="image", shape=shape)})
    assert encoder({"image": torch.rand(2, *shape)}).shape == (2, 500)


def test_smaller_images_are_refused():
    with pytest.raises(InputError, match="images of at least 16x16 pixels"):
        LeNet().build({"image": InputSpec(kind="image", shape=(1, 15, 60))})


def test_the_side_input_is_concatenated_to_the_embedding_of_the_image():
    alone = _seeded(LeNet(), EYE)
    with_pose = _seeded(LeNet(side_input="pose"), EYE | POSE)
    inputs = {"image": torch.rand(4, 1, 36, 60), "pose": torch.randn(4, 2)}
    embeddings = with_pose(inputs)
    assert with_pose.embedding_dim == 502
    assert torch.equal(embeddings[:, :500], alone(inputs))
    assert torch.equal(embeddings[:, 500:], inputs["pose"])


@pytest.mark.parametrize("side_input", ["head", "image"])
def test_a_side_input_that_is_no_vector_is_refused_with_the_known_ones(side_input):
    with pytest.raises(InputError, match=f"needs a vector input '{side_input}', .*known: pose"):
        LeNet(side_input=side_input).build(EYE | POSE)
