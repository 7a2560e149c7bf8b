"""Run with `pytest tests/models/encoders/test_depth_resnet.py`; what all encoders keep is in `test_encoder.py`."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import get_model

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.depth_resnet import DepthResNet


def _image(channels: int = 3, height: int = 64, width: int = 64) -> dict[str, InputSpec]:
    return {"image": InputSpec(kind="image", shape=(channels, height, width))}


def test_with_resnet50_it_is_the_published_network():
    encoder = DepthResNet().build(_image())
    assert encoder.embedding_dim == 128
    parts = {name: sum(parameter.numel() for parameter in part.parameters()) for name, part in encoder.named_children()}
    # From the published sizes: 2048 -> 1024 by a 1x1 convolution; halved four times; 16 values of each scale.
    steps = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    scales = [(256, 16), (512, 16), (1024, 16), (2048, 16)]
    assert parts["bridge"] == 2048 * 1024 + 2 * 1024
    assert parts["decoder"] == sum(_up_projection(*each) for each in steps)
    assert parts["lifts"] == sum(_up_projection(*each) for each in scales)
    assert parts["fusion"] == 25 * 64 * 64 + 2 * 64
    assert parts["refinement"] == 2 * (25 * 128 * 128 + 2 * 128)
    network = get_model("resnet50")
    # Without its last layer
    kept = sum(each.numel() for each in network.parameters()) - 2049 * 1000
    assert parts["stem"] + parts["scales"] == kept


def _up_projection(given: int, made: int) -> int:
    return 25 * given * made * 2 + 9 * made * made + 3 * 2 * made


@pytest.mark.parametrize(("height", "width"), [(64, 64), (57, 76), (36, 48)])
def test_embeddings_are_half_as_high_and_wide_as_the_image(height, width):
    encoder = DepthResNet(base="resnet18").build(_image(3, height, width)).eval()
    embeddings = encoder({"image": torch.rand(1, 3, height, width)})
    assert embeddings.shape == (1, 80, -(-height // 2), -(-width // 2))
    assert (embeddings >= 0).all()


@pytest.mark.parametrize("align_corners", [True, False])
def test_up_projections_place_pixels_as_they_are_asked_to(align_corners):
    encoder = DepthResNet(base="resnet18", align_corners=align_corners).build(_image(3, 32, 32))
    seen = []
    encoder.decoder[0].short.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    bridge = torch.tensor([1.0, 3.0]).expand(1, 256, 1, 2)
    encoder.decoder[0](bridge, (1, 4))
    # Of four new pixels over two old ones, between the old centers or between the outer edges
    expected = [1, 5 / 3, 7 / 3, 3] if align_corners else [1, 1.5, 2.5, 3]
    torch.testing.assert_close(seen[0][0, 0, 0], torch.tensor(expected))
    assert DepthResNet().align_corners


def test_images_are_normalized_as_imagenet_is():
    encoder = DepthResNet(base="resnet18").build(_image())
    seen = []
    encoder.stem.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    encoder({"image": torch.full((2, 3, 64, 64), 0.5)})
    expected = [(0.5 - mean) / dev for mean, dev in [(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]]
    torch.testing.assert_close(seen[0][1, :, 3, 4], torch.tensor(expected))


def test_it_starts_from_the_weights_of_a_file(tmp_path):
    network = get_model("resnet18")
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    encoder = DepthResNet(base="resnet18", weights_file=str(tmp_path / "weights.pth")).build(_image())
    assert torch.equal(encoder.stem[0].weight, network.conv1.weight)
    assert torch.equal(encoder.scales[3][1].conv2.weight, network.layer4[1].conv2.weight)
    with pytest.raises(InputError, match="not the weights of this encoder"):
        DepthResNet(weights_file=str(tmp_path / "weights.pth")).build(_image())


def test_an_image_of_one_channel_is_refused():
    with pytest.raises(InputError, match="needs an image input of three channels"):
        DepthResNet().build(_image(1))
