"""`pytest tests/models/encoders/test_resnet.py`: torchvision's network without its last layer, and weights from a file."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18

from dirtune.errors import InputError
from dirtune.manifest import InputSpec
from dirtune.models.encoders.resnet import ResNet18, ResNet50


def _image(channels: int):
    return {"image": InputSpec(kind="image", shape=(channels, 32, 32))}


def test_the_encoder_is_torchvisions_network_before_its_last_layer():
    torch.manual_seed(0)
    encoder = ResNet18().build(_image(3)).eval()
    torch.manual_seed(0)
    network = resnet18().eval()
    images = torch.rand(2, 3, 32, 32)
    predictions = network.fc(encoder({"image": images}))
    torch.testing.assert_close(predictions, network(images))


@pytest.mark.parametrize(("spec", "size"), [(ResNet18(), 512), (ResNet50(), 2048)])
def test_one_channel_needs_no_copies(spec, size):
    encoder = spec.build(_image(1)).eval()
    assert encoder.embedding_dim == size
    assert encoder({"image": torch.rand(2, 1, 32, 32)}).shape == (2, size)


def test_two_channels_are_refused():
    with pytest.raises(InputError, match="an image input of one or three channels"):
        ResNet18().build(_image(2))


def test_weights_come_from_a_file_that_torchvision_wrote(tmp_path):
    network = resnet18().eval()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    encoder = ResNet18(weights_file=str(tmp_path / "weights.pt")).build(_image(3)).eval()
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(network.fc(encoder({"image": images})), network(images))


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "weights.pt")
    for content in (None, b"no weights"):
        if content:
            (tmp_path / "weights.pt").write_bytes(content)
        with pytest.raises(InputError, match="not the weights of this encoder"):
            ResNet50(weights_file=str(tmp_path / "weights.pt")).build(_image(3))


def test_a_missing_weights_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        ResNet18(weights_file=str(tmp_path / "none.pt")).build(_image(3))
