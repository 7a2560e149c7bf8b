"""One small spec per encoder, inputs that fit it, and batches of them."""

from __future__ import annotations

import torch

from dirtune.batch import Inputs
from dirtune.manifest import InputSpec
from dirtune.models.encoders.bilstm import BiLSTM
from dirtune.models.encoders.cnn import CNN
from dirtune.models.encoders.depth_resnet import DepthResNet
from dirtune.models.encoders.lenet import LeNet
from dirtune.models.encoders.mlp import MLP
from dirtune.models.encoders.pair_mlp import PairMLP
from dirtune.models.encoders.resnet import ResNet18, ResNet50

IMAGE = {"image": InputSpec(kind="image", shape=(1, 24, 24))}
LARGE_IMAGE = {"image": InputSpec(kind="image", shape=(3, 64, 64))}
VECTOR = {"features": InputSpec(kind="vector", shape=(6,))}
VECTORS = {
    "first_features": InputSpec(kind="vector", shape=(6,)),
    "second_features": InputSpec(kind="vector", shape=(6,)),
}
TOKENS = {
    "first": InputSpec(kind="tokens", shape=(7,), vocabulary=11),
    "second": InputSpec(kind="tokens", shape=(5,), vocabulary=11),
}

CASES = {
    "bilstm": (BiLSTM(vector_size=4, hidden=3), TOKENS),
    "cnn": (CNN(channels=4), IMAGE),
    "depth_resnet": (DepthResNet(base="resnet18"), LARGE_IMAGE),
    "lenet": (LeNet(), IMAGE),
    "mlp": (MLP(hidden=(8, 5)), VECTOR),
    "pair_mlp": (PairMLP(shared=8, hidden=(5,)), VECTORS),
    "resnet18": (ResNet18(), LARGE_IMAGE),
    "resnet50": (ResNet50(), LARGE_IMAGE),
}


def random_inputs(specs: dict[str, InputSpec], batch: int, seed: int = 0) -> Inputs:
    """A batch as training makes it: images and vectors as floats, token rows with at least one token."""
    generator = torch.Generator().manual_seed(seed)
    inputs: Inputs = {}
    for name, spec in specs.items():
        shape = (batch, *spec.shape)
        if spec.kind != "tokens":
            inputs[name] = torch.rand(shape, generator=generator)
            continue
        tokens = torch.randint(1, spec.vocabulary or 2, shape, generator=generator)
        lengths = torch.randint(1, spec.shape[0] + 1, (batch, 1), generator=generator)
        inputs[name] = (tokens * (torch.arange(spec.shape[0]) < lengths)).to(torch.int32)
    return inputs
