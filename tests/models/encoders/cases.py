"""One small spec per encoder, inputs that fit it, and batches of them."""

from __future__ import annotations

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
